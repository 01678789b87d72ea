"""The end of a lone instance is told while it is being stored, and looked for from then on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

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
    endings,
)
from liteflow.core.endings import SOON, Ending
from liteflow.core.errors import StoreUnavailableError
from liteflow.core.models import Instance
from liteflow.core.settings import Settings
from liteflow.core.transition import Outcome, Transition
from liteflow.core.views import WorkflowInstance
from liteflow.providers.rabbitmq import RabbitMQQueueProvider
from liteflow.providers.redis import RedisQueueProvider
from liteflow.providers.sql import SqlQueueProvider


class One(Workflow):
    id = "one"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None)


class Held(Workflow):
    id = "held"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None).wait_for("go", lambda data, context: "1")


class Queue(SingleNodeQueueProvider):
    """Keeps what was broadcast."""

    shared = True
    prompt = True

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def notify(self, topic: str, body: str = "") -> None:
        self.told.append(body)
        super().notify(topic, body)


class Store(MemoryPersistenceProvider):
    """Calls `while_storing` in each commit of an end."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.while_storing: Callable[[str], object] = lambda workflow_id: None
        self.away = 0  # so many ends are not stored
        self.looks: list[str] = []
        self.unreadable_while: Callable[[], bool] = lambda: False
        self.refused = 0

    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        for transition in transitions:
            if "status" in transition.fields:
                self.while_storing(transition.instance_id)
                if self.away:
                    self.away -= 1
                    raise StoreUnavailableError("away")
        return super().commit(transitions)

    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        if self.unreadable_while():
            self.refused += 1
            raise StoreUnavailableError("away")
        self.looks += instance_ids
        return super().load(instance_ids)


class Cluster:
    def __init__(self, concurrency: int = 16) -> None:
        self.store, self.queue = Store(), Queue()
        settings = Settings(allow_local_lock=True, concurrency=concurrency)
        self.host = WorkflowHost(self.store, self.queue, LocalLockProvider(), settings, scheduler=False)
        self.host.register_workflow(One)
        self.host.register_workflow(Held)
        self.host.start()

    def commits_waiting(self) -> int:
        """Behind the one that is on its way."""
        assert self.host._runner is not None
        return len(self.host._runner._calls.commit._items)

    def listens_for(self, workflow_id: str) -> bool:
        known = self.host._endings
        return len(known._subscribed) == endings.TOPICS and workflow_id in known._waiting

    @contextmanager
    def waited_for(self) -> Iterator[tuple[str, Future[WorkflowInstance]]]:
        """An instance that waits for its event, and what its end is heard by, in another thread."""
        held = self.host.start_workflow("held")
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(self.host.wait_for_workflow, held, 30)
            wait_for("it is waited for", lambda: self.listens_for(held), 10)
            wait_for("it waits for its event", lambda: bool(self.stored(held).waits()), 10)
            yield held, ended

    def stored(self, workflow_id: str) -> Instance:
        found = self.store.load([workflow_id])[workflow_id]
        assert isinstance(found, Instance)
        return found


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.host.stop()


def test_a_lone_end_is_told_while_it_is_stored_and_once_it_is(cluster: Cluster) -> None:
    go_on = threading.Event()
    cluster.store.while_storing = lambda workflow_id: go_on.wait(30)
    one = cluster.host.start_workflow("one")
    wait_for("it is told", lambda: SOON + one in cluster.queue.told, 10)
    assert one not in cluster.queue.told
    go_on.set()
    assert cluster.host.wait_for_workflow(one, 20).status is WorkflowStatus.COMPLETE
    wait_for("it is told again", lambda: one in cluster.queue.told, 10)
    assert cluster.queue.told.count(SOON + one) == 1


def test_an_end_that_is_not_stored_at_once_is_told_once(cluster: Cluster) -> None:
    cluster.store.away = 2
    one = cluster.host.start_workflow("one")
    assert cluster.host.wait_for_workflow(one, 20).status is WorkflowStatus.COMPLETE
    wait_for("it is told again", lambda: one in cluster.queue.told, 10)
    assert cluster.store.away == 0
    assert cluster.queue.told.count(SOON + one) == 1


