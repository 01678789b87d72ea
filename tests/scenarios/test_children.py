"""Child workflows: started by a step, with a life of their own that their parent can wait for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from scenarios.helpers import (
    LONG_AGO,
    Hosts,
    errors,
    fail,
    failing,
    finish,
    note,
    nothing,
    run,
    start,
    until,
    until_waiting,
    workflow,
)
from servers import wait_for

from liteflow.core import (
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowHost,
    WorkflowStatus,
)

TERMINATE = WorkflowErrorHandling.TERMINATE


class Double(Workflow):
    id = "double"

    def build(self, builder: WorkflowBuilder) -> None:
        def double(context: StepExecutionContext) -> None:
            context.data.answer = 2 * context.data.n

        builder.start_with(double)


class DoubleAgain(Double):
    version = 2

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(nothing).output("answer", lambda step: "version 2")


def waiting_child(b: WorkflowBuilder) -> None:
    b.start_with(nothing).wait_for("go", "k", LONG_AGO).output("answer", lambda step: step.event_data)


def child_of(host: WorkflowHost, name: str = "child", number: int = 0) -> str:
    """The id of the (n-th) child, once it is there."""

    def ids() -> list[str]:
        return [item.id for item in sorted(host.list_workflows(workflow=name).items, key=created)]

    wait_for("the child is there", lambda: len(ids()) > number, 20)
    return ids()[number]


def created(item: Any) -> Any:
    return item.create_time


# ---------------------------------------------------------------------------------------------------- output


@pytest.mark.parametrize("which", ["double", Double])
@pytest.mark.parametrize("data", [{"n": 21}, lambda data: {"n": data.n}, lambda data, context: {"n": data.n}])
def test_a_parent_reads_what_its_child_has_made(make_host: Hosts, which: Any, data: Any) -> None:
    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(nothing)
            .start_child(which, data=data)
            .output("answer", lambda step: step.data.answer)
            .then(lambda context: None)
        )

    host = make_host(Double, workflow(build))
    assert run(host, {"n": 21}).data.answer == 42
    assert host.get_workflow(child_of(host, "double")).status is WorkflowStatus.COMPLETE


@pytest.mark.parametrize(("version", "answer"), [(1, 42), (2, "version 2"), (None, "version 2")])
def test_a_child_s_version_can_be_named(make_host: Hosts, version: int | None, answer: Any) -> None:
    def build(b: WorkflowBuilder) -> None:
        b.start_child("double", version=version, data={"n": 21}).output("answer", lambda s: s.data.answer)

    assert run(make_host(Double, DoubleAgain, workflow(build))).data.answer == answer


def test_each_item_of_a_for_each_may_have_its_child(make_host: Hosts) -> None:
    log: list[int] = []

    def build(b: WorkflowBuilder) -> None:
        b.for_each([1, 2, 3]).do(
            lambda x: x.start_child("double", data=lambda data, context: {"n": context.item}).output(
                lambda step, data: log.append(step.data.answer)
            )
        )

    host = make_host(Double, workflow(build))
    run(host)
    assert sorted(log) == [2, 4, 6]
    assert len(host.list_workflows(workflow="double").items) == 3


def test_a_parent_waits_for_its_child(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_child("child").output("answer", lambda step: step.data.answer)
        step.then(note(log, "end"))

    host = make_host(workflow(waiting_child, "child"), workflow(build))
    parent = start(host)
    until_waiting(host, child_of(host), "go")
    assert log == []
    assert host.get_workflow(parent).status is WorkflowStatus.RUNNABLE
    host.publish_event("go", "k", "grown up")
    assert finish(host, parent).data.answer == "grown up"


def test_a_parent_need_not_wait(make_host: Hosts) -> None:
    host = make_host(
        workflow(waiting_child, "child"),
        workflow(lambda b: b.start_with(nothing).start_child("child", wait=False).then(nothing)),
    )
    finish(host, start(host))
    child = child_of(host)
    until_waiting(host, child, "go")
    host.publish_event("go", "k", "alone")
    assert finish(host, child).data.answer == "alone"


# -------------------------------------------------------------------------------------- failure and control


def test_a_child_s_failure_is_the_step_s_error(make_host: Hosts) -> None:
    host = make_host(
        workflow(lambda b: b.start_with(fail).on_error(TERMINATE), "child"),
        workflow(lambda b: b.start_with(nothing).start_child("child").id("call").on_error(TERMINATE)),
    )
    parent = start(host)
    until(host, parent, WorkflowStatus.TERMINATED)
    [error] = host.get_errors(parent)
    assert (error.type, error.step_id) == ("ChildWorkflowError", "call")
    assert errors(host, child_of(host)) == [("RuntimeError", "boom")]


def test_a_child_s_termination_is_the_step_s_error(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        b.start_child("child").compensate_with(note(log, "undo")).then(note(log, "end"))

    host = make_host(workflow(waiting_child, "child"), workflow(build))
    parent = start(host)
    child = child_of(host)
    until_waiting(host, child, "go")
    host.terminate_workflow(child)
    finish(host, parent)
    assert log == ["undo", "end"]
    assert [kind for kind, _ in errors(host, parent)] == ["ChildWorkflowError"]


def test_a_retry_starts_another_child(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        b.start_child("child").on_error(WorkflowErrorHandling.RETRY, 0.05).then(note(log, "end"))

    host = make_host(
        workflow(lambda b: b.start_with(failing(log, "child", 1)).on_error(TERMINATE), "child"),
        workflow(build),
    )
    run(host)
    assert log == ["child", "child", "end"]
    statuses = [host.get_workflow(child_of(host, number=number)).status for number in range(2)]
    assert statuses == [WorkflowStatus.TERMINATED, WorkflowStatus.COMPLETE]


def test_terminating_the_parent_terminates_the_child(make_host: Hosts) -> None:
    host = make_host(
        workflow(waiting_child, "child"),
        workflow(lambda b: b.start_child("child").id("call"), "middle"),
        workflow(lambda b: b.start_with(nothing).start_child("middle")),
    )
    parent = start(host)
    child = child_of(host)
    until_waiting(host, child, "go")
    host.terminate_workflow(parent)
    for instance_id in (parent, child_of(host, "middle"), child):
        until(host, instance_id, WorkflowStatus.TERMINATED)


def test_suspending_the_parent_leaves_the_child_alone_and_its_end_is_kept(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        b.start_child("child").output("answer", lambda step: step.data.answer)

    host = make_host(workflow(waiting_child, "child"), workflow(build))
    parent = start(host)
    child = child_of(host)
    until_waiting(host, child, "go")
    host.suspend_workflow(parent)
    until(host, parent, WorkflowStatus.SUSPENDED)
    host.publish_event("go", "k", "meanwhile")
    finish(host, child)
    assert host.get_workflow(parent).status is WorkflowStatus.SUSPENDED
    host.resume_workflow(parent)
    assert until(host, parent, WorkflowStatus.COMPLETE).data.answer == "meanwhile"


# ------------------------------------------------------------------------------------ an approval, as a whole


def approval(b: WorkflowBuilder) -> None:
    """Ends with the answer, or without one when the patience is over."""

    def take(step: Any, data: Any) -> None:
        data.approved = step.event_data["approved"]
        data.message = step.event_data["message"]

    (
        b.use_default_error_behavior(TERMINATE)
        .start_with(nothing)
        .parallel()
        .do(
            lambda x: (
                x.delay(lambda data: data.patience).output("approved", lambda step: False).end_workflow()
            )
        )
        .do(lambda x: x.wait_for("approved", lambda data: data.key, LONG_AGO).output(take).end_workflow())
        .join()
    )


def asks(b: WorkflowBuilder) -> None:
    (
        b.use_default_error_behavior(TERMINATE)
        .start_with(nothing)
        .start_child("child", data=lambda data: {"key": data.key, "patience": data.patience, "message": None})
        .output("approved", lambda step: step.data.approved)
        .output("message", lambda step: step.data.message)
    )


@pytest.mark.parametrize("approved", [True, False])
def test_an_approval_ends_with_the_answer(make_host: Hosts, approved: bool) -> None:
    host = make_host(workflow(approval, "child"), workflow(asks))
    parent = start(host, {"key": "o-1", "patience": timedelta(minutes=10)})
    until_waiting(host, child_of(host), "approved")
    host.publish_event("approved", "o-1", {"approved": approved, "message": f"it is {approved}"})
    data = finish(host, parent).data
    assert (data.approved, data.message) == (approved, f"it is {approved}")
    assert (data.key, data.patience) == ("o-1", timedelta(minutes=10))
    assert errors(host, parent) == errors(host, child_of(host)) == []


def test_an_approval_ends_without_an_answer_when_the_time_is_over(make_host: Hosts) -> None:
    host = make_host(workflow(approval, "child"), workflow(asks))
    data = run(host, {"key": "o-1", "patience": timedelta(seconds=0.3)}).data
    assert (data.approved, data.message) == (False, None)
    assert errors(host, child_of(host)) == []


def test_an_answer_that_makes_no_sense_fails_child_and_parent(make_host: Hosts) -> None:
    host = make_host(workflow(approval, "child"), workflow(asks))
    parent = start(host, {"key": "o-1", "patience": timedelta(minutes=10)})
    host.publish_event("approved", "o-1", {"nonsense": True})
    until(host, parent, WorkflowStatus.TERMINATED)
    assert host.get_workflow(child_of(host)).status is WorkflowStatus.TERMINATED
    assert [kind for kind, _ in errors(host, child_of(host))] == ["KeyError"]
