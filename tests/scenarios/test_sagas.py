"""Sagas: what is undone when something in them fails, and in what order."""

from __future__ import annotations

from typing import Any

import pytest
from scenarios.helpers import (
    Hosts,
    errors,
    fail,
    failing,
    fails_on_demand,
    note,
    nothing,
    pointer_is,
    run,
    start,
    until,
    workflow,
)

from liteflow.core import (
    PointerStatus,
    RetryPolicy,
    StepExecutionContext,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowStatus,
)

RETRY = WorkflowErrorHandling.RETRY


# --------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("fails", [False, True])
def test_a_saga_undoes_what_is_in_it_and_the_path_goes_on_after_it(make_host: Hosts, fails: bool) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            (
                x.start_with(nothing)
                .id("first")
                .compensate_with(note(log, "undo 1"))
                .then(fails_on_demand(log, "2"))
                .compensate_with(note(log, "undo 2"))
                .then(note(log, "3"))
                .compensate_with(note(log, "undo 3"))
            )

        (
            b.start_with(nothing)
            .compensate_with(note(log, "undo what is before"))
            .saga(block)
            .compensate_with(note(log, "undo saga"))
            .then(note(log, "end"))
            .compensate_with(note(log, "undo what is after"))
        )

    host = make_host(workflow(build))
    instance = run(host, {"fail": fails})
    if fails:
        assert log == ["2 begins", "undo 2", "undo 1", "undo saga", "end"]
        assert pointer_is(host, instance.id, "first", PointerStatus.COMPENSATED)
    else:
        assert log == ["2 begins", "2 ends", "3", "end"]
    assert len(errors(host, instance.id)) == fails


def test_the_failed_step_is_undone_first_then_the_others_backwards(make_host: Hosts) -> None:
    log: list[int] = []

    def build(b: WorkflowBuilder) -> None:
        b.start_with(nothing).saga(
            lambda x: (
                x.start_with(nothing)
                .compensate_with(note(log, 1))
                .then(nothing)
                .compensate_with_sequence(lambda y: y.start_with(note(log, 2)))
                .then(nothing)
                .compensate_with(note(log, 3))
                .then(fail)
                .compensate_with(note(log, 4))
            )
        )

    host = make_host(workflow(build))
    assert len(errors(host, run(host).id)) == 1
    assert log == [4, 3, 2, 1]


def test_each_sequence_is_whole_before_the_next_begins(make_host: Hosts) -> None:
    log: list[str] = []

    def sequence(name: str) -> Any:
        first, second = note(log, f"{name}.1"), note(log, f"{name}.2")
        return lambda x: x.start_with(first).delay(0.05).then(second)

    def build(b: WorkflowBuilder) -> None:
        b.start_with(nothing).saga(
            lambda x: (
                x.start_with(nothing)
                .compensate_with_sequence(sequence("1"))
                .if_(True)
                .do(
                    lambda y: (
                        y.then(nothing)
                        .compensate_with_sequence(sequence("2"))
                        .then(nothing)
                        .compensate_with(note(log, "3"))
                        .then(fail)
                        .compensate_with(note(log, "4"))
                    )
                )
            )
        )

    run(make_host(workflow(build)))
    assert log == ["4", "3", "2.1", "2.2", "1.1", "1.2"]


