"""What the hops of a message's way share: the state of a runner, and each other's names."""

from __future__ import annotations

import abc
import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

from liteflow.core.activation import Activation
from liteflow.core.admission import Telling
from liteflow.core.bodies import BodyRunner, Check, Job
from liteflow.core.calls import Calls
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.engine import EngineOptions
from liteflow.core.hooks import Hooks
from liteflow.core.inputs import (
    BodyEnded,
    ConditionsHeld,
    Input,
)
from liteflow.core.long_steps import LongSteps
from liteflow.core.models import (
    Instance,
    OutboxItem,
)
from liteflow.core.providers import (
    Delivery,
    LockProvider,
    PersistenceProvider,
    QueueProvider,
)
from liteflow.core.registry import WorkflowRegistry
from liteflow.core.room import Room
from liteflow.core.runtime import THREADS, Runtime
from liteflow.core.settings import Settings
from liteflow.core.topics import DUE_TOPIC
from liteflow.core.transition import Transition
from liteflow.core.views import WorkflowInstance

ALONE_FROM = 2
"""After so many deaths in a row, what may be their cause runs with no other body beside it."""

OutboxSender = Callable[[Instance, WorkflowDefinition, Sequence[OutboxItem]], None]


class Hops(abc.ABC):
    """State that is touched on the runner's loop only, but for what says otherwise."""

    def __init__(
        self,
        registry: WorkflowRegistry,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        lock: LockProvider,
        settings: Settings,
        *,
        hooks: Hooks,
        send_outbox: OutboxSender,
        room_changed: Callable[[int], None] = lambda instances: None,
        runtime: Runtime = THREADS,
    ) -> None:
        self.id = uuid.uuid4().hex[:16]
        self._registry = registry
        self._persistence = persistence
        self._queue = queue
        self._lock = lock
        self._settings = settings
        self._hooks = hooks
        self._send_outbox = send_outbox
        self._telling = Telling(settings, hooks, queue)
        self._clock = runtime.monotonic
        self._loop = runtime.loop("liteflow-runner")
        bodies = BodyRunner(persistence.now, settings, hooks, lambda: persistence.clock_uncertainty)
        self._bodies = bodies
        self._slots = runtime.slots(settings.concurrency, bodies, self._slot_ended)
        self._acts: dict[str, Activation] = {}
        self._room_changed = room_changed
        self._room = Room(settings.concurrency, self._room_is, runtime.monotonic)
        self.room = self._room.instances  # to begin with
        self._waiting: deque[Delivery] = deque()  # came in one message with others, and is not begun
        self._giving_back = 0
        self._ended: list[str] = []  # whose end is to be broadcast
        self._long = LongSteps(self._room.long_steps)
        self._draining = False
        self._abandoned = False
        self._idle = threading.Event()
        self._tokens = itertools.count(1)
        self._young: deque[tuple[float, Activation, Job]] = deque()  # running, by when they are long
        self._nudging = False
        self._alone: Activation | None = None  # the suspect whose turn it is
        self._awaiting: deque[Activation] = deque()  # suspects that wait for theirs
        self._calls = Calls(persistence, queue, lock, settings.lease_ttl, self._loop, runtime)
        self._unsubscribe: list[Callable[[], None]] = []

    def _options(self, definition: WorkflowDefinition) -> EngineOptions:
        return self._telling.options(definition)

    @staticmethod
    def _view(act: Activation, instance: Instance) -> WorkflowInstance:
        data_type = act.definition.data_type if act.definition is not None else None
        return WorkflowInstance(instance, data_type)

    def _check_idle(self) -> None:
        if self._draining and not self._acts and not self._long and not self._giving_back:
            self._idle.set()

    def _tell_scheduler(self, at: datetime | None, now: datetime) -> None:
        """It may sleep for longer than until an instance is due."""
        if at is not None and (at - now).total_seconds() < self._settings.poll_interval:
            self._queue.notify(DUE_TOPIC, str(at.timestamp()))

    # ------------------------------------------------------------------------------------- the hops

    @abc.abstractmethod
    def _room_is(self, instances: int) -> None:
        """So many instances may be in hand from now on."""

    @abc.abstractmethod
    def _begin(self, act: Activation) -> None:
        """Ask for the lease."""

    @abc.abstractmethod
    def _load(self, act: Activation) -> None:
        """Load the instance, under the lease."""

    @abc.abstractmethod
    def _pause(self, act: Activation, problem: Exception) -> None:
        """A backend is away: try again later, or give the wake-ups back."""

    @abc.abstractmethod
    def _park(self, act: Activation, revision: int, reason: str, needs: str) -> None:
        """Set the instance aside, for a reason outside the workflow."""

    @abc.abstractmethod
    def _forget(self, act: Activation) -> None:
        """All is done for it here."""

    @abc.abstractmethod
    def _go(self, act: Activation) -> None:
        """Commit what has happened; run what is ready; leave when there is nothing left to do."""

    @abc.abstractmethod
    def _flush_outbox(self, act: Activation, instance: Instance) -> None:
        """Send the outbox."""

    @abc.abstractmethod
    def _dispatch(
        self, act: Activation, instance: Instance, now: datetime, pending: Transition | None
    ) -> None:
        """Run what is ready, and stays so with the transition that is being committed.

        `now` is a time that has come by any process's clock.
        """

    @abc.abstractmethod
    def _submit(self, work: Job | Check, instance: Instance) -> None:
        """Give it to the slots."""

    @abc.abstractmethod
    def _has_turn(self, act: Activation, instance: Instance) -> bool:
        """May it be counted that the suspect is run?"""

    @abc.abstractmethod
    def _count_crash(self, act: Activation) -> None:
        """Store that a process has died at it, before what may take this one along too is run."""

    @abc.abstractmethod
    def _end_turn(self, act: Activation) -> None:
        """It is no suspect here any more: let the next one have its turn."""

    @abc.abstractmethod
    def _withdraw(self, job: Job) -> bool:
        """Take back a job that no slot has begun. False if one has."""

    @abc.abstractmethod
    def _unfinished(self, instance: Instance, now: datetime) -> bool:
        """True if somebody could go on with it at once."""

    @abc.abstractmethod
    def _watch(self, job: Job) -> None:
        """See to it that the body is told, and its step fails, when its time is up."""

    @abc.abstractmethod
    def _slot_ended(self, work: Job | Check, outcome: BodyEnded | ConditionsHeld) -> None:
        """A slot has done its work. From a slot's thread."""

    @abc.abstractmethod
    def _check_ended(self, check: Check, held: ConditionsHeld) -> None:
        """Cancel conditions were evaluated."""

    @abc.abstractmethod
    def _commit(self, act: Activation, inputs: list[Input], transition: Transition) -> None:
        """Store a transition."""

    @abc.abstractmethod
    def _tell_soon(self, act: Activation) -> None:
        """Its end, or its being suspended, is being stored: who waits for that may hear of it already."""

    @abc.abstractmethod
    def _settle_inputs(self, act: Activation, inputs: Sequence[Input]) -> None:
        """These inputs are stored, or were of no effect."""

    @abc.abstractmethod
    def _long_ended(self, ended: BodyEnded) -> None:
        """The result of a long step is stored."""

    @abc.abstractmethod
    def _leave(self, act: Activation) -> None:
        """Give the lease back, and go on as that turns out."""

    @abc.abstractmethod
    def _released(self, act: Activation, clean: bool | Exception) -> None:
        """The lease was given back, or there was none."""

    @abc.abstractmethod
    def _release_then(self, act: Activation, action: Callable[[], None]) -> None:
        """Give the lease back, then do something else."""


def ignore(result: object) -> None:
    """For writes that only save a needless look when they get through."""
