"""What happens to a step that fails: whose policy counts, retries, timeouts, and what is kept of it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from scenarios.helpers import (
    Gate,
    Hosts,
    errors,
    fail,
    failing,
    finish,
    note,
    nothing,
    pointer_is,
    pointers,
    run,
    start,
    until,
    until_waiting,
    workflow,
)
from servers import wait_for

from liteflow.core import (
    ErrorPolicy,
    PointerStatus,
    RetryPolicy,
    StepBody,
    StepExecutionContext,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowInstance,
    WorkflowStatus,
    WorkflowStep,
)

RETRY = WorkflowErrorHandling.RETRY
SUSPEND = WorkflowErrorHandling.SUSPEND
TERMINATE = WorkflowErrorHandling.TERMINATE


# ---------------------------------------------------------------------------------------------- precedence


@pytest.mark.parametrize(
    ("step", "definition", "status"),
    [
        (None, None, WorkflowStatus.TERMINATED),
        (None, SUSPEND, WorkflowStatus.SUSPENDED),
        (TERMINATE, SUSPEND, WorkflowStatus.TERMINATED),
        (SUSPEND, TERMINATE, WorkflowStatus.SUSPENDED),
        (SUSPEND, None, WorkflowStatus.SUSPENDED),
    ],
)
def test_the_step_s_policy_comes_before_the_definition_s_and_the_host_s(
    make_host: Hosts,
    step: WorkflowErrorHandling | None,
    definition: WorkflowErrorHandling | None,
    status: WorkflowStatus,
) -> None:
    def build(b: WorkflowBuilder) -> None:
        if definition is not None:
            b.use_default_error_behavior(definition)
        failed = b.start_with(nothing).then(fail)
        if step is not None:
            failed.on_error(step)

    host = make_host(workflow(build), on_error=ErrorPolicy(TERMINATE))
    until(host, start(host), status)


def test_a_step_that_compensates_comes_before_the_definition(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        b.use_default_error_behavior(TERMINATE).start_with(fail).compensate_with(note(log, "undo")).then(
            note(log, "end")
        )

    run(make_host(workflow(build)))
    assert log == ["undo", "end"]


def test_a_step_s_own_policy_comes_before_its_compensation(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        b.start_with(fail).on_error(TERMINATE).compensate_with(note(log, "undo")).then(note(log, "end"))

    host = make_host(workflow(build))
    until(host, start(host), WorkflowStatus.TERMINATED)
    assert log == []


def test_where_nobody_says_anything_a_step_is_tried_again_after_a_minute(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.start_with(fail).id("fail")))
    instance_id = start(host)
    wait_for("it sleeps", lambda: pointer_is(host, instance_id, "fail", PointerStatus.SLEEPING), 20)
    [pointer] = pointers(host, instance_id, "fail")
    [error] = host.get_errors(instance_id)
    assert pointer.sleep_until is not None
    assert timedelta(seconds=59) < pointer.sleep_until - error.time < timedelta(seconds=61)
    host.terminate_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.TERMINATED)


def test_the_definition_s_retry_applies_to_each_step(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        b.use_default_error_behavior(RETRY, RetryPolicy(max_attempts=2, interval=0.05))
        b.start_with(failing(log, "a", 1)).then(failing(log, "b", 1))

    run(make_host(workflow(build)))
    assert log == ["a", "a", "b", "b"]


def test_the_original_s_name_for_a_behaviour_works(make_host: Hosts) -> None:
    log: list[str] = []
    run(make_host(workflow(lambda b: b.start_with(failing(log, "x", 2)).on_error(WorkflowStep.RETRY, 0.05))))
    assert log == ["x"] * 3


# ------------------------------------------------------------------------------------------------- retries


def test_errors_that_are_not_retryable_use_up_the_policy_at_once(make_host: Hosts) -> None:
    runs: list[int] = []

    def step(context: StepExecutionContext) -> None:
        runs.append(1)
        raise LookupError("gone") if len(runs) == 2 else RuntimeError("busy")

    policy = RetryPolicy(max_attempts=5, interval=0.05, non_retryable=(LookupError,), on_exhausted=TERMINATE)
    host = make_host(workflow(lambda b: b.start_with(step).on_error(RETRY, policy)))
    instance_id = start(host)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    assert errors(host, instance_id) == [("RuntimeError", "busy"), ("LookupError", "gone")]


def test_pauses_grow_by_the_backoff(make_host: Hosts) -> None:
    log: list[str] = []
    policy = RetryPolicy(max_attempts=5, interval=0.05, backoff=4.0)
    host = make_host(workflow(lambda b: b.start_with(failing(log, "x", 3)).on_error(RETRY, policy)))
    first, second, third = (error.time for error in host.get_errors(run(host).id))
    assert second - first >= timedelta(seconds=0.05)
    assert third - second >= timedelta(seconds=0.2)


@pytest.mark.parametrize(
    ("exhausted", "status"), [(SUSPEND, WorkflowStatus.SUSPENDED), (TERMINATE, WorkflowStatus.TERMINATED)]
)
def test_max_attempts_counts_the_first_run(
    make_host: Hosts, exhausted: WorkflowErrorHandling, status: WorkflowStatus
) -> None:
    log: list[str] = []
    policy = RetryPolicy(max_attempts=3, interval=0.02, on_exhausted=exhausted)
    host = make_host(workflow(lambda b: b.start_with(failing(log, "x")).on_error(RETRY, policy)))
    until(host, start(host), status)
    assert len(log) == 3


def test_a_resume_gives_a_fresh_budget(make_host: Hosts) -> None:
    log: list[str] = []
    policy = RetryPolicy(max_attempts=2, interval=0.02)
    host = make_host(workflow(lambda b: b.start_with(failing(log, "x", 5)).on_error(RETRY, policy)))
    instance_id = start(host)
    for failed in (2, 4):
        wait_for("it has failed again", lambda failed=failed: len(host.get_errors(instance_id)) == failed, 20)
        until(host, instance_id, WorkflowStatus.SUSPENDED)
        assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert len(log) == 6


def test_a_suspended_step_runs_again_on_each_resume(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(
        workflow(lambda b: b.start_with(failing(log, "x", 2)).on_error(SUSPEND).then(note(log, "end")))
    )
    instance_id = start(host)
    for failed in (1, 2):
        wait_for("it has failed", lambda failed=failed: len(host.get_errors(instance_id)) == failed, 20)
        assert "boom" in (until(host, instance_id, WorkflowStatus.SUSPENDED).reason or "")
        assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert log == ["x", "x", "x", "end"]


def test_a_retry_pause_holds_no_slot(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(
        workflow(lambda b: b.start_with(fail).id("fail").on_error(RETRY, 3600), "pausing"),
        workflow(lambda b: b.start_with(note(log, "ran"))),
        concurrency=1,
    )
    pausing = start(host, name="pausing")
    wait_for("it pauses", lambda: pointer_is(host, pausing, "fail", PointerStatus.SLEEPING), 20)
    run(host)
    assert log == ["ran"]


# ------------------------------------------------------------------------------------- records and callbacks


def test_errors_are_kept_with_time_step_attempt_and_traceback(make_host: Hosts) -> None:
    def explode(context: StepExecutionContext) -> None:
        if context.attempt < 3:
            raise ValueError(f"number {context.attempt}")

    host = make_host(workflow(lambda b: b.start_with(explode).id("it").on_error(RETRY, 0.05)))
    before = host.persistence.now()
    instance = run(host)
    records = host.get_errors(instance.id)
    assert [(r.step_id, r.attempt, r.type, r.message) for r in records] == [
        ("it", 1, "ValueError", "number 1"),
        ("it", 2, "ValueError", "number 2"),
    ]
    slack = timedelta(seconds=0.05)
    assert before - slack <= records[0].time < records[1].time <= host.persistence.now() + slack
    for record in records:
        assert "Traceback" in record.traceback
        assert "in explode" in record.traceback


def test_a_callback_is_told_of_each_error(make_host: Hosts) -> None:
    told: list[tuple[str, str, Exception]] = []

    def callback(instance: WorkflowInstance, step: Any, exception: Exception) -> None:
        told.append((instance.id, step.id, exception))

    log: list[str] = []
    host = make_host(workflow(lambda b: b.start_with(failing(log, "x", 2)).id("it").on_error(RETRY, 0.02)))
    host.on_step_error(callback)
    instance_id = run(host).id
    wait_for("both are told", lambda: len(told) == 2, 20)
    assert [(who, step, type(error)) for who, step, error in told] == [(instance_id, "it", RuntimeError)] * 2


def test_a_callback_that_fails_harms_nobody(make_host: Hosts) -> None:
    def callback(*args: Any) -> None:
        raise LookupError("in the callback")

    host = make_host(workflow(lambda b: b.start_with(failing([], "x", 1)).on_error(RETRY, 0.02)))
    host.on_step_error(callback)
    assert errors(host, run(host).id) == [("RuntimeError", "boom")]


# ------------------------------------------------------------------------------------------------ timeouts


def test_a_body_past_its_timeout_is_told_and_its_late_result_dropped(make_host: Hosts) -> None:
    gate = Gate()

    def step(context: StepExecutionContext) -> None:
        gate.run(context)
        context.data.late = True

    host = make_host(workflow(lambda b: b.start_with(step).timeout(0.2).on_error(SUSPEND)))
    instance_id = start(host)
    assert gate.told.wait(20)
    instance = until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert [kind for kind, _ in errors(host, instance_id)] == ["StepTimeoutError"]
    assert not hasattr(instance.data, "late")


def test_an_async_body_past_its_timeout_is_cancelled(make_host: Hosts) -> None:
    cancelled = threading.Event()

    async def step(context: StepExecutionContext) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    host = make_host(
        workflow(lambda b: b.start_with(step).timeout(timedelta(seconds=0.2)).on_error(TERMINATE))
    )
    instance_id = start(host)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    assert cancelled.wait(20)
    assert [kind for kind, _ in errors(host, instance_id)] == ["StepTimeoutError"]


def test_a_timeout_goes_through_the_step_s_retries(make_host: Hosts) -> None:
    def step(context: StepExecutionContext) -> None:
        if context.attempt == 1:
            context.cancellation.wait(20)
        context.data.attempt = context.attempt

    host = make_host(workflow(lambda b: b.start_with(step).timeout(0.2).on_error(RETRY, 0.02)))
    assert run(host).data.attempt == 2


def test_a_step_in_time_is_left_alone(make_host: Hosts) -> None:
    class Quick(StepBody):
        def run(self, context: StepExecutionContext) -> None:
            context.data.told = context.cancellation.wait(0.1)

    assert run(make_host(workflow(lambda b: b.start_with(Quick).timeout(20)))).data.told is False


@pytest.mark.parametrize("blocked_on", ["body", "event", "sleep"])
def test_past_the_workflow_s_deadline_what_is_open_fails(make_host: Hosts, blocked_on: str) -> None:
    gate, log = Gate(), list[str]()

    def build(b: WorkflowBuilder) -> None:
        step = b.use_default_error_behavior(TERMINATE).start_with(nothing)
        match blocked_on:
            case "body":
                step = step.then(gate.run)
            case "event":
                step = step.wait_for("never", "k")
            case _:
                step = step.delay(3600)
        step.then(note(log, "end"))

    host = make_host(workflow(build, deadline=0.5))
    instance_id = start(host)
    instance = until(host, instance_id, WorkflowStatus.TERMINATED)
    assert [kind for kind, _ in errors(host, instance_id)] == ["StepTimeoutError"]
    assert instance.complete_time is not None
    assert instance.complete_time - instance.create_time >= timedelta(seconds=0.5)
    assert log == []
    if blocked_on == "body":
        assert gate.told.wait(20)


def test_a_workflow_within_its_deadline_is_left_alone(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k"), deadline=timedelta(seconds=30)))
    instance_id = start(host)
    until_waiting(host, instance_id)
    host.publish_event("go", "k")
    finish(host, instance_id)
    assert errors(host, instance_id) == []
