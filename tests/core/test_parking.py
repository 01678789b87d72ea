"""What nobody can run is set aside at no cost, and goes on when somebody can run it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
from scenarios.helpers import nothing, workflow
from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    Settings,
    SingleNodeQueueProvider,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowInstance,
    WorkflowStatus,
)
from liteflow.core import presence as presence_module
from liteflow.core.errors import StoreUnavailableError
from liteflow.core.models import DefinitionRecord, Instance, Parked
from liteflow.core.poller import BACKLOG, Poller
from liteflow.core.presence import alive
from liteflow.core.providers import Due, Message, workflow_queue
from liteflow.core.survey import ProcessRecord

SETTINGS = Settings(wake_grace=0.1, poll_interval=0.1, lease_ttl=2)
QUEUE = workflow_queue("order", 1)


class Queue(SingleNodeQueueProvider):
    """Keeps what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Message] = []

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages
        super().send(messages)


class Cluster:
    """Hosts as if each were a process of its own, over one memory store, queue and lock."""

    def __init__(self, store: MemoryPersistenceProvider, stack: ExitStack) -> None:
        self.store, self.queue, self.lock = store, Queue(), LocalLockProvider()
        self._stack = stack
        self.queue.open()
        stack.callback(self.queue.close)

    def host(self, *workflows: Workflow, scheduler: bool = False) -> WorkflowHost:
        store, queue, lock = self.store, self.queue, self.lock

        class Process(WorkflowHost):
            """Its end does not close what the others use."""

            def stop(self, timeout: float | None = None) -> bool:
                self._open = False
                return super().stop(timeout)

        host = Process(store, queue, lock, SETTINGS, scheduler=scheduler)
        for one in workflows:
            host.register_workflow(one)
        return host

    def start(self, *workflows: Workflow, scheduler: bool = False) -> WorkflowHost:
        host = self.host(*workflows, scheduler=scheduler)
        self._stack.callback(lambda: host.stop(timeout=5))
        host.start()
        return host

    def parked(self, instance_id: str) -> Parked:
        found: Parked = wait_for("it is parked", lambda: self.get(instance_id).parked, 20)
        return found

    def get(self, instance_id: str) -> WorkflowInstance:
        return self.host().get_workflow(instance_id)

    def completes(self, instance_id: str) -> None:
        wait_for("it completes", lambda: self.get(instance_id).status is WorkflowStatus.COMPLETE, 20)

    def waits(self, instance_id: str) -> None:
        wait_for("it waits", lambda: self.store.load([instance_id])[instance_id].waits(), 20)  # type: ignore[union-attr]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def cluster(stack: ExitStack) -> Cluster:
    return Cluster(MemoryPersistenceProvider(), stack)


def order(build: Callable[[WorkflowBuilder], Any] = lambda b: b.start_with(nothing), **more: Any) -> Workflow:
    return workflow(build, "order", **more)


def waiting(b: WorkflowBuilder) -> None:
    b.wait_for("paid", "k").id("wait").then(nothing).id("ship")


def changed(b: WorkflowBuilder) -> None:
    b.wait_for("paid", "k").id("wait").then(nothing).id("weigh").then(nothing).id("ship")


def test_a_start_that_nobody_can_run_waits_at_no_cost(cluster: Cluster) -> None:
    cluster.start(scheduler=True)
    cluster.store.record_definitions([DefinitionRecord("order", 1, "x")])
    instance_id = cluster.host().start_workflow("order")
    parked = cluster.parked(instance_id)
    assert parked.reason == "no worker with order version 1 is alive"
    assert parked.needs == "a worker with order version 1"
    assert cluster.get(instance_id).status is WorkflowStatus.RUNNABLE
    # Nothing is due for it, and the message of its start is the only one.
    assert cluster.store.next_due() is None
    assert [message.body for message in cluster.queue.sent] == [instance_id]
    assert cluster.queue.depth(QUEUE) == 1
    cluster.start(order())
    cluster.completes(instance_id)


def test_a_timer_that_nobody_can_run_waits_for_a_worker(cluster: Cluster) -> None:
    worker = cluster.start(order(lambda b: b.start_with(nothing).delay(0.3).then(nothing)))
    instance_id = worker.start_workflow("order")
    wait_for("it sleeps", lambda: cluster.get(instance_id).next_execution, 20)
    worker.stop()
    assert alive(cluster.store) == []
    cluster.start(scheduler=True)
    cluster.parked(instance_id)
    cluster.start(order(lambda b: b.start_with(nothing).delay(0.3).then(nothing)))
    cluster.completes(instance_id)


