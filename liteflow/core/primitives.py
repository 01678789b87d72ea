"""The bodies behind the control-flow verbs. Inputs are set by the builder, as on any other body."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from liteflow.core import codec
from liteflow.core.errors import ActivityFailedError, ChildWorkflowError
from liteflow.core.result import ChildRequest, ExecutionResult, as_duration
from liteflow.core.steps import StepBody, StepExecutionContext

DEFAULT_WINDOW = 64
"""How many items of a for_each are open at a time, so that a long collection never fills the document."""

Case = Callable[[Any, codec.Plain, StepExecutionContext], bool]
"""``(data, outcome, context)``: does this branch run? The outcome is encoded."""


class If(StepBody):
    """Runs its first block once if `condition` is true, else its second one if it has one.

    Serves `while_` too, whose body runs after each round.
    """

    condition: Any = False

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        if self.condition:
            return ExecutionResult.branch_into([0], context.item)
        if len(context.step.blocks) > 1:
            return ExecutionResult.branch_into([1], context.item)
        return ExecutionResult.next()


class ForEach(StepBody):
    """Runs its block for each of `collection`, at most `window` items at a time."""

    collection: Iterable[Any] = ()
    window: int = DEFAULT_WINDOW

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        return ExecutionResult.each(self.collection, self.window)


class Block(StepBody):
    """Runs all its blocks, once."""

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        return ExecutionResult.branch([context.item])


class Switch(StepBody):
    """Runs the blocks whose cases hold, or else the block of number `default`.

    `decide` gives the `value` that is compared; without it that is the outcome of the step before.
    """

    value: Any = None

    def __init__(self, cases: Sequence[Case], default: int | None, decides: bool) -> None:
        self.cases = cases
        self.default = default
        self.decides = decides

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        outcome = codec.encode(self.value if self.decides else context.execution_pointer.outcome, "outcome")
        chosen = [index for index, case in enumerate(self.cases) if case(context.data, outcome, context)]
        if not chosen and self.default is not None:
            chosen = [self.default]
        return ExecutionResult.branch_into(chosen, context.item) if chosen else ExecutionResult.next()


class Delay(StepBody):
    """Sleeps once for `duration`."""

    duration: timedelta | float = 0

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        if context.persistence_data is None:
            return ExecutionResult.sleep(self.duration, True)
        return ExecutionResult.next()


class Schedule(StepBody):
    """Sleeps once for `duration`, then runs its block."""

    duration: timedelta | float = 0

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        if context.persistence_data is None:
            return ExecutionResult.sleep(self.duration, True)
        return ExecutionResult.branch([context.item], True)


class Recur(StepBody):
    """Runs its block now and then every `interval`, one round after the other, until `until` holds.

    What it remembers is when the next round is due.
    """

    interval: timedelta | float = 0
    until: Any = False

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        if self.until:
            return ExecutionResult.next()
        due: datetime | None = context.persistence_data
        if due is not None and context.now < due:
            return ExecutionResult.sleep(due - context.now, due)
        interval = as_duration(self.interval)
        # Rounds keep their pace, but those that a long one has swallowed are not made up for.
        begins = due if due is not None and context.now - due < interval else context.now
        return ExecutionResult.branch([context.item], begins + interval)


class WaitFor(StepBody):
    """Waits for an event; then `event_data` is what it carried. `timed_out` tells that none came in time."""

    event_name: Any = ""
    event_key: Any = ""
    effective_date: datetime | None = None
    timeout: timedelta | float | None = None
    event_data: Any = None
    timed_out: bool = False

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        pointer = context.execution_pointer
        if pointer.event_published:
            self.event_data = pointer.event_data
            return ExecutionResult.next()
        if pointer.timed_out:
            self.timed_out = True
            return _after_timeout(context)
        return ExecutionResult.wait_for_event(
            self.event_name, self.event_key, self.effective_date, timeout=self.timeout
        )


class Activity(StepBody):
    """Offers an activity and waits for it; then `result` is what came back."""

    activity_name: Any = ""
    parameters: Any = None
    effective_date: datetime | None = None
    timeout: timedelta | float | None = None
    result: Any = None
    timed_out: bool = False

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        pointer = context.execution_pointer
        if pointer.event_published:
            answer = pointer.event_data
            if "error" in answer:
                raise ActivityFailedError(str(answer["error"]))
            self.result = answer["result"]
            return ExecutionResult.next()
        if pointer.timed_out:
            self.timed_out = True
            return _after_timeout(context)
        return ExecutionResult.wait_for_activity(
            self.activity_name, self.parameters, self.effective_date, timeout=self.timeout
        )


def _after_timeout(context: StepExecutionContext) -> ExecutionResult:
    if context.step.blocks:
        return ExecutionResult.branch_into([0], context.item)
    return ExecutionResult.next()


class StartChild(StepBody):
    """Starts a workflow as a child and, with `wait`, ends when that has; then `data` is the child's.

    `child_id` is its id. Each attempt of the step starts a child of its own: one is started only after
    its id was committed, so it may be any.
    """

    workflow: str = ""
    version: int | None = None
    child_data: Any = None
    wait: bool = True
    data: Any = None

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        pointer = context.execution_pointer
        self.child_id = pointer.event_key or ""
        if not pointer.event_published:
            self.child_id = str(uuid.uuid4())
            data = codec.encode_data(self.child_data)
            request = ChildRequest(self.child_id, self.workflow, self.version, data)
            return ExecutionResult.start_child(request, wait=self.wait)
        answer = pointer.event_data
        if answer["status"] != "COMPLETE":
            raise ChildWorkflowError(f"child {self.child_id}: {answer['reason'] or answer['status']}")
        self.data = answer["data"]
        return ExecutionResult.next()


AFRESH = (ActivityFailedError, ChildWorkflowError)
"""After these errors the next attempt waits anew, instead of going on with what this one had got."""
