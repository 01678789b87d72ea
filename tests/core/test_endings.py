"""The end of a lone instance is told while it is being stored, and looked for from then on."""

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
    endings,
)
from liteflow.core.endings import SOON, Ending
from liteflow.core.models import Instance
from liteflow.core.settings import Settings
from liteflow.core.transition import Outcome, Transition


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
        self.while_storing: Callable[[str], None] = lambda workflow_id: None

    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        for transition in transitions:
            if "status" in transition.fields:
                self.while_storing(transition.instance_id)
        return super().commit(transitions)


class Cluster:
    def __init__(self) -> None:
        self.store, self.queue = Store(), Queue()
        settings = Settings(allow_local_lock=True)
        self.host = WorkflowHost(self.store, self.queue, LocalLockProvider(), settings, scheduler=False)
        self.host.register_workflow(One)
        self.host.register_workflow(Held)
        self.host.start()

    def commits_waiting(self) -> int:
        """Behind the one that is on its way."""
        assert self.host._runner is not None
        return len(self.host._runner._calls.commit._items)

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
    def until_told(workflow_id: str) -> None:
        wait_for("it is told", lambda: SOON + workflow_id in cluster.queue.told, 10)
        assert workflow_id not in cluster.queue.told

    cluster.store.while_storing = until_told
    one = cluster.host.start_workflow("one")
    assert cluster.host.wait_for_workflow(one, 20).status is WorkflowStatus.COMPLETE
    wait_for("it is told again", lambda: one in cluster.queue.told, 10)


def test_who_waits_sees_an_end_whose_second_broadcast_is_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for more often than once a second, which is how often one looks without any news."""
    monkeypatch.setattr(endings, "tell", lambda queue, workflow_ids: None)
    monkeypatch.setattr(endings, "PATIENCE", 3600)
    looks: list[str] = []
    load = cluster.store.load

    def until_looked_for(workflow_id: str) -> None:
        before = len(looks)
        wait_for("it is looked for", lambda: len(looks) > before + 20, 10)

    def look(instance_ids: Sequence[str]) -> object:
        looks.extend(instance_ids)
        return load(instance_ids)

    monkeypatch.setattr(cluster.store, "load", look)
    cluster.store.while_storing = until_looked_for
    one = cluster.host.start_workflow("one")
    assert cluster.host.wait_for_workflow(one, 20).status is WorkflowStatus.COMPLETE


def test_the_end_of_one_of_many_is_told_once(cluster: Cluster) -> None:
    other = threading.Event()

    def both(workflow_id: str) -> None:
        assert other.wait(10)

    cluster.store.while_storing = both
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
    assert cluster.queue.told.count(SOON + held) == 1


def test_a_queue_that_is_slow_to_tell_is_not_asked_to(cluster: Cluster) -> None:
    cluster.queue.prompt = False
    one = cluster.host.start_workflow("one")
    assert cluster.host.wait_for_workflow(one, 20).status is WorkflowStatus.COMPLETE
    wait_for("it is told", lambda: one in cluster.queue.told, 10)
    assert SOON + one not in cluster.queue.told


class News:
    """An event that is never set, for which nobody has to wait."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def wait(self, timeout: float) -> None:
        self.waited.append(timeout)

    def set(self) -> None: ...

    def clear(self) -> None: ...


def test_an_end_that_was_told_too_early_is_waited_for_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the process that was to store it has died."""
    monkeypatch.setattr(endings, "PATIENCE", -1.0)
    ending, news = Ending(), News()
    monkeypatch.setattr(ending, "_news", news)
    ending.told_soon()
    ending.wait(7.0)
    assert all(waited < 1 for waited in news.waited)
    ending.wait(7.0)
    assert news.waited[-1] == 7.0
