"""Sagas that are run afresh, that wait, and whose compensations fail or are interrupted."""

from __future__ import annotations

from typing import Any

import pytest
from scenarios.helpers import (
    LONG_AGO,
    Gate,
    Hosts,
    errors,
    fail,
    failing,
    finish,
    note,
    nothing,
    pointer_is,
    run,
    start,
    until,
    until_waiting,
    waiting,
    workflow,
)
from servers import wait_for

from liteflow.core import (
    PointerStatus,
    RetryPolicy,
    StepExecutionContext,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowStatus,
)

RETRY = WorkflowErrorHandling.RETRY


def counts(log: list[str], *names: str) -> list[int]:
    return [log.count(name) for name in names]


# --------------------------------------------------------------------------------------------------- retry


@pytest.mark.parametrize("nested", [False, True])
def test_a_saga_with_retry_is_undone_and_run_afresh(make_host: Hosts, nested: bool) -> None:
    log: list[str] = []

    def step(context: StepExecutionContext) -> None:
        log.append("step begins")
        if log.count("step begins") < 3:
            raise RuntimeError("boom")
        log.append("step ends")

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            first: Any = x.start_with(nothing).compensate_with(note(log, "undo first"))
            if nested:
                middle = first.if_(True).do(lambda y: y.then(step).compensate_with(note(log, "undo step")))
            else:
                middle = first.then(step).compensate_with(note(log, "undo step"))
            middle.then(note(log, "last")).compensate_with(note(log, "undo last"))

        (
            b.start_with(nothing)
            .compensate_with(note(log, "undo before"))
            .saga(block)
            .on_error(RETRY, 0.1)
            .then(note(log, "end"))
        )

    host = make_host(workflow(build))
    instance = run(host)
    round_ = ["step begins", "undo step", "undo first"]
    assert log == [*round_, *round_, "step begins", "step ends", "last", "end"]
    assert len(errors(host, instance.id)) == 2


