"""How an instance gets from one holder to the next: in good order, and from one that has died."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest
from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    SingleNodeQueueProvider,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowStatus,
    configure_workflow_host,
)
from liteflow.core.models import Instance
from liteflow.core.providers import Lease, Message, Taken, workflow_queue
from liteflow.core.topics import DUE_TOPIC


class Rounds(Workflow):
    id = "rounds"

    def build(self, builder: WorkflowBuilder) -> None:
        def count(context: StepExecutionContext) -> None:
            context.data.count += 1

        builder.while_(lambda data: data.count < 5).do(lambda block: block.start_with(count))


class Queue(SingleNodeQueueProvider):
    """Knows what the store shows of an instance when a message for it is sent."""

    def __init__(self, store: MemoryPersistenceProvider) -> None:
        super().__init__()
        self.store = store
        self.sent: list[Instance] = []

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            found = self.store.load([message.body]).get(message.body)
            if isinstance(found, Instance):
                self.sent.append(found)
        super().send(messages)


class Counting(MemoryPersistenceProvider):
    """Counts how often a process was taken to have died."""

    deaths = 0

    def count_crash(self, instance_id: str, revision: int, by: int) -> None:
        self.deaths += by > 0
        super().count_crash(instance_id, revision, by)


def test_who_gets_an_instance_that_was_handed_on_finds_that_it_was_sent() -> None:
    """However quick it is: else it takes the one before for dead, which counts towards poison."""
    store = Counting()
    queue = Queue(store)
    with configure_workflow_host(store, queue, time_slice=0.0) as host:
        host.register_workflow(Rounds)
        ended = host.wait_for_workflow(host.start_workflow("rounds", data={"count": 0}), timeout=20)
    assert ended.status is WorkflowStatus.COMPLETE
    handed_on = [one for one in queue.sent if one.revision > 0]
    assert len(handed_on) >= 5
    assert all(one.message_sent for one in handed_on)
    assert store.deaths == 0


def test_who_has_no_message_in_hand_does_not_say_that_it_has_sent_one_before_it_has() -> None:
    """None would come back if it died before that. The result of a long step comes without one."""
    over = threading.Event()

    class Long(Workflow):
        id = "long"

        def build(self, builder: WorkflowBuilder) -> None:
            long = builder.start_with(lambda context: over.wait(20)).id("long")
            long.then(lambda context: None).then(lambda context: None)

    store = MemoryPersistenceProvider()
    queue = Queue(store)
    with configure_workflow_host(store, queue, time_slice=0.0, long_step=0.01, wake_grace=600.0) as host:
        host.register_workflow(Long)
        workflow_id = host.start_workflow("long")
        wait_for("it is claimed", lambda: bool(claims_of(store, workflow_id)))
        queue.sent.clear()
        over.set()
        assert host.wait_for_workflow(workflow_id, timeout=20).status is WorkflowStatus.COMPLETE
    first = queue.sent[0]
    assert not first.message_sent
    assert first.wake_at is not None
    assert first.wake_at < store.now() + timedelta(seconds=300)


def claims_of(store: MemoryPersistenceProvider, workflow_id: str) -> object:
    found = store.load([workflow_id])[workflow_id]
    assert isinstance(found, Instance)
    return found.claims


class Turns(LocalLockProvider):
    """Turns away, once, whoever asks for the lease of a workflow."""

    def __init__(self, answer: Taken) -> None:
        super().__init__()
        self.answer: Taken | None = answer

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        answer = self.answer
        if answer is None or not names[0].startswith("workflow:"):
            return super().acquire(names, ttl)
        self.answer = None
        return [answer for _ in names]


class Lowered(MemoryPersistenceProvider):
    """Knows to what times `wake_at` was lowered, in seconds from when it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.lowered: list[float] = []

    def lower_wake(self, wakes: Mapping[str, datetime]) -> None:
        self.lowered += [(at - self.now()).total_seconds() for at in wakes.values()]
        super().lower_wake(wakes)


LONG = {"poll_interval": 600.0, "wake_grace": 600.0, "lease_ttl": 600.0}
"""Nobody looks by itself as long as a test lasts."""


@pytest.mark.parametrize("left", [0.05, 0.0])
def test_the_scheduler_hears_when_a_lease_ends_that_somebody_was_turned_away_by(left: float) -> None:
    """Else it sleeps on until its next sweep, or until the message that was sent in vain counts as lost.

    A lock server that gives a lease away later than it says must not keep all busy until then.
    """
    lock, store = Turns(Taken(left)), Lowered()
    with configure_workflow_host(store, None, lock, **LONG) as host:
        host.register_workflow(Rounds)
        ended = host.wait_for_workflow(host.start_workflow("rounds", data={"count": 0}), timeout=20)
    assert lock.answer is None
    assert ended.status is WorkflowStatus.COMPLETE
    assert len(store.lowered) == 1
    assert store.lowered[0] > 0.01


def test_nobody_is_told_of_the_lease_of_one_who_lives() -> None:
    """It has been renewed within its last two thirds: many who are turned away would tell of nothing."""
    lock, store, queue = Turns(Taken(250.0)), Lowered(), SingleNodeQueueProvider()
    told: list[str] = []
    with configure_workflow_host(store, queue, lock, **LONG) as host:
        queue.subscribe(DUE_TOPIC, told.append)
        host.register_workflow(Rounds)
        host.start_workflow("rounds", data={"count": 0})
        wait_for("it was turned away", lambda: store.lowered, 20)
        wait_for("its message is settled", lambda: not _unsettled(queue), 20)
        queue.notify(DUE_TOPIC, "0")  # what was told before this is heard before it
        wait_for("it is heard", lambda: told, 20)
    assert told == ["0"]


def _unsettled(queue: SingleNodeQueueProvider) -> int:
    return queue.inspect([workflow_queue("rounds", 1)])[0].unacknowledged


def test_who_left_no_mark_asks_again_and_keeps_its_message() -> None:
    """It has acknowledged nothing, so that nothing has to be looked at earlier."""
    lock, store = Turns(Taken(0.001, resend=True)), Lowered()
    with configure_workflow_host(store, None, lock, **LONG) as host:
        host.register_workflow(Rounds)
        ended = host.wait_for_workflow(host.start_workflow("rounds", data={"count": 0}), timeout=20)
    assert ended.status is WorkflowStatus.COMPLETE
    assert not store.lowered
