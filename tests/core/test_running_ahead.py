"""What an event makes ready begins before it is stored that the event was taken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from scenarios.helpers import come_back
from servers import wait_for

from liteflow.core import (
    ExecutionResult,
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
from liteflow.core.models import Event, Instance
from liteflow.core.providers import Message, workflow_queue

STORE: list[MemoryPersistenceProvider] = []
INSTANCES: list[str] = []
SEEN: list[Instance] = []
"""The instance as it was stored when its last step began."""


def of_store(instance_id: str) -> Instance:
    found = STORE[0].load([instance_id])[instance_id]
    assert isinstance(found, Instance)
    return found


def look(context: StepExecutionContext) -> None:
    SEEN.append(of_store(context.workflow.id))


def wait_twice(context: StepExecutionContext) -> ExecutionResult:
    if not context.execution_pointer.event_published:
        return ExecutionResult(event_name="go", event_key="k")
    look(context)
    return ExecutionResult.next()


def sleep_first(context: StepExecutionContext) -> ExecutionResult:
    if context.persistence_data is None:
        return ExecutionResult.sleep(0.3, "slept")
    look(context)
    return ExecutionResult.next()


class WaitsByItself(Workflow):
    id = "waits-by-itself"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(wait_twice)


class Sleeps(Workflow):
    id = "sleeps"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(sleep_first)


class WaitsWithOutput(Workflow):
    id = "waits-with-output"

    def build(self, builder: WorkflowBuilder) -> None:
        waiting = builder.start_with(lambda context: None).wait_for("go", "k")
        waiting.output("seen", lambda step: SEEN.append(of_store(INSTANCES[0])))


class Waits(Workflow):
    id = "waits"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None).wait_for("go", "k").then(look)


@pytest.fixture
def host() -> Iterator[WorkflowHost]:
    SEEN.clear()
    STORE[:] = [MemoryPersistenceProvider()]
    made = configure_workflow_host(STORE[0], SingleNodeQueueProvider(), LocalLockProvider())
    for workflow in (Waits, WaitsByItself, WaitsWithOutput, Sleeps):
        made.register_workflow(workflow)
    yield made
    made.stop()


def waiting(host: WorkflowHost, workflow: str = "waits") -> Instance:
    host.start()
    instance_id = host.start_workflow(workflow)
    # The first look into the log is over, too: nothing but an event or request can move it now.
    wait_for("it waits", lambda: of(host, instance_id).waits() and of(host, instance_id).wake_at is None, 10)
    INSTANCES[:] = [instance_id]
    return of(host, instance_id)


def of(host: WorkflowHost, instance_id: str) -> Instance:
    found = host.persistence.load([instance_id])[instance_id]
    assert isinstance(found, Instance)
    return found


def test_the_step_after_a_wait_needs_no_commit_before_it(host: WorkflowHost) -> None:
    before = waiting(host)
    host.publish_event("go", "k")
    assert host.wait_for_workflow(before.id, 10).status is WorkflowStatus.COMPLETE
    assert [one.revision for one in SEEN] == [before.revision]
    assert of(host, before.id).revision == before.revision + 1


def send_what_came_back(host: WorkflowHost, instance: Instance) -> None:
    """A wake-up as somebody had it in hand and died. The host is open, and not started."""
    queue = workflow_queue(instance.workflow_definition_id, 1)
    host.queue.send([Message(queue, instance.id)])
    come_back(host.queue, queue)


@pytest.mark.parametrize("workflow", ["waits", "waits-by-itself", "waits-with-output"])
def test_where_a_process_may_have_died_the_wait_s_end_is_stored_and_the_death_counted(
    host: WorkflowHost, workflow: str
) -> None:
    before = waiting(host, workflow)
    host.stop()
    host.open()
    now = host.persistence.now()
    host.persistence.add_event(Event("e", "go", "k", now - timedelta(seconds=0.001), None, None))
    host.persistence.mark_processed(["e"])  # nobody else tells of it
    send_what_came_back(host, before)
    host.start()
    assert host.wait_for_workflow(before.id, 10).status is WorkflowStatus.COMPLETE
    assert [(one.revision, one.crashes) for one in SEEN] == [(before.revision + 1, 1)]
    assert of(host, before.id).crashes == 0


def test_where_a_process_may_have_died_after_a_sleep_the_death_is_counted(host: WorkflowHost) -> None:
    host.start()
    instance_id = host.start_workflow("sleeps")
    wait_for("it sleeps", lambda: of(host, instance_id).next_execution, 10)
    host.stop()
    host.open()
    due = of(host, instance_id).next_execution
    wait_for("it is due", lambda: due is not None and host.persistence.now() > due, 10)
    send_what_came_back(host, of(host, instance_id))
    host.start()
    assert host.wait_for_workflow(instance_id, 10).status is WorkflowStatus.COMPLETE
    assert [one.crashes for one in SEEN] == [1]
    assert of(host, instance_id).crashes == 0