def test_an_event_for_what_nobody_can_run_is_not_lost_with_the_queue(
    cluster: Cluster, stack: ExitStack
) -> None:
    """A single process on a lasting store, deployed without the definition, then with it."""
    first = cluster.start(order(waiting), scheduler=True)
    instance_id = first.start_workflow("order")
    cluster.waits(instance_id)
    first.stop()
    second = Cluster(cluster.store, stack)
    without = second.start(scheduler=True)
    without.publish_event("paid", "k")
    second.parked(instance_id)
    without.stop()
    third = Cluster(cluster.store, stack)
    third.start(order(waiting), scheduler=True)
    third.completes(instance_id)


def test_others_are_punctual_beside_it(cluster: Cluster) -> None:
    cluster.start(order(lambda b: b.start_with(nothing).delay(0.2).then(nothing), version=2), scheduler=True)
    cluster.store.record_definitions([DefinitionRecord("order", 1, "x")])
    client = cluster.host()
    stuck, fine = client.start_workflow("order", 1), client.start_workflow("order", 2)
    cluster.completes(fine)
    cluster.parked(stuck)
    assert cluster.get(fine).parked is None


def test_a_worker_that_comes_while_it_is_parked_is_not_missed(stack: ExitStack) -> None:
    class Store(MemoryPersistenceProvider):
        """A worker begins between the scheduler's question who is there and its parking."""

        def hold_due(self, now: datetime, hold: Callable[[Due], datetime | Parked], limit: int) -> list[Due]:
            def late(due: Due) -> datetime | Parked:
                until = hold(due)
                if isinstance(until, Parked):
                    self.beat(_process(self.now(), DefinitionRecord("order", 1, "x")))
                return until

            return super().hold_due(now, late, limit)

    cluster = Cluster(Store(), stack)
    cluster.start(scheduler=True)
    cluster.store.record_definitions([DefinitionRecord("order", 1, "x")])
    instance_id = cluster.host().start_workflow("order")
    cluster.parked(instance_id)
    wait_for("it is sent again", lambda: len(cluster.queue.sent) == 2, 20)


def test_a_new_leader_looks_at_what_its_predecessor_may_have_left(cluster: Cluster) -> None:
    instance_id = cluster.host(order()).start_workflow("order")
    cluster.store.beat(_process(cluster.store.now(), DefinitionRecord("order", 1, "x")))
    cluster.store.park(instance_id, -1, Parked("no worker", cluster.store.now(), "one"))
    before = len(cluster.queue.sent)
    poller = Poller(cluster.store, cluster.queue, cluster.lock, SETTINGS)
    poller.start()
    wait_for("it is sent again", lambda: len(cluster.queue.sent) == before + 1, 20)
    poller.stop()


