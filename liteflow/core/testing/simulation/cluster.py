"""One history while it is being made: its processes, its moves, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from liteflow.core.client import WorkflowClient
from liteflow.core.commands import Answer, Command, CommandServer, Refusal
from liteflow.core.errors import UnavailableError
from liteflow.core.hooks import Hooks
from liteflow.core.host import WorkflowHost
from liteflow.core.models import DefinitionRecord
from liteflow.core.poller import Poller
from liteflow.core.providers import LockProvider, PersistenceProvider, QueueProvider
from liteflow.core.registry import WorkflowRegistry
from liteflow.core.settings import Settings
from liteflow.core.testing.simulation.chance import heard, seeded
from liteflow.core.testing.simulation.faults import Drawer, Faults
from liteflow.core.testing.simulation.history import History, Move
from liteflow.core.testing.simulation.line import Line
from liteflow.core.testing.simulation.lock import NodeLock, WatchedLock
from liteflow.core.testing.simulation.parts import SimulatedRuntime
from liteflow.core.testing.simulation.producer import Accepted, Producer, Scenario
from liteflow.core.testing.simulation.queue import Broker, NodeQueue
from liteflow.core.testing.simulation.store import NodeStore, WatchedStore
from liteflow.core.testing.simulation.watch import Watch
from liteflow.core.testing.simulation.world import SECOND, Node, World
from liteflow.core.views import WorkflowInstance

QUIET = 0.5
"""Seconds without a move after which all is quiet."""

RECOVERY = 900.0
"""Virtual seconds after the last fault within which everything has to have ended."""

MOVES = 60_000
"""A history that takes more is stuck, or runs in circles."""

SKEW = 20_000
"""Microseconds by which two nodes' ideas of the time may differ, in some histories."""

Gateway = Callable[[WorkflowHost], Callable[[Command], Answer | Refusal]]
"""Makes what handles commands in a worker, such as ``lambda host: Gateway(host).handle``."""

Program = Callable[[Node, PersistenceProvider, QueueProvider, LockProvider], None]
"""What a process does; it returns when it has started."""


@dataclass(frozen=True)
class Cluster:
    """The processes of a history.

    Without `settings` the seed draws them. `skew` is by how many seconds two nodes' ideas of the time may
    differ; without it the seed draws that too. With `gateway` the workers serve commands, and some producers
    send them.
    """

    workers: int = 2
    schedulers: int = 1
    settings: Settings | None = None
    skew: float | None = None
    gateway: Gateway | None = None


ALL_FAULTS = Faults()
SMALL_CLUSTER = Cluster()


