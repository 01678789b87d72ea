"""Choosing a path: decide with its branches, and when on the outcome of the step before."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from scenarios.helpers import Hosts, note, nothing, outcome, run, workflow

from liteflow.core import (
    DefinitionError,
    StepBody,
    StepExecutionContext,
    WorkflowBuilder,
    configure_workflow_host,
)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Sum(StepBody):
    a = b = sign = result = 0

    def run(self, context: StepExecutionContext) -> None:
        self.result = self.a + self.sign * self.b


# -------------------------------------------------------------------------------------------------- decide


def sum_branch(b: WorkflowBuilder, sign: int) -> Any:
    """A branch that puts a + b or a - b into `result`."""
    return (
        b.create_branch()
        .start_with(Sum)
        .input("a", lambda data: data.a)
        .input("b", lambda data: data.b)
        .input("sign", sign)
        .output("result", lambda step: step.result)
    )


@pytest.mark.parametrize(("op", "result"), [("+", 5), ("-", -1)])
def test_decide_takes_the_branch_of_its_value(make_host: Hosts, op: str, result: int) -> None:
    def build(b: WorkflowBuilder) -> None:
        plus, minus = sum_branch(b, 1), sum_branch(b, -1)
        b.decide(lambda data: data.op).branch("+", plus).branch("-", minus)

    assert run(make_host(workflow(build)), {"op": op, "a": 2, "b": 3}).data.result == result


@pytest.mark.parametrize(("amount", "taken"), [(5, ["small"]), (50, ["large"]), (500, ["large", "huge"])])
def test_branches_by_a_function_of_data_and_outcome(make_host: Hosts, amount: int, taken: list[str]) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        names = ("small", "large", "huge")
        small, large, huge = (b.create_branch().start_with(note(log, name)) for name in names)
        (
            b.start_with(nothing)
            .decide(lambda data, context: data.amount)
            .branch(lambda data, outcome: outcome < data.limit, small)
            .branch(lambda data, outcome: outcome >= data.limit, large)
            .branch(lambda data, outcome: outcome >= 10 * data.limit, huge)
        )

    run(make_host(workflow(build)), {"amount": amount, "limit": 10})
    assert sorted(log) == sorted(taken)


def test_what_follows_a_decide_waits_for_all_branches_that_match(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        short = b.create_branch().start_with(note(log, "short"))
        long = b.create_branch().delay(0.2).then(note(log, "long"))
        b.decide(1).branch(1, long).branch(1, short).branch(
            2, b.create_branch().then(note(log, "other"))
        ).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["short", "long", "end"]


def test_the_branch_is_the_whole_chain_from_create_branch_on(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        chain = b.create_branch().start_with(note(log, "1")).then(note(log, "2")).then(note(log, "3"))
        b.decide("x").branch("x", chain).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["1", "2", "3", "end"]


@pytest.mark.parametrize(("value", "taken"), [("a", "a"), ("b", "default"), (None, "default")])
def test_the_default_branch_runs_without_a_match_only(
    make_host: Hosts, value: str | None, taken: str
) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.decide(lambda data: data.value)
            .branch("a", b.create_branch().start_with(note(log, "a")))
            .default(b.create_branch().start_with(note(log, "default")))
            .then(note(log, "end"))
        )

    run(make_host(workflow(build)), {"value": value})
    assert log == [taken, "end"]


def test_a_decide_without_a_match_goes_on(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        branch = b.create_branch().start_with(note(log, "a"))
        b.start_with(nothing).decide("b").branch("a", branch).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["end"]


def test_a_decide_in_a_loop_decides_in_each_round(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            odd = b.create_branch().start_with(note(log, "odd"))
            even = b.create_branch().start_with(note(log, "even"))
            x.decide(lambda data, context: context.item % 2).branch(1, odd).branch(0, even)

        b.for_each([1, 2, 3], run_parallel=False).do(block)

    run(make_host(workflow(build)))
    assert log == ["odd", "even", "odd"]


def test_a_branch_can_be_used_once() -> None:
    def build(b: WorkflowBuilder) -> None:
        branch = b.create_branch().start_with(nothing)
        b.decide(1).branch(1, branch).branch(2, branch)

    with pytest.raises(DefinitionError, match="scenario"):
        configure_workflow_host().register_workflow(workflow(build))


# ---------------------------------------------------------------------------------------------------- when


def test_every_when_that_matches_runs_and_then_waits_for_them(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(outcome(2))
            .when(1)
            .do(lambda x: x.start_with(note(log, "case 1")))
            .when(lambda data: 2)
            .do(lambda x: x.delay(0.2).then(note(log, "case 2")))
            .when(2)
            .do(lambda x: x.start_with(note(log, "case 3")))
            .then(note(log, "end"))
        )

    run(make_host(workflow(build)))
    assert log == ["case 3", "case 2", "end"]


def test_when_tells_true_from_false(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(note(log, "a"))
            .then(outcome(True))
            .when(False)
            .do(lambda x: x.start_with(note(log, "b")))
            .when(True)
            .do(lambda x: x.start_with(note(log, "c")))
        )

    run(make_host(workflow(build)))
    assert log == ["a", "c"]


def test_when_without_a_match_goes_on(make_host: Hosts) -> None:
    log: list[str] = []
    block = note(log, "block")
    run(
        make_host(
            workflow(
                lambda b: (
                    b.start_with(outcome("x")).when("y").do(lambda x: x.then(block)).then(note(log, "end"))
                )
            )
        )
    )
    assert log == ["end"]


@pytest.mark.parametrize("value", [Colour.RED, (1, 2), {"a": [1]}, "text", 1.5])
def test_outcomes_are_compared_as_they_are_stored(make_host: Hosts, value: Any) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(outcome(value)).when(Colour.GREEN).do(lambda x: x.then(note(log, "green")))
        step.when(value).do(lambda x: x.start_with(note(log, "match"))).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == ["match", "end"]


def test_a_decide_on_an_enum_takes_its_branch(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        red = b.create_branch().start_with(note(log, "red"))
        green = b.create_branch().start_with(note(log, "green"))
        b.decide(lambda data: data.colour).branch(Colour.RED, red).branch(Colour.GREEN, green)

    run(make_host(workflow(build)), {"colour": Colour.GREEN})
    assert log == ["green"]
