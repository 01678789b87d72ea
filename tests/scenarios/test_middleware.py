"""Middleware around steps and workflows, and the factory that makes steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from scenarios.helpers import (
    Hosts,
    errors,
    fail,
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
    ExecutionResult,
    StepBody,
    StepExecutionContext,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowInstance,
    WorkflowStatus,
)


class RefusedError(Exception):
    """What the tests' middleware raises."""


class Tick(StepBody):
    async def run(self, context: StepExecutionContext) -> ExecutionResult:  # type: ignore[override]
        await asyncio.sleep(0.01)
        return ExecutionResult.next()


def around(log: list[str], name: str) -> Callable[..., Any]:
    """Middleware of either kind that notes when it is entered and left."""

    def middleware(*args: Any) -> Any:
        log.append(f"{name} in")
        result = args[-1]()
        log.append(f"{name} out")
        return result

    return middleware


ONION = ["1 in", "2 in", "3 in", "3 out", "2 out", "1 out"]


# ----------------------------------------------------------------------------------------------- around steps


def test_step_middleware_wraps_each_step_outer_to_inner(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(workflow(lambda b: b.start_with(note(log, "body")).then(Tick)))
    for name in "123":
        host.add_step_middleware(around(log, name))
    run(host)
    assert log == [*ONION[:3], "body", *ONION[3:], *ONION]


def test_step_middleware_sees_context_body_and_result(make_host: Hosts) -> None:
    seen: list[Any] = []

    def middleware(context: StepExecutionContext, body: Any, next: Callable[[], ExecutionResult]) -> Any:
        result = next()
        seen.append((context.step.id, type(body), result.outcome_value))
        return result

    class Ask(StepBody):
        def run(self, context: StepExecutionContext) -> ExecutionResult:
            return ExecutionResult.outcome("answer")

    host = make_host(workflow(lambda b: b.start_with(Ask).id("ask")))
    host.add_step_middleware(middleware)
    run(host)
    assert seen == [("ask", Ask, "answer")]


def test_step_middleware_can_replace_the_result(make_host: Hosts) -> None:
    log: list[str] = []

    def middleware(context: StepExecutionContext, body: Any, next: Callable[[], ExecutionResult]) -> Any:
        result = next()
        return ExecutionResult.outcome("other") if context.step.id == "ask" else result

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(lambda context: ExecutionResult.outcome("one")).id("ask")
        step.when("one").do(lambda x: x.then(note(log, "one"))).when("other").do(
            lambda x: x.then(note(log, "other"))
        )

    host = make_host(workflow(build))
    host.add_step_middleware(middleware)
    run(host)
    assert log == ["other"]


def test_step_middleware_that_raises_fails_the_step(make_host: Hosts) -> None:
    log: list[str] = []

    def middleware(context: StepExecutionContext, body: Any, next: Callable[[], ExecutionResult]) -> Any:
        raise RefusedError("not today")

    host = make_host(
        workflow(lambda b: b.start_with(note(log, "body")).on_error(WorkflowErrorHandling.TERMINATE))
    )
    host.add_step_middleware(middleware)
    instance_id = start(host)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    assert errors(host, instance_id) == [("RefusedError", "not today")]
    assert log == []


# ------------------------------------------------------------------------------------------------------- pre


def test_pre_middleware_wraps_the_start_outer_to_inner(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(workflow(lambda b: b.start_with(nothing)))
    for name in "123":
        host.add_workflow_middleware("pre", around(log, name))
    instance_id = start(host)
    assert log == ONION
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert log == ONION


def test_pre_middleware_that_raises_refuses_the_start_and_nothing_is_stored(make_host: Hosts) -> None:
    log: list[str] = []

    def refuse(instance: WorkflowInstance, next: Callable[[], Any]) -> Any:
        if instance.reference == "bad":
            raise RefusedError(instance.data.why)
        return next()

    host = make_host(workflow(lambda b: b.start_with(note(log, lambda context: context.workflow.reference))))
    host.add_workflow_middleware("pre", refuse)
    with pytest.raises(RefusedError, match="no money"):
        host.start_workflow("scenario", data={"why": "no money"}, reference="bad")
    good = host.start_workflow("scenario", data={"why": ""}, reference="good")
    until(host, good, WorkflowStatus.COMPLETE)
    assert [item.id for item in host.list_workflows().items] == [good]
    assert log == ["good"]


# ------------------------------------------------------------------------------------------------------ post


@pytest.mark.parametrize("way", ["complete", "end_workflow", "error", "terminate", "terminate suspended"])
def test_post_middleware_runs_once_on_every_way_to_end(make_host: Hosts, way: str) -> None:
    seen: list[tuple[str, WorkflowStatus]] = []

    def post(instance: WorkflowInstance, next: Callable[[], Any]) -> Any:
        seen.append((instance.id, instance.status))
        return next()

    def build(b: WorkflowBuilder) -> None:
        match way:
            case "complete":
                b.start_with(nothing)
            case "end_workflow":
                branches = b.parallel().do(lambda x: x.wait_for("never", "k"))
                branches.do(lambda x: x.start_with(nothing).end_workflow()).join()
            case "error":
                b.start_with(fail).on_error(WorkflowErrorHandling.TERMINATE)
            case _:
                b.wait_for("never", "k")

    host = make_host(workflow(build), workflow(lambda b: b.start_with(nothing), "after"))
    host.add_workflow_middleware("post", post)
    instance_id = start(host)
    if way.startswith("terminate"):
        until_waiting(host, instance_id)
        if way == "terminate suspended":
            host.suspend_workflow(instance_id)
            until(host, instance_id, WorkflowStatus.SUSPENDED)
        host.terminate_workflow(instance_id)
    wait_for("the end is seen", lambda: seen, 20)
    after = run(host, name="after").id
    wait_for("the other's end is seen", lambda: len(seen) > 1, 20)
    end = WorkflowStatus.COMPLETE if way in ("complete", "end_workflow") else WorkflowStatus.TERMINATED
    assert seen == [(instance_id, end), (after, WorkflowStatus.COMPLETE)]


def test_post_middleware_is_an_onion_too(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(workflow(lambda b: b.start_with(nothing)))
    for name in "123":
        host.add_workflow_middleware("post", around(log, name))
    run(host)
    wait_for("it has run", lambda: len(log) == 6, 20)
    assert log == ONION


def test_post_middleware_that_raises_leaves_the_instance_complete(make_host: Hosts) -> None:
    seen: list[str] = []

    def post(instance: WorkflowInstance, next: Callable[[], Any]) -> Any:
        seen.append(instance.id)
        raise RefusedError("too late")

    host = make_host(workflow(lambda b: b.start_with(nothing)))
    host.add_workflow_middleware("post", post)
    for number in range(2):
        instance_id = run(host).id
        wait_for("it was called", lambda number=number: len(seen) > number, 20)
        assert host.get_workflow(instance_id).status is WorkflowStatus.COMPLETE


# --------------------------------------------------------------------------------------------------- execute


def test_execute_middleware_runs_after_each_advance(make_host: Hosts) -> None:
    seen: list[str] = []

    def execute(instance: WorkflowInstance, next: Callable[[], Any]) -> Any:
        seen.append(instance.id)
        return next()

    host = make_host(workflow(lambda b: b.start_with(nothing).wait_for("go", "k").then(nothing)))
    host.add_workflow_middleware("execute", execute)
    instance_id = start(host)
    until_waiting(host, instance_id)
    wait_for("the first advance is seen", lambda: seen, 20)
    before = len(seen)
    host.publish_event("go", "k")
    until(host, instance_id, WorkflowStatus.COMPLETE)
    wait_for("the second advance is seen", lambda: len(seen) > before, 20)
    assert set(seen) == {instance_id}


# ---------------------------------------------------------------------------------------------- step factory


def test_a_factory_makes_the_users_steps_with_what_they_depend_on(make_host: Hosts) -> None:
    made: list[type] = []

    class Clock:
        def __init__(self) -> None:
            self.reads = 0

    class Needs(StepBody):
        def __init__(self, clock: Clock) -> None:
            self.clock = clock

        def run(self, context: StepExecutionContext) -> None:
            self.clock.reads += 1

    clock = Clock()

    def factory(cls: type[StepBody], context: StepExecutionContext) -> StepBody:
        made.append(cls)
        assert context.workflow.reference == "r-1"
        return Needs(clock) if cls is Needs else cls()

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(Needs).output("reads", lambda step: step.clock.reads)
        step.then(nothing).if_(True).do(lambda x: x.then(Needs)).delay(0.01).then(Tick)

    host = make_host(workflow(build), step_factory=factory)
    instance = host.wait_for_workflow(host.start_workflow("scenario", reference="r-1"), 20)
    assert instance.status is WorkflowStatus.COMPLETE
    assert instance.data.reads == 1
    assert clock.reads == 2
    assert made == [Needs, Needs, Tick]  # neither functions nor LiteFlow's own steps
