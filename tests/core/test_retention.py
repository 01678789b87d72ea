"""Old events are deleted, but not what a suspended parent will need when it goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scenarios.helpers import processed
from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    Settings,
    SingleNodeQueueProvider,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowStatus,
    configure_workflow_host,
)
from liteflow.core.flow import CHILD_EVENT
from liteflow.core.poller import Poller


class Child(Workflow):
    id = "child"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None).wait_for("go", "k")


class Parent(Workflow):
    id = "parent"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None).start_child("child")


class Store(MemoryPersistenceProvider):
    def has_waiter(self, name: str) -> bool:
        return any(wait.name == name for record in self._records.values() for wait in record.instance.waits())


@pytest.fixture
def host() -> Iterator[WorkflowHost]:
    made = configure_workflow_host(Store(), SingleNodeQueueProvider(), LocalLockProvider())
    for workflow in (Child, Parent):
        made.register_workflow(workflow)
    with made:
        yield made


def test_the_end_of_a_child_is_kept_for_its_suspended_parent(host: WorkflowHost) -> None:
    store = host.persistence
    assert isinstance(store, Store)
    parent = host.start_workflow("parent")
    wait_for("parent and child wait", lambda: store.has_waiter(CHILD_EVENT) and store.has_waiter("go"), 10)
    assert host.suspend_workflow(parent)
    wait_for("it is suspended", lambda: host.get_workflow(parent).status is WorkflowStatus.SUSPENDED, 10)
    event = host.publish_event("go", "k")
    (child,) = [one.id for one in host.list_workflows(workflow="child").items]
    host.wait_for_workflow(child, 10)
    told = wait_for("its parent is told", lambda: store._events._times.get((CHILD_EVENT, child)), 10)
    wait_for("both events are processed", lambda: all(processed(store, e) for e in (event, told[0][1])), 10)

    poller = Poller(store, host.queue, host.lock, Settings(event_retention=0))
    wait_for("what is old is purged", lambda: not poller._purge_events() and store.event(event) is None, 10)

    assert host.resume_workflow(parent)
    wait_for("it ends", lambda: host.get_workflow(parent).status is WorkflowStatus.COMPLETE, 10)
