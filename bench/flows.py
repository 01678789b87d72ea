"""The workflows that are measured."""

from __future__ import annotations

import os
import time

from liteflow.core import ExecutionResult, StepExecutionContext, Workflow, WorkflowBuilder

_LOG: int | None = None


def note(context: StepExecutionContext) -> None:
    """Append which instance, and when, to the benchmark's log: one write for each line."""
    global _LOG
    now = time.time_ns()
    if _LOG is None:
        _LOG = os.open(os.environ["LITEFLOW_BENCH_LOG"], os.O_WRONLY | os.O_APPEND)
    os.write(_LOG, f"{context.workflow.id} {now}\n".encode())


def nothing(context: StepExecutionContext) -> None:
    """A step that does nothing, so that only the engine is measured."""


class OneStep(Workflow):
    id = "one"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(nothing)


class Chain(Workflow):
    id = "chain"

    def build(self, builder: WorkflowBuilder) -> None:
        steps = builder.start_with(nothing)
        for _ in range(9):
            steps = steps.then(nothing)


class Waiter(Workflow):
    """Waits for the event ``go`` with the key in its data."""

    id = "waiter"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(nothing).wait_for("go", lambda data: data.key).then(note)


class Sleeper(Workflow):
    """Sleeps as many seconds as its data says."""

    id = "sleeper"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(nap).then(note)


def nap(context: StepExecutionContext) -> ExecutionResult:
    if context.persistence_data is None:
        return ExecutionResult.sleep(context.data.seconds, True)
    return ExecutionResult.next()


class Loop(Workflow):
    """Counts to `count`."""

    id = "loop"

    def build(self, builder: WorkflowBuilder) -> None:
        def count(context: StepExecutionContext) -> None:
            note(context)
            context.data.round += 1

        builder.while_(lambda data: data.round < data.count).do(lambda b: b.then(count))


class Each(Workflow):
    """Goes through `count` items."""

    id = "each"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.for_each(lambda data: range(data.count)).do(lambda b: b.then(note))


ALL = [OneStep, Chain, Waiter, Sleeper, Loop, Each]
chains = [Chain]
one = [OneStep]
waiters = [Waiter]
sleepers = [Sleeper]
loops = [Loop, Each]
everything = ALL
