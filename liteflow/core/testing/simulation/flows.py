"""Small workflows that together use every rule of the engine."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from liteflow.core.builder import WorkflowBuilder
from liteflow.core.result import ExecutionResult
from liteflow.core.retry import RetryPolicy, WorkflowErrorHandling
from liteflow.core.steps import StepExecutionContext
from liteflow.core.workflow import Workflow

LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
"""The effective date of waits that take events from before the instance began."""


def nothing(context: StepExecutionContext) -> None:
    """A step that only has to be run."""


def count(context: StepExecutionContext) -> None:
    """Counts its runs in the data."""
    context.data.count = getattr(context.data, "count", 0) + 1


class Chain(Workflow):
    """Steps one after another, each of which counts."""

    id = "chain"

    def build(self, builder: WorkflowBuilder) -> None:
        """Five steps."""
        chain = builder.start_with(count).id("1")
        for number in range(2, 6):
            chain = chain.then(count).id(str(number))


class Rounds(Workflow):
    """A loop."""

    id = "rounds"

    def build(self, builder: WorkflowBuilder) -> None:
        """Three rounds, and an end."""
        (
            builder.start_with(count)
            .while_(lambda data: data.count < 4)
            .do(lambda block: block.start_with(count).id("round"))
            .then(nothing)
            .id("end")
        )


class Each(Workflow):
    """A for_each, side by side or one after another."""

    id = "each"

    def build(self, builder: WorkflowBuilder) -> None:
        """Three items, two of them at a time, then two in turn."""
        (
            builder.start_with(nothing)
            .for_each(lambda data: [1, 2, 3], max_parallel=2)
            .do(lambda block: block.start_with(nothing).id("item"))
            .for_each(lambda data: [1, 2], run_parallel=False)
            .do(lambda block: block.start_with(nothing).id("turn").then(nothing))
            .then(nothing)
            .id("end")
        )


class Branches(Workflow):
    """Parallel branches, of which one sleeps and one waits."""

    id = "branches"

    def build(self, builder: WorkflowBuilder) -> None:
        """Three branches, joined."""
        (
            builder.start_with(nothing)
            .parallel()
            .do(lambda b: b.start_with(nothing).id("a").then(nothing).id("a2"))
            .do(lambda b: b.start_with(nothing).id("b").delay(0.5).then(nothing).id("b2"))
            .do(
                lambda b: b.start_with(nothing).id("c")
                .wait_for("branch", lambda data, context: context.workflow.reference or "r", LONG_AGO)
                .then(nothing).id("c2")
            )
            .join()
            .then(nothing)
            .id("end")
        )  # fmt: skip


class Waits(Workflow):
    """A wait for one event, then for those that come while it is at it."""

    id = "waits"

    def build(self, builder: WorkflowBuilder) -> None:
        """One wait, a step, and another wait with a time-out."""
        (
            builder.start_with(nothing)
            .wait_for("go", lambda data: data.key, LONG_AGO)
            .output("first", lambda step: step.event_data)
            .then(nothing).id("between")
            .wait_for("more", lambda data: data.key, LONG_AGO)
            .output("second", lambda step: step.event_data)
            .then(nothing).id("end")
        )  # fmt: skip


class Burst(Workflow):
    """Takes every event of a burst once."""

    id = "burst"

    def build(self, builder: WorkflowBuilder) -> None:
        """Four rounds of one wait."""

        def keep(step: Any, data: Any) -> None:
            data.got = [*getattr(data, "got", []), step.event_data]

        (
            builder.start_with(nothing)
            .while_(lambda data: len(getattr(data, "got", [])) < 4)
            .do(lambda block: block.wait_for("burst", "k", LONG_AGO).output(keep))
            .then(nothing).id("end")
        )  # fmt: skip


class FromNowOn(Workflow):
    """A wait that only takes what is published after it has begun, with a time-out."""

    id = "from-now-on"

    def build(self, builder: WorkflowBuilder) -> None:
        """A wait that times out, or does not."""
        (
            builder.start_with(nothing)
            .wait_for("tick", "k", timeout=3.0)
            .then(nothing).id("end")
        )  # fmt: skip


class Sleeps(Workflow):
    """Timers: a delay, a step that sleeps by itself, a schedule beside the main path, a retry's pause."""

    id = "sleeps"

    def build(self, builder: WorkflowBuilder) -> None:
        """Some sleeps, short and long."""

        def again(context: StepExecutionContext) -> ExecutionResult:
            done = context.persistence_data or 0
            return ExecutionResult.next() if done == 2 else ExecutionResult.sleep(0.3, done + 1)

        def second(context: StepExecutionContext) -> None:
            if context.attempt == 1:
                raise ValueError("the first attempt fails")

        retry = RetryPolicy(max_attempts=3, interval=0.4)
        (
            builder.start_with(nothing)
            .schedule(1.0).do(lambda block: block.start_with(nothing).id("later"))
            .delay(0.01)
            .then(again).id("again")
            .then(second).id("second").on_error(WorkflowErrorHandling.RETRY, retry)
            .delay(5.0)
            .then(nothing).id("end")
        )  # fmt: skip


class Trip(Workflow):
    """A saga of which the last step fails, so that the others are undone."""

    id = "trip"

    def build(self, builder: WorkflowBuilder) -> None:
        """Two steps with compensations, and one that fails."""

        def fails(context: StepExecutionContext) -> None:
            raise ValueError("no room")

        (
            builder.start_with(nothing)
            .saga(
                lambda b: b.start_with(nothing).id("flight").compensate_with(nothing)
                .then(nothing).id("hotel").compensate_with(nothing)
                .then(fails).id("car")
            )
            .on_error(WorkflowErrorHandling.COMPENSATE)
            .then(nothing).id("end")
        )  # fmt: skip


class Asks(Workflow):
    """An activity: work for somebody outside."""

    id = "asks"

    def build(self, builder: WorkflowBuilder) -> None:
        """One activity whose result is kept."""
        (
            builder.start_with(nothing)
            .activity("approve", lambda data: 20)
            .output("answer", lambda step: step.result)
            .then(nothing).id("end")
        )  # fmt: skip


class Child(Workflow):
    """What `Parent` starts."""

    id = "child"

    def build(self, builder: WorkflowBuilder) -> None:
        """Two steps."""
        builder.start_with(count).then(count)


class Parent(Workflow):
    """A workflow that waits for another one."""

    id = "parent"

    def build(self, builder: WorkflowBuilder) -> None:
        """A child, and what follows its end."""
        (
            builder.start_with(nothing)
            .start_child("child").output("count", lambda step: step.data.count)
            .then(nothing).id("end")
        )  # fmt: skip