@dataclass
class Simulation:
    """One history while it is being made."""

    registry: WorkflowRegistry
    scenarios: Sequence[Scenario]
    seed: object
    faults: Faults
    cluster: Cluster
    verbose: bool = False
    moves: list[Move] = field(default_factory=list)
    accepted: Accepted = field(default_factory=Accepted)

    def __post_init__(self) -> None:
        self.world = World(self.seed)
        random = self.world.random
        self.world.sluggish = random.choice([0.0, 0.0, 0.1, 0.3])
        self.world.buried = self._buried
        self.drawer = Drawer(self.faults, random)
        self.watch = Watch(self.world, lambda: self.drawer.excuse)
        self.store = WatchedStore(self.world, self.watch)
        self.lock = WatchedLock(self.world, self.watch)
        self.broker = Broker(self.world)
        self.skew = random.choice([0, SKEW])
        if self.cluster.skew is not None:
            self.skew = int(self.cluster.skew * SECOND)
        self.settings = self.cluster.settings or Settings(
            concurrency=random.choice([1, 2, 4]),
            time_slice=random.choice([0.0, 0.01, 1.0, 60.0]),
            poison_after=3 if self.drawer.gentle else 1000,
        )
        self.working = len(self.scenarios)
        self.nodes: list[Node] = []
        self._programs: dict[Node, tuple[str, int, Program]] = {}

    # ---------------------------------------------------------------------------------------- processes

    def boot(self, name: str, number: int, program: Program) -> None:
        """Start a process; when it dies another one takes its place."""
        world = self.world
        skew = int((world.random.random() - 0.5) * self.skew)
        node = Node(world, name if number == 1 else f"{name}#{number}", skew)
        self.nodes.append(node)
        self._programs[node] = (name, number, program)
        line = Line(node, self.drawer, self._told, self.lock.forget, self.settings.lease_ttl)
        store = NodeStore(line, self.store, timedelta(microseconds=self.skew))
        queue, lock = NodeQueue(line, self.broker), NodeLock(line, self.lock)

        def run() -> bool:
            try:
                program(node, store, queue, lock)
            except UnavailableError:
                world.kill(node)  # it does not start, and ends
            return False

        node.actor("main", run).wake()

    def _told(self, node: Node, call: str, what: str) -> None:
        self.moves.append(Move(self.world.micros, node.name, call, what))

    def _buried(self, node: Node) -> None:
        self.nodes.remove(node)
        self._told(node, "is dead", "")
        self.world.after(self.world.random.random(), partial(self.broker.drop, node))
        name, number, program = self._programs.pop(node)
        again = partial(self.boot, name, number + 1, program)
        self.world.after(self.world.random.random() * 5, again)

    def worker(
        self, node: Node, store: PersistenceProvider, queue: QueueProvider, lock: LockProvider
    ) -> None:
        """A worker process, as `liteflow worker` runs it."""
        runtime = SimulatedRuntime(node, self.watch.body)
        host = WorkflowHost(store, queue, lock, self.settings, scheduler=False, runtime=runtime)
        host.registry = self.registry
        host.start()
        if self.cluster.gateway is not None:
            assert isinstance(queue, CommandServer)
            queue.serve_commands(self.cluster.gateway(host), 4)

    def scheduler(
        self, node: Node, store: PersistenceProvider, queue: QueueProvider, lock: LockProvider
    ) -> None:
        """A scheduler process, as `liteflow scheduler` runs it."""
        Poller(store, queue, lock, self.settings, SimulatedRuntime(node, self.watch.body)).start()

    def producer(self, scenario: Scenario) -> Program:
        """A process that carries out a scenario, and then only stays."""
        done = False

        def run(node: Node, store: PersistenceProvider, queue: QueueProvider, lock: LockProvider) -> None:
            nonlocal done
            if done:
                return
            runtime = SimulatedRuntime(node, self.watch.body)
            client = WorkflowClient(store, queue, lock, self.settings, Hooks(), runtime)
            client.registry = self.registry
            by_command = self.cluster.gateway is not None and self.by_command
            scenario(Producer(node, client, self.accepted, by_command=by_command))
            done = True
            self.working -= 1

        return run

    # --------------------------------------------------------------------------------------- the history

    def run(self) -> History:
        """Make the history."""
        random = self.world.random
        self.by_command = random.random() < 0.5
        self.store.record_definitions(
            [DefinitionRecord(d.id, d.version, d.fingerprint) for d in self.registry.get_all()]
        )
        level = logging.DEBUG if self.verbose else logging.ERROR
        with seeded(self.seed), heard(self._logged, level):
            for number in range(self.cluster.workers):
                self.boot(f"worker-{number + 1}", 1, self.worker)
            for number in range(self.cluster.schedulers):
                self.boot(f"scheduler-{number + 1}", 1, self.scheduler)
            for number, scenario in enumerate(self.scenarios):
                self.boot(f"producer-{number + 1}", 1, self.producer(scenario))
            self._play()
            for node in list(self.nodes):
                self.world.buried = lambda node: None
                self.world.kill(node)
            self.world.bury_all()
        return self._history()

    def _logged(self, record: logging.LogRecord) -> None:
        current = self.world.current
        node = current.node.name if current is not None else ""
        if self.verbose:
            self.moves.append(Move(self.world.micros, node, f"  log: {record.getMessage()}", ""))
        if record.levelno >= logging.ERROR:
            cause = f": {record.exc_info[1]!r}" if record.exc_info else ""
            self.watch.tell("no internal error", f"{node}: {record.getMessage()}{cause}")

    def _play(self) -> None:
        world, ceases = self.world, int(self.faults.ceases * SECOND)
        deadline = ceases + int(RECOVERY * SECOND)
        while True:
            pending = world.pending()
            if pending == 0:
                world.move()
                if world.moves > MOVES:
                    break
                continue
            if self._quiet(pending):
                return
            if pending is None or world.micros > deadline or self.watch.broken:
                break
            world.skip(pending)
            if world.micros > ceases:
                self.drawer.ceased = True
        if not self.watch.broken:
            self._stuck()

    def _quiet(self, pending: int | None) -> bool:
        """Nothing moves just now. True if nothing is going to."""
        if self.world.midway or not self.broker.idle:
            return False
        gap = pending is None or pending > QUIET * SECOND
        if gap and not self.drawer.excuse:
            self._rest()
        return self.working == 0 and self._finished()

    def _rest(self) -> None:
        self.watch.at_rest(self.store.stored(), lambda waits, now: self.store.events(waits, now, 1000))

    def _finished(self) -> bool:
        for instance_id, statuses in self.accepted.statuses.items():
            found = self.store.find(instance_id)
            if found is None or found.status not in statuses or found.outbox or found.inbox:
                return False
        if any(not i.status.ended and i.id not in self.accepted.statuses for i in self.store.stored()):
            return False  # a child, or one whose producer died
        due = self.store.unprocessed()
        return due is None or due > self.watch.now()

    def _stuck(self) -> None:
        if self.working:
            self.watch.tell("nothing is stuck", f"{self.working} scenarios have not come to their end")
        for instance_id, statuses in self.accepted.statuses.items():
            found = self.store.find(instance_id)
            if found is None:
                self.watch.tell("nothing accepted is lost", f"{instance_id} was accepted and is not there")
            elif found.status not in statuses:
                wanted = " or ".join(sorted(status.name for status in statuses))
                self.watch.tell("nothing is stuck", f"{instance_id} is {found.status.name}, not {wanted}")
        self._rest()
        if not self.watch.broken:
            self.watch.tell("nothing is stuck", f"after {self.world.moves} moves it still goes on")

    def _history(self) -> History:
        for key, ids in self.accepted.keys.items():
            if len(ids) > 1:
                self.watch.tell("one instance for each key", f"{key} has started {len(ids)}")
        shown = {}
        for instance in self.store.stored():
            definition = self.registry.find(instance.workflow_definition_id, instance.version)
            data_type = definition.data_type if definition is not None else None
            history = list(self.store.archived(instance.id).values())
            shown[instance.id] = WorkflowInstance(instance, data_type, history)
        return History(
            self.seed, shown, self.watch.runs, self.moves, self.drawer.happened,
            self.world.micros / SECOND, self.watch.broken,
        )  # fmt: skip
