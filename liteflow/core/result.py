"""What a step's body returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


def as_duration(value: timedelta | float) -> timedelta:
    """A duration as the API takes it: a `timedelta`, or a number of seconds."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"a duration is a timedelta or a number of seconds, not {value!r}")
    return timedelta(seconds=value)


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """Tells the engine how to go on after a body has run. Built by the named constructors.

    With `proceed` the step has ended with `outcome_value`. Without it the step is called again: after
    `sleep_for`, when its `branch_values` children have ended, when the event of `event_name` and
    `event_key` has come, or at once if there is none of these; then `context.persistence_data` is what
    was given here.
    """

    proceed: bool = False
    outcome_value: Any = None
    persistence_data: Any = None
    sleep_for: timedelta | None = None
    branch_values: tuple[Any, ...] | None = None
    item_window: int | None = None
    event_name: str | None = None
    event_key: str | None = None
    event_since: datetime | None = None

    @staticmethod
    def next() -> ExecutionResult:
        """The step is done; go on."""
        return ExecutionResult(proceed=True)

    @staticmethod
    def outcome(value: Any) -> ExecutionResult:
        """The step is done; go on along the outcomes that match `value`."""
        return ExecutionResult(proceed=True, outcome_value=value)

    @staticmethod
    def persist(data: Any) -> ExecutionResult:
        """Store `data` and call the step again, with it in `context.persistence_data`."""
        return ExecutionResult(persistence_data=data)

    @staticmethod
    def sleep(duration: timedelta | float, data: Any = None) -> ExecutionResult:
        """Call the step again after `duration`, with `data` in `context.persistence_data`.

        Nothing is held meanwhile: no thread, no lease, no message.
        """
        return ExecutionResult(sleep_for=as_duration(duration), persistence_data=data)

    @staticmethod
    def branch(values: Iterable[Any], data: Any = None) -> ExecutionResult:
        """Run the step's block once for each of `values` (in `context.item`), then call the step again."""
        return ExecutionResult(branch_values=tuple(values), persistence_data=data)

    @staticmethod
    def each(values: Iterable[Any], window: int) -> ExecutionResult:
        """Run the step's block for each of `values`, `window` of them open at a time; then go on.

        The values are stored once; what `for_each` returns.
        """
        return ExecutionResult(branch_values=tuple(values), item_window=window)

    @staticmethod
    def wait_for_event(
        name: str, key: object, effective_date: datetime | None = None, data: Any = None
    ) -> ExecutionResult:
        """Call the step again when an event of `name` and `key`, not older than `effective_date`, is there.

        The default is the moment the step began to wait. The event's data is in
        `context.execution_pointer.event_data` then.
        """
        if effective_date is not None and effective_date.tzinfo is None:
            raise ValueError("effective_date has no time zone; use datetime.now(timezone.utc) and the like")
        return ExecutionResult(
            event_name=str(name), event_key=str(key), event_since=effective_date, persistence_data=data
        )