def test_who_waits_sees_an_end_whose_second_broadcast_is_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for again and again. An hour passes here before anybody looks without any news."""
    monkeypatch.setattr(endings, "tell", lambda queue, workflow_ids: None)
    monkeypatch.setattr(endings, "PATIENCE", 3600)
    looks, go_on = cluster.store.looks, threading.Event()
    cluster.store.while_storing = lambda workflow_id: go_on.wait(30)
    with cluster.waited_for() as (held, ended):
        cluster.host.publish_event("go", "1")
        wait_for("it is told", lambda: SOON + held in cluster.queue.told, 10)
        before = len(looks)
        wait_for("it is looked for", lambda: len(looks) > before + 15, 10)
        go_on.set()
        assert ended.result(30).status is WorkflowStatus.COMPLETE


def test_a_look_ahead_that_fails_is_not_the_waiters_trouble(cluster: Cluster) -> None:
    go_on = threading.Event()
    cluster.store.while_storing = lambda workflow_id: go_on.wait(30)
    with cluster.waited_for() as (held, ended):
        cluster.store.unreadable_while = lambda: SOON + held in cluster.queue.told and not go_on.is_set()
        cluster.host.publish_event("go", "1")
        wait_for("a look has failed", lambda: cluster.store.refused > 0, 10)
        go_on.set()
        assert ended.result(30).status is WorkflowStatus.COMPLETE


def test_the_end_of_one_of_many_is_told_once(cluster: Cluster) -> None:
    other = threading.Event()

    cluster.store.while_storing = lambda workflow_id: other.wait(30)
    first = cluster.host.start_workflow("one")
    wait_for("the first is being stored", lambda: SOON + first in cluster.queue.told, 10)
    second = cluster.host.start_workflow("one")
    wait_for("the second is to be stored", lambda: cluster.commits_waiting() == 1, 10)
    other.set()
    for workflow_id in (first, second):
        assert cluster.host.wait_for_workflow(workflow_id, 20).status is WorkflowStatus.COMPLETE
    assert SOON + second not in cluster.queue.told


def test_what_is_not_an_end_is_not_told(cluster: Cluster) -> None:
    held = cluster.host.start_workflow("held")
    wait_for("it waits", lambda: bool(cluster.stored(held).waits()), 10)
    cluster.host.publish_event("go", "1")
    assert cluster.host.wait_for_workflow(held, 20).status is WorkflowStatus.COMPLETE
    wait_for("it is told again", lambda: held in cluster.queue.told, 10)
    assert cluster.queue.told.count(SOON + held) == 1


def test_a_queue_that_is_slow_to_tell_is_not_asked_to(cluster: Cluster) -> None:
    cluster.queue.prompt = False
    one = cluster.host.start_workflow("one")
    assert cluster.host.wait_for_workflow(one, 20).status is WorkflowStatus.COMPLETE
    wait_for("it is told", lambda: one in cluster.queue.told, 10)
    assert SOON + one not in cluster.queue.told


def test_with_one_slot_no_end_is_told_ahead() -> None:
    """All of them would be: there never is a second instance in hand."""
    cluster = Cluster(concurrency=1)
    try:
        one = cluster.host.start_workflow("one")
        assert cluster.host.wait_for_workflow(one, 20).status is WorkflowStatus.COMPLETE
        wait_for("it is told", lambda: one in cluster.queue.told, 10)
        assert SOON + one not in cluster.queue.told
    finally:
        cluster.host.stop()


def test_which_queues_tell_ahead() -> None:
    prompt = {provider: provider.prompt for provider in (RabbitMQQueueProvider, RedisQueueProvider)}
    assert all(prompt.values())
    assert not SqlQueueProvider.prompt  # its broadcasts are read now and then


class News:
    """An event for which nobody has to wait. `happens` is called when somebody would."""

    def __init__(self, happens: Callable[[], None] = lambda: None) -> None:
        self.happens = happens
        self.waited: list[float] = []

    def wait(self, timeout: float) -> None:
        self.waited.append(timeout)
        self.happens()

    def set(self) -> None: ...

    def clear(self) -> None: ...


def test_an_end_that_was_told_too_early_is_waited_for_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the process that was to store it has died."""
    monkeypatch.setattr(endings, "PATIENCE", -1.0)
    ending, news = Ending(), News()
    monkeypatch.setattr(ending, "_news", news)
    ending.told_soon()
    ending.wait(7.0)
    assert not news.waited  # one more look
    ending.wait(7.0)
    assert news.waited == [7.0]


def test_what_is_told_between_two_looks_ends_the_looking_ahead() -> None:
    ending = Ending()
    ending.told_soon()
    ending._news = News(ending.told)  # type: ignore[assignment]
    ending.wait(7.0)
    assert not ending.soon
