"""The compensation of a single step, outside a saga."""

from __future__ import annotations

from typing import Any

import pytest
from scenarios.helpers import Hosts, errors, fail, failing, fails_on_demand, note, nothing, run, workflow

from liteflow.core import StepBody, StepExecutionContext, WorkflowBuilder


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_s_compensation_runs_if_it_fails_and_the_path_goes_on(make_host: Hosts, fails: bool) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(nothing).then(fails_on_demand(log, "step"))
        step.compensate_with(note(log, "undo")).then(note(log, "end"))

    host = make_host(workflow(build))
    instance = run(host, {"fail": fails})
    assert log == (["step begins", "undo", "end"] if fails else ["step begins", "step ends", "end"])
    assert errors(host, instance.id) == [("RuntimeError", "boom")] * fails


@pytest.mark.parametrize("fails", [False, True])
def test_a_compensation_may_be_a_sequence(make_host: Hosts, fails: bool) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(nothing).then(fails_on_demand(log, "step"))
        step.compensate_with_sequence(
            lambda x: x.start_with(note(log, "undo 1")).delay(0.05).then(note(log, "undo 2"))
        ).then(note(log, "end"))

    run(make_host(workflow(build)), {"fail": fails})
    assert log[1:] == (["undo 1", "undo 2", "end"] if fails else ["step ends", "end"])


def test_a_compensation_takes_inputs_and_knows_the_error(make_host: Hosts) -> None:
    seen: list[Any] = []

    class Undo(StepBody):
        order = amount = None

        def run(self, context: StepExecutionContext) -> None:
            seen.extend([self.order, self.amount, "boom" in str(context.error)])

    def build(b: WorkflowBuilder) -> None:
        b.start_with(fail).compensate_with(
            Undo, lambda c: c.input("order", lambda data: data.order).input("amount", 7)
        )

    run(make_host(workflow(build)), {"order": "o-1"})
    assert seen == ["o-1", 7, True]


def test_a_failing_step_in_a_loop_is_compensated_there(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            branch = (
                b.create_branch()
                .start_with(failing(log, "step"))
                .compensate_with_sequence(lambda y: y.start_with(note(log, "undo")))
            )
            x.decide(1).branch(1, branch)

        b.start_with(note(log, "1")).then(note(log, "2")).for_each([1]).do(block)

    host = make_host(workflow(build))
    instance = run(host)
    assert log == ["1", "2", "step", "undo"]
    assert len(errors(host, instance.id)) == 1
