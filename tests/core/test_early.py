"""A wake-up that is sent while its instance is still being stored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    SingleNodeQueueProvider,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowStatus,
    early,
)
from liteflow.core.errors import StoreUnavailableError
from liteflow.core.models import Instance
from liteflow.core.providers import Lease, Message, Taken, workflow_queue
from liteflow.core.settings import Settings

QUEUE = workflow_queue("one", 1)


class One(Workflow):
    id = "one"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None)


class Queue(SingleNodeQueueProvider):
    """Sends at once, as a broker does. `sent` is what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Message] = []

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages
        super().send(messages)

    def begin_send(self, messages: Sequence[Message]) -> Callable[[], None]:
        self.send(messages)
        return lambda: None

    def settled(self) -> bool:
        (state,) = self.inspect([QUEUE])
        return not state.ready and not state.unacknowledged


class Store(MemoryPersistenceProvider):
    """Stores an instance when `may_store` is set. `looked` counts looks."""

    def __init__(self) -> None:
        super().__init__()
        self.may_store = threading.Event()
        self.looked = 0
        self.away = False

    def create(self, instances: Sequence[Instance]) -> list[bool]:
        assert self.may_store.wait(30)
        if self.away:
            raise StoreUnavailableError("away")
        return super().create(instances)

    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        self.looked += 1
        return super().load(instance_ids)


class Cluster:
    """A host without a scheduler: nothing but its wake-up makes an instance run."""

    def __init__(self) -> None:
        self.store, self.queue = Store(), Queue()
        self.host = WorkflowHost(self.store, self.queue, LocalLockProvider(), Settings(), scheduler=False)
        self.host.register_workflow(One)
        self.host.start()
        self.ids: list[str] = []
        self.errors: list[Exception] = []
        self.thread = threading.Thread(target=self._start)

    def _start(self) -> None:
        try:
            self.ids.append(self.host.start_workflow("one"))
        except StoreUnavailableError as exc:
            self.errors.append(exc)

    def begin(self) -> None:
        """Start an instance; returns when a worker has looked for it in vain."""
        self.thread.start()
        wait_for("somebody has looked", lambda: self.store.looked > 1, 10)

    def store_it(self) -> None:
        """Let it be stored; returns when the call of start has returned."""
        self.store.may_store.set()
        self.thread.join(30)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.store.may_store.set()
    made.host.stop()


def test_who_comes_too_early_looks_again(cluster: Cluster) -> None:
    cluster.begin()
    cluster.store_it()
    assert cluster.host.wait_for_workflow(cluster.ids[0], 10).status is WorkflowStatus.COMPLETE
    assert [message.early for message in cluster.queue.sent] == [True]


def test_what_took_long_to_store_is_told_once_more(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "IN_TIME", 0.05)
    monkeypatch.setattr(early, "PATIENCE", 0.1)
    cluster.begin()
    wait_for("the worker has given up", cluster.queue.settled, 10)
    cluster.store_it()
    assert cluster.host.wait_for_workflow(cluster.ids[0], 10).status is WorkflowStatus.COMPLETE
    assert [message.early for message in cluster.queue.sent] == [True, False]


def test_what_is_never_stored_is_given_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "PATIENCE", 0.1)
    cluster.store.away = True
    cluster.begin()
    cluster.store_it()
    assert cluster.errors
    wait_for("its wake-up is acknowledged", cluster.queue.settled, 10)


def test_who_gives_up_looks_once_more_if_somebody_was_turned_away(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their wake-up is acknowledged: they have left a mark, and rely on who has the lease."""
    turned_away: list[Lease | Taken] = []

    def give_up(waited: float) -> None:
        if not turned_away:
            turned_away.extend(cluster.host.lock.acquire([f"workflow:{cluster.queue.sent[0].body}"], 10))
            cluster.store_it()

    monkeypatch.setattr(early, "pause", give_up)
    cluster.thread.start()
    cluster.thread.join(30)
    assert cluster.host.wait_for_workflow(cluster.ids[0], 10).status is WorkflowStatus.COMPLETE
    assert isinstance(turned_away[0], Taken)


def test_who_stops_meanwhile_leaves_the_look_to_others(cluster: Cluster) -> None:
    cluster.begin()
    stopping = threading.Thread(target=cluster.host.stop)
    stopping.start()
    stopping.join(30)
    assert cluster.queue.depth(QUEUE) == 1
    cluster.host.open()
    cluster.store_it()
    cluster.host.start()
    assert cluster.host.wait_for_workflow(cluster.ids[0], 10).status is WorkflowStatus.COMPLETE


def test_one_of_many_starts_is_not_sent_early(cluster: Cluster) -> None:
    """Their trips are shared, and who is sent for before that looks in vain."""
    cluster.thread.start()
    wait_for("the first is being stored", lambda: len(cluster.queue.sent) == 1, 10)
    others = [threading.Thread(target=cluster._start) for _ in range(3)]
    for other in others:
        other.start()
    wait_for("all are under way", lambda: cluster.host._starting == 4, 10)
    cluster.store_it()
    for other in others:
        other.join(30)
    for workflow_id in cluster.ids:
        assert cluster.host.wait_for_workflow(workflow_id, 10).status is WorkflowStatus.COMPLETE
    assert [message.early for message in cluster.queue.sent].count(True) == 1
    assert len(cluster.queue.sent) == len(cluster.ids) == 4


def test_who_stops_leaves_it_to_others_to_look_again(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.begin()
    runner = cluster.host._runner
    assert runner is not None
    assert runner.stop(10)
    (state,) = cluster.queue.inspect([QUEUE])
    assert state.ready + state.unacknowledged == 1
    assert "its wake-up is dropped" not in caplog.text
