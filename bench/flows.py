"""The workflows that are measured."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from liteflow.core import ExecutionResult, StepExecutionContext, Workflow, WorkflowBuilder

BRANCH = 0.3
"""Seconds of a branch."""

_LOG: int | None = None


def note(context: StepExecutionContext) -> None:
    """Append which instance, when, and the process's CPU time, to the benchmark's log: one write a line."""
    global _LOG
    now, used = time.time_ns(), time.process_time_ns()
    if _LOG is None:
        _LOG = os.open(os.environ["LITEFLOW_BENCH_LOG"], os.O_WRONLY | os.O_APPEND)
    os.write(_LOG, f"{context.workflow.id} {now} {used}\n".encode())


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


class Napper(Workflow):
    """Sleeps as many seconds as its data says, and leaves in it by how many milliseconds it was late."""

    id = "napper"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(nap_and_tell)


def nap_and_tell(context: StepExecutionContext) -> ExecutionResult:
    if context.persistence_data is None:
        return ExecutionResult.sleep(context.data.seconds, True)
    due = context.execution_pointer.sleep_until
    assert due is not None
    context.data.late = (context.now - due).total_seconds() * 1000
    return ExecutionResult.next()


class SyncBranches(Workflow):
    """Three branches that wait side by side."""

    id = "sync-branches"

    def build(self, builder: WorkflowBuilder) -> None:
        _side_by_side(builder, lambda context: time.sleep(BRANCH))


class AsyncBranches(Workflow):
    """The same with bodies that are coroutines."""

    id = "async-branches"

    def build(self, builder: WorkflowBuilder) -> None:
        async def body(context: StepExecutionContext) -> None:
            await asyncio.sleep(BRANCH)

        _side_by_side(builder, body)


def _side_by_side(builder: WorkflowBuilder, body: Callable[[StepExecutionContext], object]) -> None:
    section = builder.parallel()
    for _ in range(3):
        section = section.do(lambda b: b.then(body))
    section.join()


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


class Steps(Workflow):
    """Short steps, until it is ended."""

    id = "steps"

    def build(self, builder: WorkflowBuilder) -> None:
        def short(context: StepExecutionContext) -> None:
            note(context)
            time.sleep(0.02)

        builder.while_(lambda data: True).do(lambda b: b.then(short))


class Hour(Workflow):
    """A step of an hour that notes its begin, and when it is told to end."""

    id = "hour"

    def build(self, builder: WorkflowBuilder) -> None:
        def long(context: StepExecutionContext) -> None:
            note(context)
            context.cancellation.wait(3600)
            note(context)

        builder.start_with(long)


chains: list[Workflow] = [Chain()]
one: list[Workflow] = [OneStep()]
blocked: list[Workflow] = [Waiter(), Sleeper()]
nappers: list[Workflow] = [Napper()]
loops: list[Workflow] = [Loop(), Each()]
branches: list[Workflow] = [SyncBranches(), AsyncBranches()]
busy: list[Workflow] = [Steps(), Hour()]
ALL = [*chains, *one, *blocked, *nappers, *loops, *branches, *busy]
"""What the names on a worker's command line stand for, and all of them."""