def test_what_was_parked_is_not_forgotten_if_the_answer_got_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader parks it, does not learn so, and a worker has come and looked meanwhile."""
    cluster.host(order()).start_workflow("order")
    before, hold, lost = len(cluster.queue.sent), cluster.store.hold_due, threading.Event()

    def hold_due(*arguments: Any) -> Any:
        held = hold(*arguments)
        if held and not lost.is_set():
            lost.set()
            cluster.store.beat(_process(cluster.store.now(), DefinitionRecord("order", 1, "x")))
            raise StoreUnavailableError("the answer got lost")
        return held

    monkeypatch.setattr(cluster.store, "hold_due", hold_due)
    poller = Poller(cluster.store, cluster.queue, cluster.lock, SETTINGS)
    poller.start()
    wait_for("it is sent again", lambda: len(cluster.queue.sent) == before + 1, 20)
    poller.stop()
    assert lost.is_set()


def test_a_worker_that_has_just_come_is_seen_before_anything_is_parked(cluster: Cluster) -> None:
    poller = Poller(cluster.store, cluster.queue, cluster.lock, SETTINGS)
    assert not poller._runnable.definitions()  # and that is remembered for a while
    now = cluster.store.now()
    cluster.store.beat(_process(now, DefinitionRecord("order", 1, "x")))
    cluster.store.create([Instance("due", "order", 1, now, begun=False, wake_at=now)])
    poller._send_due()
    assert [message.body for message in cluster.queue.sent] == ["due"]
    found = cluster.store.load(["due"])["due"]
    assert isinstance(found, Instance)
    assert found.parked is None


def test_what_is_held_is_sent_though_its_worker_is_gone_by_then(cluster: Cluster) -> None:
    poller = Poller(cluster.store, cluster.queue, cluster.lock, SETTINGS)
    now = cluster.store.now()
    leaving = _process(now, DefinitionRecord("order", 1, "x"))
    cluster.store.beat(leaving)
    assert poller._runnable.definitions()
    cluster.store.forget_processes([leaving.id])
    due = {"order": now - timedelta(seconds=2), "unknown": now - timedelta(seconds=1)}
    cluster.store.create([Instance(f"an {key}", key, 1, now, wake_at=at) for key, at in due.items()])
    poller._send_due()
    assert [message.body for message in cluster.queue.sent] == ["an order"]


@pytest.mark.parametrize(("depth", "doublings"), [(0, 2), (BACKLOG, 2), (BACKLOG + 1, 9)])
def test_what_got_lost_is_sent_again_soon_and_a_backlog_is_left_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, depth: int, doublings: int
) -> None:
    now, held = cluster.store.now(), list[Any]()
    cluster.store.beat(_process(now, DefinitionRecord("order", 1, "x")))
    due = Due("lost", "order", 1, now, True, 9)

    def hold_due(now: datetime, hold_until: Callable[[Due], Any], limit: int) -> list[Due]:
        if not held:
            held.append(hold_until(due) - cluster.store.now())
        return []

    monkeypatch.setattr(cluster.store, "hold_due", hold_due)
    monkeypatch.setattr(cluster.queue, "depth", lambda queue: depth)
    poller = Poller(cluster.store, cluster.queue, cluster.lock, SETTINGS)
    poller.start()
    wait_for("it is held", lambda: held, 20)
    poller.stop()
    longest = timedelta(seconds=SETTINGS.wake_grace * 2**doublings)
    assert longest / 2 < held[0] <= longest


def test_a_worker_that_was_taken_for_dead_looks_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_module, "BEAT_EVERY", 0.05)
    monkeypatch.setattr(presence_module, "ALIVE_FOR", 0.0)  # so each heartbeat comes too late
    cluster.start(order())
    now = cluster.store.now()
    cluster.store.create([Instance("stuck", "order", 1, now, begun=False)])
    cluster.store.park("stuck", -1, Parked("no worker", now, "one"))
    cluster.completes("stuck")


def test_a_changed_definition_leaves_it_to_the_right_worker(cluster: Cluster) -> None:
    right, wrong = order(waiting), order(changed)
    first = cluster.start(right)
    instance_id = first.start_workflow("order")
    cluster.waits(instance_id)
    first.stop()
    cluster.start(wrong, scheduler=True)
    cluster.host().publish_event("paid", "k")
    parked = cluster.parked(instance_id)
    assert parked.reason == "the definition of order version 1 has changed since this instance began"
    cluster.start(right)
    cluster.completes(instance_id)


def test_both_definitions_alive_each_instance_gets_to_its_own(cluster: Cluster) -> None:
    """Also when the wake-up of an instance is taken by the wrong one of two workers, again and again."""
    old, new = order(waiting), order(changed)
    first = cluster.start(old, scheduler=True)
    ids = [first.start_workflow("order") for _ in range(10)]
    for instance_id in ids:
        cluster.waits(instance_id)
    cluster.start(new)
    cluster.start(new)
    cluster.host().publish_event("paid", "k")
    for instance_id in ids:
        cluster.completes(instance_id)


def test_what_a_host_has_deregistered_is_left_to_others(cluster: Cluster) -> None:
    first = cluster.start(order(waiting), scheduler=True)
    instance_id = first.start_workflow("order")
    cluster.waits(instance_id)
    cluster.start(order(waiting))
    first.registry.deregister("order", 1)
    for _ in range(5):  # each of them takes its turn with the queue
        cluster.queue.send([Message(QUEUE, instance_id)])
    cluster.host().publish_event("paid", "k")
    cluster.completes(instance_id)


def _process(now: datetime, *definitions: DefinitionRecord) -> ProcessRecord:
    until = now + timedelta(hours=1)
    return ProcessRecord("p", "node", 1, "0.1.0", now, now, until, definitions=definitions)
