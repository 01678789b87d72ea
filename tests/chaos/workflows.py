"""The workflows of a chaos run. Each step writes to the history, and names its run in the data.

The name is stored by the commit of the run's result: so the data tells which run of a step counted.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from chaos.history import FOLDER, History

from liteflow.core import (
    ExecutionResult,
    RetryPolicy,
    StepBody,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
)

RAN = "ran_"
"""So begins the name of the attribute with the run that counted: then pointer and step."""

_history: History | None = None


def history() -> History:
    global _history
    if _history is None:
        _history = History.of_environment()
    return _history


if FOLDER in os.environ:
    history().note_gaps()


class Declined(Exception):
    """What steps fail with on purpose."""


def counts(context: StepExecutionContext, run: str) -> None:
    """Have this run's name stored with its result."""
    setattr(context.data, f"{RAN}{context.execution_pointer.id}_{context.step.id}", run)


class Work(StepBody):
    """A step that takes `seconds`, and fails as long as `fails` holds."""

    seconds: float = 0.0
    fails: bool = False

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        run = history().begin(context)
        if self.seconds:
            context.cancellation.wait(self.seconds)
        if self.fails:
            raise Declined("on purpose")
        counts(context, run)
        history().end(run)
        return ExecutionResult.next()


class Round(Work):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        context.data.rounds += 1
        return super().run(context)


class Nap(StepBody):
    """A re-entrant step that sleeps for ``data.seconds`` between its two parts."""

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        if context.persistence_data is None:
            run = history().begin(context, seconds=context.data.seconds)
            history().end(run)
            return ExecutionResult.sleep(context.data.seconds, {"run": run})
        due = context.execution_pointer.sleep_until  # who takes over a claimed body is not told any more
        more = {} if due is None else {"due": due.timestamp()}
        run = history().begin(context, part=2, after=context.persistence_data["run"], **more)
        counts(context, run)
        history().end(run)
        return ExecutionResult.next()


class Chain(Workflow):
    id = "chain"

    def build(self, builder: WorkflowBuilder) -> None:
        again = RetryPolicy(max_attempts=5, interval=0.3)
        step = builder.start_with(Work).id("a").then(Work).id("b").input("seconds", 0.02)
        (
            step.then(Work)
            .id("flaky")
            .input("fails", lambda data, context: context.attempt == 1)
            .on_error(WorkflowErrorHandling.RETRY, again)
            .then(Work)
            .id("c")
            .then(Work)
            .id("d")
        )


class Loop(Workflow):
    id = "loop"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.while_(lambda data: data.rounds < 4)
            .do(lambda b: b.start_with(Round).id("round").then(Work).id("inner"))
            .then(Work)
            .id("after")
        )


class Lines(Workflow):
    id = "lines"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.for_each(lambda data: data.lines)
            .do(lambda b: b.start_with(Work).id("pack").input("seconds", 0.01).then(Work).id("label"))
            .then(Work)
            .id("after")
        )


class Branches(Workflow):
    """Side by side: short steps and long ones, which run under claims."""

    id = "branches"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.parallel()
            .do(lambda b: b.start_with(Work).id("left").then(Work).id("left_2"))
            .do(lambda b: b.start_with(Work).id("long").input("seconds", lambda data: data.seconds))
            .do(lambda b: b.start_with(Work).id("right").input("seconds", 0.2).then(Work).id("right_2"))
            .join()
            .then(Work)
            .id("after")
        )


def began(data: Any) -> datetime:
    return datetime.fromisoformat(data.began)


class Readings(Workflow):
    """Takes each event of a burst, one after another."""

    id = "readings"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.while_(lambda data: len(data.readings) < data.count)
            .do(
                lambda b: (
                    b.wait_for("reading", lambda data: data.key, effective_date=began)
                    .output(lambda step, data: data.readings.append(step.event_data))
                    .then(Work)
                    .id("taken")
                )
            )
            .then(Work)
            .id("after")
        )


class Timer(Workflow):
    id = "timer"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.start_with(Nap)
            .id("nap")
            .delay(lambda data: data.seconds / 2)
            .then(Nap)
            .id("second_nap")
            .then(Work)
            .id("after")
        )


class Booking(Workflow):
    """A saga; its third step fails if the data says so."""

    id = "booking"

    def build(self, builder: WorkflowBuilder) -> None:
        def block(b: WorkflowBuilder) -> None:
            (
                b.start_with(Work)
                .id("hotel")
                .compensate_with(Work, lambda undo: undo.id("undo_hotel"))
                .then(Work)
                .id("flight")
                .input("seconds", 0.1)
                .compensate_with(Work, lambda undo: undo.id("undo_flight"))
                .then(Work)
                .id("car")
                .input("fails", lambda data: data.fails)
                .compensate_with(Work, lambda undo: undo.id("undo_car").input("seconds", 0.1))
            )

        builder.start_with(Work).id("before").saga(block).then(Work).id("after")


class Translation(Workflow):
    id = "translation"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.activity("translate", lambda data: {"number": data.number})
            .output("answer", lambda step: step.result)
            .then(Work)
            .id("after")
        )


class Steered(Workflow):
    """Runs for a while, to be suspended, resumed and terminated meanwhile."""

    id = "steered"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.while_(lambda data: data.rounds < 6)
            .do(lambda b: b.start_with(Round).id("round").input("seconds", 0.15).delay(0.4))
            .then(Work)
            .id("after")
        )


class Child(Workflow):
    id = "child"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(Work).id("child_a").delay(0.3).then(Work).id("child_b")


class Parent(Workflow):
    id = "parent"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.start_with(Work)
            .id("before")
            .start_child("child", data=lambda data: {"number": data.number})
            .output("answer", lambda step: step.data.number)
            .then(Work)
            .id("after")
        )


def expected_steps(workflow: str, data: dict[str, Any]) -> dict[str, int]:
    """How often each step of a completed instance has ended, given the data that it has."""
    once = lambda *steps: dict.fromkeys(steps, 1)  # noqa: E731
    if workflow == "booking":
        undone = ("undo_car", "undo_flight", "undo_hotel") if data["fails"] else ("car",)
        return once("before", "hotel", "flight", *undone, "after")
    return {
        "chain": once("a", "b", "flaky", "c", "d"),
        "loop": {"round": 4, "inner": 4, "after": 1},
        "lines": {"pack": len(data.get("lines", ())), "label": len(data.get("lines", ())), "after": 1},
        "branches": once("left", "left_2", "long", "right", "right_2", "after"),
        "readings": {"taken": data.get("count", 0), "after": 1},
        "timer": once("nap", "second_nap", "after"),
        "translation": once("after"),
        "steered": {"round": 6, "after": 1},
        "child": once("child_a", "child_b"),
        "parent": once("before", "after"),
    }[workflow]
