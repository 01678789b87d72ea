"""Blocks and loops: if, while, for_each, parallel, attach and fork."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from scenarios.helpers import (
    Gate,
    Hosts,
    Peak,
    finish,
    note,
    nothing,
    run,
    start,
    until_waiting,
    workflow,
)
from servers import wait_for

from liteflow.core import (
    StepBody,
    StepExecutionContext,
    WorkflowBuilder,
)

# ---------------------------------------------------------------------------------------------- if, while


def test_each_if_runs_its_block_by_its_own_condition(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(note(log, "begin"))
            .if_(lambda data: data.counter < 3)
            .do(lambda x: x.start_with(note(log, "below 3")))
            .if_(lambda data: data.counter == 5)
            .do(lambda x: x.start_with(note(log, "is 5")))
            .if_(lambda data, context: data.counter == 2)
            .do(lambda x: x.start_with(note(log, "is 2")))
            .then(note(log, "end"))
        )

    run(make_host(workflow(build)), {"counter": 2})
    assert log == ["begin", "below 3", "is 2", "end"]


def test_what_follows_an_if_waits_for_every_pointer_of_its_block(make_host: Hosts) -> None:
    log: list[str] = []

    def block(x: WorkflowBuilder) -> None:
        forked = x.start_with(note(log, "in"))
        forked.then(note(log, "short"))
        forked.delay(0.2).then(note(log, "long"))

    run(make_host(workflow(lambda b: b.if_(True).do(block).then(note(log, "end")))))
    assert log == ["in", "short", "long", "end"]


@pytest.mark.parametrize(("flag", "taken"), [(True, "then"), (False, "else")])
def test_else_runs_when_the_condition_is_false(make_host: Hosts, flag: bool, taken: str) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(nothing)
            .if_(lambda data: data.flag)
            .do(lambda x: x.start_with(note(log, "then")))
            .else_()
            .do(lambda x: x.start_with(note(log, "else")))
            .then(note(log, "end"))
        )

    run(make_host(workflow(build)), {"flag": flag})
    assert log == [taken, "end"]


def test_a_while_is_evaluated_again_after_each_round(make_host: Hosts) -> None:
    log: list[Any] = []

    class Count(StepBody):
        counter = 0

        def run(self, context: StepExecutionContext) -> None:
            log.append("round")
            self.counter = log.count("round")

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(note(log, "begin"))
            .while_(lambda data: data.counter < 3)
            .do(
                lambda x: (
                    x.start_with(Count)
                    .output("counter", lambda step: step.counter)
                    .delay(0.05)
                    .then(note(log, "rested"))
                )
            )
            .then(note(log, "end"))
        )

    run(make_host(workflow(build)), {"counter": 0})
    assert log == ["begin", *["round", "rested"] * 3, "end"]


def test_a_while_that_is_false_at_once_runs_nothing(make_host: Hosts) -> None:
    log: list[str] = []
    block = note(log, "round")
    run(make_host(workflow(lambda b: b.while_(False).do(lambda x: x.then(block)).then(note(log, "end")))))
    assert log == ["end"]


# ------------------------------------------------------------------------------------------------ for_each


@pytest.mark.parametrize("run_parallel", [True, False])
def test_for_each_runs_its_block_once_per_item(make_host: Hosts, run_parallel: bool) -> None:
    items: list[int] = []
    log: list[Any] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(note(log, "begin"))
            .for_each(lambda data: data.numbers, run_parallel=run_parallel)
            .do(lambda x: x.start_with(note(items, lambda context: context.item)))
            .then(note(log, lambda context: len(items)))
        )

    run(make_host(workflow(build)), {"numbers": [2, 2, 3]})
    assert (sorted(items), log) == ([2, 2, 3], ["begin", 3])


@pytest.mark.parametrize("run_parallel", [True, False])
def test_an_empty_collection_goes_on_at_once(make_host: Hosts, run_parallel: bool) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        block = b.start_with(note(log, "begin")).for_each(lambda data: data.numbers, run_parallel)
        block.do(lambda x: x.start_with(note(log, "item"))).then(note(log, "end"))

    run(make_host(workflow(build)), {"numbers": []})
    assert log == ["begin", "end"]


def test_a_sequential_for_each_begins_an_item_when_the_one_before_has_ended(make_host: Hosts) -> None:
    log: list[Any] = []

    class Keep(StepBody):
        item: Any = None

        def run(self, context: StepExecutionContext) -> None:
            log.append(("end", self.item))

    def build(b: WorkflowBuilder) -> None:
        b.for_each([0.2, 0.01, 0.1], run_parallel=False).do(
            lambda x: (
                x.start_with(note(log, lambda context: ("begin", context.item)))
                .delay(lambda data, context: context.item)
                .then(Keep)
                .input("item", lambda data, context: context.execution_pointer.context_item)
                .output("last", lambda step: step.item)
            )
        )

    instance = run(make_host(workflow(build)))
    assert log == [(what, item) for item in (0.2, 0.01, 0.1) for what in ("begin", "end")]
    assert instance.data.last == 0.1


def test_items_of_a_parallel_for_each_begin_in_order_and_overlap(make_host: Hosts) -> None:
    log: list[int] = []
    barrier = threading.Barrier(4, timeout=20)

    def meet(context: StepExecutionContext) -> None:
        log.append(context.item)
        barrier.wait()

    run(make_host(workflow(lambda b: b.for_each([3, 1, 4, 2]).do(lambda x: x.start_with(meet)))))
    assert log == [3, 1, 4, 2]


def test_max_parallel_is_reached_and_never_exceeded(make_host: Hosts) -> None:
    peak = Peak()
    pairs = threading.Barrier(2, timeout=20)

    def body(context: StepExecutionContext) -> None:
        with peak:
            pairs.wait()
            context.cancellation.wait(0.1)

    run(make_host(workflow(lambda b: b.for_each(range(6), max_parallel=2).do(lambda x: x.start_with(body)))))
    assert peak.most == 2


def test_the_collection_is_evaluated_once_and_kept(make_host: Hosts) -> None:
    seen: list[int] = []
    evaluations: list[int] = []

    def rows(data: Any) -> list[int]:
        evaluations.append(1)
        return list(data.rows)

    def body(context: StepExecutionContext) -> None:
        seen.append(context.item)
        context.data.rows = []

    block = workflow(lambda b: b.for_each(rows, run_parallel=False).do(lambda x: x.start_with(body)))
    run(make_host(block), {"rows": [1, 2, 3]})
    assert (seen, evaluations) == ([1, 2, 3], [1])


def test_items_reach_conditions_and_outputs_inside_the_block(make_host: Hosts) -> None:
    class Add(StepBody):
        a = b = result = 0

        def run(self, context: StepExecutionContext) -> None:
            self.result = self.a + self.b

    def build(b: WorkflowBuilder) -> None:
        b.for_each(lambda data: data.numbers, run_parallel=False).do(
            lambda x: (
                x.start_with(Add)
                .input("a", lambda data: data.total)
                .input("b", lambda data, context: context.item)
                .output("total", lambda step: step.result)
                .if_(lambda data, context: context.item > 3)
                .do(
                    lambda y: (
                        y.start_with(Add)
                        .input("a", lambda data: data.large)
                        .input("b", 1)
                        .output("large", lambda step: step.result)
                    )
                )
            )
        )

    data = run(make_host(workflow(build)), {"numbers": [3, 4, 5], "total": 0, "large": 0}).data
    assert (data.total, data.large) == (12, 2)


# ------------------------------------------------------------------------------- parallel, attach and fork


def test_a_join_waits_for_all_branches(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(note(log, "begin"))
            .parallel()
            .do(lambda x: x.start_with(note(log, "1a")).then(note(log, "1b")))
            .do(lambda x: x.start_with(note(log, "2a")).wait_for("go", "0").then(note(log, "2b")))
            .do(lambda x: x.start_with(note(log, "3a")).then(note(log, "3b")))
            .join()
            .then(note(log, "end"))
        )

    host = make_host(workflow(build))
    instance_id = start(host)
    until_waiting(host, instance_id, "go")
    wait_for("the other branches have ended", lambda: {"1b", "3b"} <= set(log), 20)
    assert not {"2b", "end"} & set(log)
    host.publish_event("go", "0")
    finish(host, instance_id)
    assert log[-2:] == ["2b", "end"]
    assert sorted(log) == ["1a", "1b", "2a", "2b", "3a", "3b", "begin", "end"]


def test_a_gate_in_a_branch_does_not_hold_the_others(make_host: Hosts) -> None:
    gate, log = Gate(), list[str]()

    def build(b: WorkflowBuilder) -> None:
        branches = (
            b.parallel().do(lambda x: x.then(gate.run)).do(lambda x: x.delay(0.05).then(note(log, "x")))
        )
        branches.join().then(note(log, "end"))

    host = make_host(workflow(build))
    instance_id = start(host)
    wait_for("the other branch has ended", lambda: gate.begun.is_set() and log == ["x"], 20)
    gate.opened.set()
    finish(host, instance_id)
    assert log == ["x", "end"]


def test_attach_goes_back_to_a_step_out_of_a_block(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        first = b.start_with(note(log, "first")).id("first")
        first.if_(lambda data: log.count("first") < 4).do(
            lambda x: x.start_with(note(log, "again")).attach("first")
        )

    run(make_host(workflow(build)))
    assert (log.count("first"), log.count("again")) == (4, 3)


def test_attach_keeps_the_scope(make_host: Hosts) -> None:
    log: list[Any] = []

    def build(b: WorkflowBuilder) -> None:
        def block(x: WorkflowBuilder) -> None:
            see = x.start_with(note(log, lambda context: context.item)).id("see")
            see.if_(lambda data, context: log.count(context.item) < 2).do(
                lambda y: y.start_with(nothing).attach("see")
            )

        b.for_each([1, 2], run_parallel=False).do(block).then(note(log, "end"))

    run(make_host(workflow(build)))
    assert log == [1, 1, 2, 2, "end"]


def test_then_twice_on_a_step_forks(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(note(log, "begin"))
        step.then(note(log, "left"))
        step.delay(0.1).then(note(log, "right"))

    run(make_host(workflow(build)))
    assert log == ["begin", "left", "right"]