def test_the_order_is_that_of_their_end_not_of_the_definition(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def slow(x: WorkflowBuilder) -> None:
            x.delay(0.2).then(nothing).compensate_with(note(log, "slow"))

        def fast(x: WorkflowBuilder) -> None:
            x.start_with(nothing).compensate_with(note(log, "fast"))

        b.saga(lambda x: x.parallel().do(slow).do(fast).join().then(fail))

    run(make_host(workflow(build)))
    assert log == ["slow", "fast"]


def test_steps_that_have_not_run_are_not_undone(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            step = x.if_(False).do(lambda y: y.start_with(nothing).compensate_with(note(log, "not taken")))
            step.then(fail).then(nothing).compensate_with(note(log, "not reached"))

        b.saga(block).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["end"]


# -------------------------------------------------------------------------------------- nesting and loops


def test_a_nested_saga_that_fails_leaves_the_outer_one_alone(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def inner(x: WorkflowBuilder) -> None:
            x.start_with(nothing).compensate_with(note(log, "undo inner")).then(fail)

        def outer(x: WorkflowBuilder) -> None:
            step = x.start_with(nothing).compensate_with(note(log, "undo outer"))
            step.saga(inner).then(note(log, "after inner"))

        b.saga(outer).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["undo inner", "after inner", "end"]


def test_a_nested_saga_that_completed_is_undone_with_the_outer_one(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def inner(x: WorkflowBuilder) -> None:
            step = x.start_with(nothing).compensate_with(note(log, "undo 1"))
            step.then(nothing).compensate_with(note(log, "undo 2"))

        b.saga(lambda x: x.saga(inner).then(fail).compensate_with(note(log, "undo 3")))

    run(make_host(workflow(build)))
    assert log == ["undo 3", "undo 2", "undo 1"]


def test_what_a_nested_saga_has_undone_is_not_undone_again(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def inner(x: WorkflowBuilder) -> None:
            x.start_with(nothing).compensate_with(note(log, "undo inner")).then(fail)

        b.saga(lambda x: x.saga(inner).then(fail).compensate_with(note(log, "undo outer")))

    run(make_host(workflow(build)))
    assert log == ["undo inner", "undo outer"]


def test_items_of_a_for_each_in_a_saga_are_undone_with_their_item(make_host: Hosts) -> None:
    log: list[Any] = []

    def step(context: StepExecutionContext) -> None:
        if context.item == 3:
            raise RuntimeError("boom")

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            x.start_with(step).compensate_with(note(log, lambda context: context.item))

        b.saga(lambda x: x.for_each([1, 2, 3, 4], run_parallel=False).do(block)).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == [3, 2, 1, "end"]


@pytest.mark.parametrize("run_parallel", [True, False])
def test_a_saga_in_a_for_each_fails_for_its_own_item_only(make_host: Hosts, run_parallel: bool) -> None:
    log: list[Any] = []

    def step(context: StepExecutionContext) -> None:
        if context.item == 2:
            raise RuntimeError("boom")

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            undo = note(log, lambda context: ("undo", context.item))
            after = note(log, lambda context: ("after", context.item))
            x.saga(lambda y: y.start_with(nothing).compensate_with(undo).then(step)).then(after)

        b.for_each([1, 2, 3], run_parallel=run_parallel).do(block).then(note(log, ("end", 0)))

    run(make_host(workflow(build)))
    assert sorted(log[:-1]) == [("after", 1), ("after", 2), ("after", 3), ("undo", 2)]
    assert log.index(("undo", 2)) < log.index(("after", 2))
    assert log[-1] == ("end", 0)


# -------------------------------------------------------------------------------------------------- policies


def test_a_saga_can_terminate(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            x.start_with(nothing).if_(True).do(lambda y: y.then(failing(log, "step"))).then(note(log, "no"))

        step = b.start_with(nothing).saga(block).on_error(WorkflowErrorHandling.TERMINATE)
        step.then(note(log, "no"))

    host = make_host(workflow(build))
    instance_id = start(host)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    assert log == ["step"]
    assert len(errors(host, instance_id)) == 1


def test_a_step_with_a_policy_of_its_own_is_retried_inside_the_saga(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            step = x.start_with(note(log, "a")).compensate_with(note(log, "undo a"))
            step.then(failing(log, "b", 2)).on_error(RETRY, 0.02)

        b.saga(block).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["a", "b", "b", "b", "end"]


def test_attempts_used_up_can_compensate(make_host: Hosts) -> None:
    log: list[str] = []
    policy = RetryPolicy(max_attempts=2, interval=0.02, on_exhausted=WorkflowErrorHandling.COMPENSATE)

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            step = x.start_with(note(log, "a")).compensate_with(note(log, "undo a"))
            step.then(failing(log, "b")).on_error(RETRY, policy)

        b.saga(block).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["a", "b", "b", "undo a", "end"]
