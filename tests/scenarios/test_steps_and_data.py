"""Steps in all their forms, and how data goes in and out of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from scenarios.helpers import (
    Hosts,
    note,
    nothing,
    pointers,
    run,
    start,
    until,
    workflow,
)

from liteflow import core
from liteflow.core import (
    ExecutionResult,
    StepBody,
    StepExecutionContext,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowStatus,
)


class Add(StepBody):
    a = b = result = 0

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        self.result = self.a + self.b
        return ExecutionResult.next()


# --------------------------------------------------------------------------------------------------- steps


def test_each_step_runs_once_in_order(make_host: Hosts) -> None:
    log: list[str] = []

    class First(StepBody):
        def run(self, context: StepExecutionContext) -> ExecutionResult:
            log.append("class")
            return ExecutionResult.next()

    class Silent(StepBody):
        def run(self, context: StepExecutionContext) -> None:
            log.append("returns nothing")

    def function(context: StepExecutionContext) -> str:
        log.append("function")
        return "not a result"

    run(
        make_host(
            workflow(lambda b: b.start_with(First).then(Silent).then(function).then(note(log, "lambda")))
        )
    )
    assert log == ["class", "returns nothing", "function", "lambda"]


def test_async_bodies_are_awaited_in_both_forms(make_host: Hosts) -> None:
    log: list[str] = []

    class Later(StepBody):
        result = ""

        async def run(self, context: StepExecutionContext) -> ExecutionResult:  # type: ignore[override]
            await asyncio.sleep(0.01)
            self.result = "from a class"
            return ExecutionResult.next()

    async def function(context: StepExecutionContext) -> None:
        await asyncio.sleep(0.01)
        log.append(context.data.text)

    run(
        make_host(
            workflow(lambda b: b.start_with(Later).output("text", lambda step: step.result).then(function))
        )
    )
    assert log == ["from a class"]


def test_a_decorated_function_takes_inputs_and_gives_its_result(make_host: Hosts) -> None:
    @core.step
    def add(a: int, b: int, c: int = 10) -> int:
        return a + b + c

    @core.step
    async def double(n: int) -> int:
        await asyncio.sleep(0.01)
        return 2 * n

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(nothing)
            .then(add)
            .input("a", 1)
            .input("b", lambda data: data.n)
            .output("total", lambda s: s.result)
            .then(double)
            .input("n", lambda data, context: data.total)
            .output("twice", lambda s: s.result)
        )

    data = run(make_host(workflow(build)), {"n": 2}).data
    assert (data.total, data.twice) == (13, 26)


def test_a_decorated_function_that_lacks_an_input_fails_its_step(make_host: Hosts) -> None:
    @core.step
    def add(a: int, b: int) -> int:
        return a + b

    host = make_host(
        workflow(lambda b: b.then(add).input("a", 1).on_error(WorkflowErrorHandling.TERMINATE).then(nothing))
    )
    instance_id = start(host)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    assert "b" in host.get_errors(instance_id)[0].message


def test_each_execution_gets_a_body_of_its_own(make_host: Hosts) -> None:
    counts: list[int] = []

    class Counts(StepBody):
        def __init__(self) -> None:
            self.runs = 0

        def run(self, context: StepExecutionContext) -> None:
            self.runs += 1
            counts.append(self.runs)

    run(make_host(workflow(lambda b: b.for_each([1, 2, 3]).do(lambda x: x.start_with(Counts)))))
    assert counts == [1, 1, 1]


def test_a_step_is_called_again_with_what_it_persisted(make_host: Hosts) -> None:
    seen: list[Any] = []

    def body(context: StepExecutionContext) -> ExecutionResult:
        seen.append(context.persistence_data)
        number = (context.persistence_data or {"n": 0})["n"]
        return ExecutionResult.next() if number == 2 else ExecutionResult.persist({"n": number + 1})

    run(make_host(workflow(lambda b: b.start_with(body))))
    assert seen == [None, {"n": 1}, {"n": 2}]


def test_a_step_that_sleeps_is_called_again_when_the_time_is_over(make_host: Hosts) -> None:
    seen: list[Any] = []

    def body(context: StepExecutionContext) -> ExecutionResult:
        seen.append(context.persistence_data)
        rest = timedelta(seconds=0.2)
        return ExecutionResult.next() if context.persistence_data else ExecutionResult.sleep(rest, "slept")

    instance = run(make_host(workflow(lambda b: b.start_with(body))))
    assert seen == [None, "slept"]
    assert instance.complete_time is not None
    assert instance.complete_time - instance.create_time >= timedelta(seconds=0.2)


def test_an_outcome_is_kept_with_its_pointer(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.start_with(lambda c: ExecutionResult.outcome([1, "x"])).id("a")))
    assert pointers(host, run(host).id, "a")[0].outcome == [1, "x"]


def test_the_idempotency_key_names_the_activation_over_its_runs(make_host: Hosts) -> None:
    keys: list[str] = []
    attempts: list[int] = []

    def body(context: StepExecutionContext) -> None:
        keys.append(context.idempotency_key)
        attempts.append(context.attempt)
        if len(keys) == 1:
            raise RuntimeError("boom")

    def build(b: WorkflowBuilder) -> None:
        b.start_with(body).on_error(WorkflowErrorHandling.RETRY, 0.05).then(body)

    run(make_host(workflow(build)))
    assert attempts == [1, 2, 1]
    assert keys[0] == keys[1] != keys[2]


# ------------------------------------------------------------------------------------- inputs and outputs


def test_inputs_are_attributes_constants_or_an_action(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        def both(step: Any, data: Any) -> None:
            step.a, step.b = data.x, data.y

        (
            b.start_with(Add)
            .input("a", lambda data: data.x)
            .input("b", lambda data, context: data.y + len(context.workflow.id) * 0)
            .output("first", lambda step: step.result)
            .then(Add)
            .input("a", 40)
            .input("b", 2)
            .output("second", lambda step: step.result)
            .then(Add)
            .input(both)
            .output(lambda step, data: setattr(data, "third", step.result))
        )

    data = run(make_host(workflow(build)), {"x": 2, "y": 3}).data
    assert (data.first, data.second, data.third) == (5, 42, 5)


def test_inputs_are_evaluated_at_each_execution(make_host: Hosts) -> None:
    seen: list[int] = []

    class Look(StepBody):
        n = 0

        def run(self, context: StepExecutionContext) -> ExecutionResult:
            seen.append(self.n)
            context.data.n += 1
            return ExecutionResult.next() if self.n == 2 else ExecutionResult.persist("again")

    run(make_host(workflow(lambda b: b.start_with(Look).input("n", lambda data: data.n))), {"n": 0})
    assert seen == [0, 1, 2]


def test_outputs_are_applied_in_order_and_only_when_the_step_proceeds(make_host: Hosts) -> None:
    applied: list[str] = []

    class Twice(StepBody):
        def run(self, context: StepExecutionContext) -> ExecutionResult:
            proceed = context.persistence_data is not None
            return ExecutionResult.next() if proceed else ExecutionResult.persist("once")

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(Twice)
            .output("first", lambda step: applied.append("first") or 1)
            .output(lambda step, data: setattr(data, "second", data.first + 1))
            .output("third", lambda step: applied.append("third") or 3)
        )

    data = run(make_host(workflow(build))).data
    assert (data.first, data.second, data.third) == (1, 2, 3)
    assert applied == ["first", "third"]


def test_dotted_names_reach_into_nested_data(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(Add).input("a", lambda data: data.order["a"]).input("b", 1)
        step.output("order.sums.total", lambda step: step.result)

    data = run(make_host(workflow(build)), {"order": {"a": 1, "sums": {"total": 0, "kept": True}}}).data
    assert data.order == {"a": 1, "sums": {"total": 2, "kept": True}}
