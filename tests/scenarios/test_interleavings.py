"""An event published at every boundary of a waiting instance's way, and holders that die at each of them.

Two hosts share in-memory providers. Each calls them through a `Line`, which lets a test act right before
or after the n-th call, or cut the host off for good there, as a kill does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    SingleNodeQueueProvider,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowStatus,
    configure_workflow_host,
)
from liteflow.core.models import Event, Request
from liteflow.core.providers import Delivery, Message, Taken, WakeMove
from liteflow.core.topics import DUE_TOPIC

LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
BOUNDARIES = {"acquire", "load", "commit", "events", "release", "move_wake", "lower_wake", "archive"}


class Waits(Workflow):
    id = "waits"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.start_with(lambda context: None)
            .wait_for("go", "k", effective_date=lambda data: LONG_AGO)
            .output("got", lambda step: step.event_data)
            .then(lambda context: None)
        )


class Sleeps(Workflow):
    id = "sleeps"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None).delay(1.0)


class Line:
    """Counts a host's calls to its providers, and does something at one of them.

    That is the n-th, or the next one of a name, whose arguments are handed on.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.at = -1
        self.before: Callable[[], None] | None = None
        self.after: Callable[[], None] | None = None
        self.cut = False
        self.before_next: dict[str, Callable[..., None]] = {}
        self._guard = threading.RLock()

    def call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        if self.cut:
            threading.Event().wait()  # for ever: this host is dead
        with self._guard:
            number = len(self.calls)
            self.calls.append(name)
        mine = number == self.at
        if mine and self.before:
            self.before()
        if once := self.before_next.pop(name, None):
            once(*args)
        if self.cut:
            threading.Event().wait()
        result = function(*args)
        if mine and self.after:
            self.after()
        if self.cut:
            threading.Event().wait()
        return result


def through(line: Line, provider: Any, shared: bool = False) -> Any:
    """The provider, with the calls at boundaries going through the line.

    A `shared` one is called from a thread of its own, as a server's is.
    """

    class Through(type(provider)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.__dict__ = provider.__dict__

    def wrap(name: str) -> Callable[..., Any]:
        return lambda self, *args: line.call(name, getattr(provider, name), *args)

    for name in BOUNDARIES:
        if hasattr(provider, name):
            setattr(Through, name, wrap(name))
    if shared:
        Through.shared = True
    if hasattr(provider, "renew"):
        # a dead host renews nothing; a live one does, unseen
        Through.renew = lambda self, leases, ttl: (
            [True] * len(leases) if line.cut else provider.renew(leases, ttl)
        )
    return Through()


class Pair:
    """Two hosts on one set of providers; the first one is watched."""

    def __init__(self, shared: bool = False, **options: Any) -> None:
        self.line = Line()
        self.providers = (MemoryPersistenceProvider(), SingleNodeQueueProvider(), LocalLockProvider())
        store, queue, lock = self.providers
        self.first = configure_workflow_host(
            through(self.line, store, shared), queue, through(self.line, lock), **options
        )
        self.second = configure_workflow_host(store, queue, lock, **options)
        for workflow in (Waits, Sleeps):
            self.first.register_workflow(workflow)
            self.second.register_workflow(workflow)

    def publish(self) -> None:
        self.second.publish_event("go", "k", "hello")

    def complete(self, instance_id: str, seconds: float = 10) -> None:
        wait_for(
            "it is complete", lambda: status(self.second, instance_id) is WorkflowStatus.COMPLETE, seconds
        )
        assert self.second.get_workflow(instance_id).data.got == "hello"


def status(host: WorkflowHost, instance_id: str) -> WorkflowStatus:
    return host.get_workflow(instance_id).status


def boundaries() -> int:
    """How many calls the watched host makes until the instance waits, and a few more."""
    pair = Pair()
    pair.first.start()
    instance_id = pair.first.start_workflow("waits")
    wait_for("the wait", lambda: "move_wake" in pair.line.calls)
    pair.publish()
    pair.complete(instance_id)
    pair.first.stop()
    return len(pair.line.calls)


COUNT = boundaries()


@pytest.mark.parametrize("round_", range(6))
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(COUNT))
def test_an_event_at_any_boundary_is_delivered_without_a_sweep(at: int, when: str, round_: int) -> None:
    # the sweep would hide a lost wake-up: nothing is due again before the test's deadline
    pair = Pair(poll_interval=60.0, wake_grace=60.0, lease_ttl=60.0)
    pair.line.at = at
    published = threading.Event()

    def publish() -> None:
        published.set()
        threading.Thread(target=pair.publish).start() if round_ % 2 else pair.publish()

    setattr(pair.line, when, publish)
    pair.first.start()
    instance_id = pair.first.start_workflow("waits")
    if not published.wait(0.5):
        pair.publish()  # this run was shorter than the one that was counted
    pair.complete(instance_id)
    pair.first.stop()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(COUNT))
