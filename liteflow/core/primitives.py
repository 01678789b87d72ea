"""The bodies behind the control-flow verbs. Inputs are set by the builder, as on any other body."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from liteflow.core.result import ExecutionResult
from liteflow.core.steps import StepBody, StepExecutionContext

DEFAULT_WINDOW = 64
"""How many items of a for_each are open at a time, so that a long collection never fills the document."""


class If(StepBody):
    """Runs its block once if `condition` is true. Serves `while_` too, whose body runs after each round."""

    condition: Any = False

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        if self.condition:
            return ExecutionResult.branch([context.item])
        return ExecutionResult.next()


class ForEach(StepBody):
    """Runs its block for each of `collection`, at most `window` items at a time."""

    collection: Iterable[Any] = ()
    window: int = DEFAULT_WINDOW

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        return ExecutionResult.each(self.collection, self.window)


class Parallel(StepBody):
    """Runs all its blocks."""

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        return ExecutionResult.branch([context.item])


class Delay(StepBody):
    """Sleeps once for `duration`."""

    duration: timedelta | float = 0

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        if context.persistence_data is None:
            return ExecutionResult.sleep(self.duration, True)
        return ExecutionResult.next()


class WaitFor(StepBody):
    """Waits for an event; then `event_data` is what it carried."""

    event_name: Any = ""
    event_key: Any = ""
    effective_date: datetime | None = None
    event_data: Any = None

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        pointer = context.execution_pointer
        if not pointer.event_published:
            return ExecutionResult.wait_for_event(self.event_name, self.event_key, self.effective_date)
        self.event_data = pointer.event_data
        return ExecutionResult.next()