def test_a_saga_that_used_up_its_attempts_is_suspended_and_a_resume_runs_it_afresh(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            x.start_with(note(log, "a")).compensate_with(note(log, "undo a")).then(failing(log, "b", 2))

        b.saga(block).on_error(RETRY, RetryPolicy(max_attempts=2, interval=0.02)).then(note(log, "end"))

    host = make_host(workflow(build))
    instance_id = start(host)
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert log == ["a", "b", "undo a"] * 2
    assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert log[6:] == ["a", "b", "end"]


def test_between_its_runs_a_saga_sleeps(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            x.start_with(failing(log, "x")).compensate_with(note(log, "undo x"))

        b.saga(block).id("saga").on_error(RETRY, 3600)

    host = make_host(workflow(build))
    instance_id = start(host)
    wait_for("it sleeps", lambda: pointer_is(host, instance_id, "saga", PointerStatus.SLEEPING), 20)
    assert log == ["x", "undo x"]
    assert host.get_workflow(instance_id).next_execution is not None
    host.terminate_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.TERMINATED)


# ----------------------------------------------------------------------------- waits and activities inside


def test_a_saga_run_afresh_waits_for_an_event_of_its_own(make_host: Hosts) -> None:
    log: list[Any] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            (
                x.start_with(note(log, "a"))
                .compensate_with(note(log, "undo a"))
                .wait_for("go", "k", LONG_AGO)
                .output("got", lambda step: step.event_data)
                .then(failing(log, "b", 1))
            )

        b.saga(block).on_error(RETRY, 0.05).then(note(log, lambda context: context.data.got))

    host = make_host(workflow(build))
    instance_id = start(host)
    until_waiting(host, instance_id)
    host.publish_event("go", "k", 1)
    wait_for("it runs afresh", lambda: log == ["a", "b", "undo a", "a"] and waiting(host, instance_id), 20)
    host.publish_event("go", "k", 2)
    finish(host, instance_id)
    assert log[4:] == ["b", 2]


def test_a_saga_run_afresh_offers_its_activity_anew(make_host: Hosts) -> None:
    log: list[str] = []

    def step(context: StepExecutionContext) -> None:
        log.append("begins")
        if log.count("begins") < 3:
            raise RuntimeError("boom")
        log.append("ends")

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            (
                x.start_with(nothing)
                .compensate_with(note(log, "undo 2"))
                .activity("ask", "prompt")
                .then(step)
                .compensate_with(note(log, "undo 3"))
                .then(note(log, "last"))
                .compensate_with(note(log, "undo 4"))
            )

        step_before = b.start_with(nothing).compensate_with(note(log, "undo 1"))
        step_before.saga(block).on_error(RETRY, 0.05).then(note(log, "end"))

    host = make_host(workflow(build))
    instance_id = start(host)
    tokens = set[str]()
    for _ in range(3):
        activity = host.get_pending_activity("ask", "tester", timeout=20)
        assert activity is not None
        assert activity.parameters == "prompt"
        tokens.add(activity.token)
        host.submit_activity_success(activity.token, "a")
    finish(host, instance_id)
    assert len(tokens) == 3
    assert counts(log, "begins", "ends", "last", "end") == [3, 1, 1, 1]
    assert counts(log, "undo 1", "undo 2", "undo 3", "undo 4") == [0, 2, 2, 0]
    assert len(errors(host, instance_id)) == 2


def test_a_saga_that_fails_cancels_what_is_still_open_in_it(make_host: Hosts) -> None:
    gate, log = Gate(), list[str]()

    def build(b: WorkflowBuilder) -> None:
        def late(context: StepExecutionContext) -> None:
            gate.begun.wait(20)
            raise RuntimeError("boom")

        (
            b.saga(
                lambda x: (
                    x.parallel()
                    .do(lambda y: y.wait_for("go", "k").id("wait").then(note(log, "no")))
                    .do(lambda y: y.start_with(gate.run).then(note(log, "no")))
                    .do(lambda y: y.start_with(late))
                    .join()
                    .then(note(log, "no"))
                )
            )
            .then(note(log, "end"))
            .wait_for("last", "k")
        )

    host = make_host(workflow(build))
    instance_id = start(host)
    until_waiting(host, instance_id, "last")
    assert gate.told.wait(20)
    assert pointer_is(host, instance_id, "wait", PointerStatus.CANCELLED)
    assert not waiting(host, instance_id, "go")
    host.publish_event("go", "k")
    host.publish_event("last", "k")
    finish(host, instance_id)
    assert log == ["end"]


# ------------------------------------------------------------------------------- compensations that fail


def three_steps(log: list[Any], undo_2: Any, settings: Any = None) -> Any:
    """A saga of three steps whose last one fails; `undo_2` is the compensation of the second."""

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            second = x.start_with(nothing).compensate_with(note(log, "undo 1")).then(nothing).id("second")
            compensated = (
                second.compensate_with(undo_2, settings) if settings else second.compensate_with(undo_2)
            )
            compensated.then(fail).compensate_with(note(log, "undo 3"))

        b.saga(block).then(note(log, "end"))

    return workflow(build)


def test_a_compensation_is_retried_by_its_own_policy(make_host: Hosts) -> None:
    log: list[Any] = []
    undo = failing(log, "undo 2", 2)
    run(make_host(three_steps(log, undo, lambda c: c.on_error(RETRY, 0.02))))
    assert log == ["undo 3", "undo 2", "undo 2", "undo 2", "undo 1", "end"]


def test_a_compensation_that_keeps_failing_suspends_and_a_resume_goes_on_with_it(make_host: Hosts) -> None:
    log: list[Any] = []
    undo = failing(log, "undo 2", 2)
    policy = RetryPolicy(max_attempts=2, interval=0.02)
    host = make_host(three_steps(log, undo, lambda c: c.on_error(RETRY, policy)))
    instance_id = start(host)
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert log == ["undo 3", "undo 2", "undo 2"]
    assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert log[3:] == ["undo 2", "undo 1", "end"]


def test_every_compensation_of_a_saga_knows_the_error(make_host: Hosts) -> None:
    seen: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def see(context: StepExecutionContext) -> None:
            seen.append(str(context.error))

        b.saga(lambda x: x.start_with(nothing).compensate_with(see).then(fail).compensate_with(see))

    run(make_host(workflow(build)))
    assert len(seen) == 2
    assert all("boom" in error for error in seen)


def test_a_compensation_sees_and_changes_the_data(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        def take(context: StepExecutionContext) -> None:
            context.data.stock -= 1

        def give_back(context: StepExecutionContext) -> None:
            context.data.stock += 1

        b.saga(lambda x: x.start_with(take).compensate_with(give_back).then(fail))

    assert run(make_host(workflow(build)), {"stock": 5}).data.stock == 5


# --------------------------------------------------------------------------------------------- interrupted


def test_compensation_goes_on_after_a_suspend_and_resume(make_host: Hosts) -> None:
    log: list[Any] = []
    gate = Gate()
    host = make_host(three_steps(log, gate.run))
    instance_id = start(host)
    assert gate.begun.wait(20)
    assert host.suspend_workflow(instance_id)
    gate.opened.set()
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert log == ["undo 3"]
    assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert (log, gate.runs) == (["undo 3", "undo 1", "end"], 1)


def test_compensation_ends_with_a_terminate(make_host: Hosts) -> None:
    log: list[Any] = []
    gate = Gate()
    host = make_host(three_steps(log, gate.run))
    instance_id = start(host)
    assert gate.begun.wait(20)
    assert host.terminate_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    assert gate.told.wait(20)
    assert log == ["undo 3"]