def test_a_holder_killed_at_any_boundary_loses_nothing(at: int, when: str) -> None:
    """The other host meets the dead one's lease, leaves its mark, acknowledges, and takes over later."""
    pair = Pair(poll_interval=0.05, wake_grace=0.2, lease_ttl=0.3)
    pair.line.at = at
    died = threading.Event()

    def die() -> None:
        pair.line.cut = True
        dead = [consumer for consumer in [*host._consumers, host._event_consumer] if consumer is not None]
        for consumer in dead:
            consumer.limit(0)  # the server gives a dead process nothing more
        for delivery in list(pair.providers[1]._unacked):
            if delivery.consumer in dead:
                delivery.nack()  # and what it had to others
        died.set()

    setattr(pair.line, when, die)
    host = pair.first
    host._with_scheduler = False
    host.start()
    instance_id = pair.second.start_workflow("waits")
    died.wait(0.3)
    pair.second.start()
    pair.publish()
    pair.complete(instance_id)
    pair.line.cut = True
    pair.second.stop()


# What the model in tests/protocol has found, each as a run of the real thing.


def test_a_request_that_nobody_announces_is_not_hidden_by_who_leaves() -> None:
    """It finds `wake_at` early enough, and its sender dies before it sends: then that must stay."""
    pair = Pair(poll_interval=0.05, wake_grace=0.4, lease_ttl=0.4)
    store = pair.providers[0]

    def ask(moves: list[WakeMove]) -> None:
        grace = store.now() + timedelta(seconds=0.4)
        store.request(moves[0].instance_id, Request("suspend", "r", store.now()), grace)

    pair.line.before_next["move_wake"] = ask
    pair.first.start()
    instance_id = pair.first.start_workflow("waits")
    wait_for("it is suspended", lambda: status(pair.second, instance_id) is WorkflowStatus.SUSPENDED, 10)
    pair.first.stop()


def test_wake_at_is_not_cleared_under_who_relies_on_it() -> None:
    """A worker takes the lease for an event and dies; another one meets that, and acknowledges."""
    pair = Pair(poll_interval=0.05, wake_grace=0.4, lease_ttl=0.4)
    store, _, lock = pair.providers

    def meanwhile(moves: list[WakeMove]) -> None:
        instance_id = moves[0].instance_id
        name = f"workflow:{instance_id}"
        store.add_event(Event("e", "go", "k", store.now(), "hello"))
        store.mark_processed(["e"])
        lock.acquire([name], 0.4)  # it dies with that; its message comes to the next one
        taken = lock.acquire([name], 0.4)[0]
        assert isinstance(taken, Taken)
        store.lower_wake({instance_id: store.now() + timedelta(seconds=taken.expires_in)})

    pair.line.before_next["move_wake"] = meanwhile
    pair.first.start()
    pair.complete(pair.first.start_workflow("waits"))
    pair.first.stop()


def test_a_timer_is_not_late_since_somebody_was_turned_away() -> None:
    """A hold is put back to the timer's time, although `wake_at` was lowered to a lease's end meanwhile."""
    pair = Pair(poll_interval=60.0, wake_grace=60.0, lease_ttl=60.0)
    store = pair.providers[0]

    def turned_away(moves: list[WakeMove]) -> None:
        store.lower_wake({moves[0].instance_id: store.now() + timedelta(seconds=30)})

    pair.line.before_next["move_wake"] = turned_away
    pair.first.start()
    instance_id = pair.first.start_workflow("sleeps")
    asleep = lambda: pair.second.get_workflow(instance_id).next_execution is not None  # noqa: E731
    wait_for("it sleeps", asleep)
    store.lower_wake({instance_id: store.now()})  # of one more who was turned away
    pair.providers[1].notify(DUE_TOPIC, "0")
    wait_for("it is complete", lambda: status(pair.second, instance_id) is WorkflowStatus.COMPLETE, 10)
    assert "move_wake" not in pair.line.before_next
    pair.first.stop()


def test_a_look_that_a_shutdown_cuts_off_is_taken_by_another_process() -> None:
    pair = Pair(
        shared=True, allow_local_lock=True, shutdown_timeout=0.1, poll_interval=0.05, wake_grace=0.4,
        lease_ttl=0.4,
    )  # fmt: skip
    store = pair.providers[0]
    store.add_event(Event("e", "go", "k", store.now(), "hello"))
    store.mark_processed(["e"])
    looks, gate = threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        looks.set()
        gate.wait(60)

    pair.line.before_next["events"] = slow
    pair.first.start()
    runner = pair.first._runner
    assert runner is not None
    instance_id = pair.first.start_workflow("waits")
    assert looks.wait(10)
    stopping = threading.Thread(target=pair.first.stop)
    stopping.start()
    wait_for("it is left", lambda: not runner._acts, 10)
    gate.set()
    stopping.join(10)
    pair.second.start()
    pair.complete(instance_id)
    pair.second.stop()


