"""What ends steps before their time: end_workflow, cancel_condition and race."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from scenarios.helpers import (
    LONG_AGO,
    Gate,
    Hosts,
    errors,
    failing,
    finish,
    note,
    nothing,
    pointer_is,
    pointers,
    run,
    start,
    until_waiting,
    waiting,
    workflow,
)

from liteflow.core import PointerStatus, StepExecutionContext, WorkflowBuilder, WorkflowErrorHandling


def count(context: StepExecutionContext) -> None:
    context.data.count = getattr(context.data, "count", 0) + 1


# -------------------------------------------------------------------------------------------- end_workflow


def test_end_workflow_completes_the_instance_out_of_a_loop(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(note(log, "begin"))
            .while_(True)
            .do(lambda x: x.start_with(note(log, "round")).end_workflow())
            .then(note(log, "end"))
        )

    run(make_host(workflow(build)))
    assert log == ["begin", "round"]


def test_end_workflow_cancels_what_is_open(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.parallel()
            .do(lambda x: x.wait_for("never", "k").id("wait").then(note(log, "waited")))
            .do(lambda x: x.delay(3600).id("sleep").then(note(log, "slept")))
            .do(lambda x: x.wait_for("go", "k", LONG_AGO).end_workflow())
            .join()
            .then(note(log, "end"))
        )

    host = make_host(workflow(build))
    instance_id = start(host)
    until_waiting(host, instance_id, "never")
    host.publish_event("go", "k")
    instance = finish(host, instance_id)
    assert instance.complete_time is not None
    assert not [pointer for pointer in instance.execution_pointers if pointer.active]
    for step_id in ("wait", "sleep"):
        assert pointer_is(host, instance_id, step_id, PointerStatus.CANCELLED)
    host.publish_event("never", "k")
    assert not waiting(host, instance_id)
    assert log == []


def test_end_workflow_tells_a_running_body(make_host: Hosts) -> None:
    gate = Gate()

    def build(b: WorkflowBuilder) -> None:
        def end(context: StepExecutionContext) -> None:
            gate.begun.wait(20)

        b.parallel().do(lambda x: x.then(gate.run)).do(lambda x: x.then(end).end_workflow()).join()

    run(make_host(workflow(build)))
    assert gate.told.wait(20)


# ---------------------------------------------------------------------------------------- cancel_condition


def test_a_cancelled_wait_leaves_its_branch_and_takes_no_event(make_host: Hosts) -> None:
    log: list[str] = []

    def branch(name: str) -> Any:
        return lambda x: (
            x.start_with(nothing)
            .wait_for(name, "k", cancel_condition=lambda data: getattr(data, "value", None) is not None)
            .id(name)
            .output("value", lambda step: step.event_data)
            .then(note(log, name))
        )

    host = make_host(
        workflow(lambda b: b.parallel().do(branch("one")).do(branch("two")).join().wait_for("three", "k"))
    )
    instance_id = start(host)
    until_waiting(host, instance_id, "one")
    until_waiting(host, instance_id, "two")
    host.publish_event("two", "k", "pass")
    until_waiting(host, instance_id, "three")
    assert [wait.name for wait in host.get_workflow(instance_id).record.waits()] == ["three"]
    host.publish_event("one", "k", "fail")
    host.publish_event("three", "k")
    assert finish(host, instance_id).data.value == "pass"
    assert pointer_is(host, instance_id, "one", PointerStatus.CANCELLED)
    assert log == ["two"]


@pytest.mark.parametrize("proceed", [False, True])
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_cancelled_loop_goes_on_if_told_to(make_host: Hosts, where: str, proceed: bool) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        loop: Any = b.start_with(nothing).while_(True)
        for part in ("condition", "block") if where == "before" else ("block", "condition"):
            if part == "block":
                loop = loop.do(lambda x: x.start_with(count).delay(0.05))
            else:
                loop = loop.cancel_condition(lambda data: getattr(data, "count", 0) >= 3, proceed)
        loop.then(note(log, "end"))

    instance = run(make_host(workflow(build)))
    assert instance.data.count == 3  # looked at after every commit, not after every round
    assert not [pointer for pointer in instance.execution_pointers if pointer.active]
    assert log == (["end"] if proceed else [])


def test_proceed_after_cancel_can_be_named(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(count).wait_for("never", "k")
        step.cancel_condition(lambda data: data.count == 1, proceed_after_cancel=True).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["end"]


def test_a_cancelled_block_ends_all_below(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            x.if_(True).do(lambda y: y.for_each([1, 2]).do(lambda z: z.wait_for("never", "k").id("deep")))

        (
            b.parallel()
            .do(lambda x: x.if_(True).do(block).cancel_condition(lambda data: getattr(data, "stop", False)))
            .do(lambda x: x.wait_for("stop", "k", LONG_AGO).output("stop", lambda step: True))
            .join()
        )

    host = make_host(workflow(build))
    instance_id = start(host)
    until_waiting(host, instance_id, "never", 2)
    host.publish_event("stop", "k")
    finish(host, instance_id)
    assert [p.status for p in pointers(host, instance_id, "deep")] == [PointerStatus.CANCELLED] * 2


def test_a_cancelled_body_that_runs_is_told(make_host: Hosts) -> None:
    gate = Gate()

    def build(b: WorkflowBuilder) -> None:
        def stop(context: StepExecutionContext) -> None:
            context.data.stop = gate.begun.wait(20)

        def cancelled(data: Any) -> bool:
            return getattr(data, "stop", False)

        b.parallel().do(lambda x: x.then(gate.run).cancel_condition(cancelled)).do(
            lambda x: x.then(stop)
        ).join()

    run(make_host(workflow(build)))
    assert gate.told.wait(20)


def test_a_condition_that_raises_counts_as_false(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(nothing).delay(0.05).cancel_condition(lambda data: data.no_such_attribute > 1)
        step.then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["end"]


def test_a_step_that_fails_again_and_again_can_be_cancelled_by_a_condition(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(failing(log, "run")).cancel_condition(lambda data: log.count("run") == 3)
        step.on_error(WorkflowErrorHandling.RETRY, 0.05).then(note(log, "end"))

    host = make_host(workflow(build))
    instance = run(host)
    assert log == ["run"] * 3
    assert errors(host, instance.id) == [("RuntimeError", "boom")] * 3


# ---------------------------------------------------------------------------------------------------- race


def race(b: WorkflowBuilder, log: list[str]) -> None:
    (
        b.start_with(nothing)
        .race(
            lambda x: x.wait_for("go", "k").id("event").then(note(log, "event")),
            lambda x: x.delay(lambda data: data.patience).id("timer").then(note(log, "timer")),
        )
        .then(note(log, "end"))
        .wait_for("last", "k")
    )


@pytest.mark.parametrize(("patience", "winner", "loser"), [(3600, "event", "timer"), (0.1, "timer", "event")])
def test_the_first_branch_to_end_wins_a_race(
    make_host: Hosts, patience: float, winner: str, loser: str
) -> None:
    log: list[str] = []
    host = make_host(workflow(lambda b: race(b, log)))
    instance_id = start(host, {"patience": patience})
    if winner == "event":
        until_waiting(host, instance_id, "go")
        host.publish_event("go", "k")
    until_waiting(host, instance_id, "last")
    host.publish_event("go", "k")  # too late, or once more
    assert pointer_is(host, instance_id, loser, PointerStatus.CANCELLED)
    host.publish_event("last", "k")
    finish(host, instance_id)
    assert log == [winner, "end"]


def test_a_race_is_won_by_a_whole_branch_not_by_its_first_step(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.race(
                lambda x: x.start_with(note(log, "hare")).delay(3600).then(note(log, "late")),
                lambda x: x.delay(0.1).then(note(log, "tortoise")),
            ).then(note(log, "end"))
        )

    run(make_host(workflow(build)))
    assert log == ["hare", "tortoise", "end"]


def test_the_loser_of_a_race_is_told_and_its_result_is_dropped(make_host: Hosts) -> None:
    gate, dropped = Gate(), threading.Event()

    def loser(context: StepExecutionContext) -> None:
        gate.run(context)
        context.data.loser = True
        dropped.set()

    def winner(context: StepExecutionContext) -> None:
        context.data.winner = gate.begun.wait(20)

    step = workflow(
        lambda b: b.race(lambda x: x.then(loser), lambda x: x.then(winner)).wait_for("last", "k", LONG_AGO)
    )
    host = make_host(step)
    instance_id = start(host)
    assert gate.told.wait(20)
    assert dropped.wait(20)
    host.publish_event("last", "k")
    instance = finish(host, instance_id)
    assert instance.data.winner is True
    assert not hasattr(instance.data, "loser")