@pytest.mark.parametrize("mine", [True, False])
def test_who_is_full_of_long_steps_looks_at_a_request_whose_message_waits(mine: bool) -> None:
    """A full worker takes no messages, and others may be full too, or have many before this one."""
    providers = (MemoryPersistenceProvider(), SingleNodeQueueProvider(), LocalLockProvider())
    begun, told = threading.Event(), threading.Event()

    class Long(Workflow):
        id = "long"

        def build(self, builder: WorkflowBuilder) -> None:
            def run(context: StepExecutionContext) -> None:
                begun.set()
                if context.cancellation.wait(60):
                    told.set()

            builder.start_with(run)

    full, other = (configure_workflow_host(*providers, concurrency=1) for _ in range(2))
    for host in (full, other):
        host.register_workflow(Long)
        host.register_workflow(Waits)
    full.start()
    waiting = full.start_workflow("waits")
    wait_for("it waits", lambda: other.get_workflow(waiting).record.waits(), 10)
    running = full.start_workflow("long")
    assert begun.wait(10)
    wait_for("it is claimed", lambda: other.get_workflow(running).record.claims, 10)
    assert full._runner is not None
    wait_for("no messages are taken", lambda: full._prefetch == 0, 10)
    instance_id = running if mine else waiting
    other.terminate_workflow(instance_id, "enough")
    wait_for("it is terminated", lambda: status(other, instance_id) is WorkflowStatus.TERMINATED, 10)
    assert told.wait(10) if mine else not told.is_set()
    other.terminate_workflow(running)
    assert told.wait(10)
    full.stop()


def test_what_a_long_step_leaves_hides_no_event_from_who_was_turned_away() -> None:
    """Its result has no message in hand that would come back if its process dies while it leaves."""
    pair = Pair(poll_interval=0.05, wake_grace=0.4, lease_ttl=0.4, long_step=0.01)
    store, _, lock = pair.providers
    ended = threading.Event()

    class LongThenWaits(Workflow):
        id = "long-then-waits"

        def build(self, builder: WorkflowBuilder) -> None:
            def run(context: StepExecutionContext) -> None:
                wait_for("it is claimed", lambda: pair.second.get_workflow(instance_id).record.claims, 10)
                wait_for("its lease is given back", lambda: not runner._acts, 10)
                pair.line.before_next |= {"move_wake": turned_away, "release": die}
                ended.set()

            (
                builder.start_with(run)
                .wait_for("go", "k", effective_date=lambda data: LONG_AGO)
                .output("got", lambda step: step.event_data)
            )

    def turned_away(*_: Any) -> None:
        store.add_event(Event("e", "go", "k", store.now(), "hello"))
        store.mark_processed(["e"])
        taken = lock.acquire([f"workflow:{instance_id}"], 0.4)[0]
        assert isinstance(taken, Taken)
        store.lower_wake({instance_id: store.now() + timedelta(seconds=taken.expires_in)})

    def die(*_: Any) -> None:
        if pair.line.before_next.pop("move_wake", None):
            turned_away()
        pair.line.cut = True

    for host in (pair.first, pair.second):
        host.register_workflow(LongThenWaits)
    pair.first._with_scheduler = False
    pair.first.start()
    runner = pair.first._runner
    assert runner is not None
    instance_id = pair.first.start_workflow("long-then-waits")
    assert ended.wait(20)
    pair.second.start()
    pair.complete(instance_id)
    pair.second.stop()


class LateDelivery(Delivery):
    """A wake-up that comes while its instance is being sent on."""

    redelivered = False

    def __init__(self, message: Message, acknowledged: Callable[[], None]) -> None:
        self.message = message
        self.ack = acknowledged  # type: ignore[method-assign]

    def ack(self) -> None:
        """Set for each."""

    def nack(self) -> None:
        """Not of interest."""


def test_a_wake_up_that_comes_while_the_id_is_sent_on_is_looked_at_first() -> None:
    """Acknowledged before the look, it would be lost if the process died then."""
    line, store, loads = Line(), MemoryPersistenceProvider(), []
    taken, acknowledged = threading.Event(), threading.Event()

    class Sending(SingleNodeQueueProvider):
        shared = True
        armed = False

        def send(self, messages: Sequence[Message]) -> None:
            if self.armed:
                self.armed = False
                runner = host._runner
                assert runner is not None
                loads.append(line.calls.count("load"))
                runner.deliver(LateDelivery(messages[0], acknowledge))
                runner._loop.post(taken.set)
                taken.wait(10)
            super().send(messages)

    def acknowledge() -> None:
        loads.append(line.calls.count("load"))
        acknowledged.set()

    def outlast_the_time_slice(context: Any) -> None:
        queue.armed = True
        context.cancellation.wait(0.05)

    class TwoSteps(Workflow):
        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(outlast_the_time_slice).then(lambda context: None)

    queue = Sending()
    host = configure_workflow_host(
        through(line, store), queue, LocalLockProvider(), time_slice=0.02, long_step=30.0,
        allow_local_lock=True,
    )  # fmt: skip
    host.register_workflow(TwoSteps)
    host.start()
    host.start_workflow("TwoSteps")
    assert acknowledged.wait(10)
    host.stop()
    before, after = loads
    assert after > before
