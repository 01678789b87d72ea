"""What a step's body returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
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
class ChildRequest:
    """A workflow to start as a child, under an id that the same attempt gives it again; `data` is encoded."""

    id: str
    workflow: str
    version: int | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """Tells the engine how to go on after a body has run. Built by the named constructors.

    With `proceed` the step has ended with `outcome_value`. Without it the step is called again: after
    `sleep_for`, when its `branch_values` children have ended, when the event of `event_name` and
    `event_key` has come or the wait's `timeout` is over, when the activity `activity_name` or the `child`
    has ended, or at once if there is none of these; then `context.persistence_data` is what was given
    here. `blocks` are the blocks that branching begins; None for all.
    """

    proceed: bool = False
    outcome_value: Any = None
    persistence_data: Any = None
    sleep_for: timedelta | None = None
    branch_values: tuple[Any, ...] | None = None
    blocks: tuple[int, ...] | None = None
    item_window: int | None = None
    event_name: str | None = None
    event_key: str | None = None
    event_since: datetime | None = None
    timeout: timedelta | None = None
    activity_name: str | None = None
    activity_parameters: Any = None
    child: ChildRequest | None = None

    @staticmethod
    def next() -> ExecutionResult:
        """The step is done; go on."""
        return NEXT

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
    def branch_into(blocks: Iterable[int], item: Any, data: Any = None) -> ExecutionResult:
        """Run only these of the step's blocks, once each; then the step ends, or is called again."""
        return ExecutionResult(branch_values=(item,), blocks=tuple(blocks), persistence_data=data)

    @staticmethod
    def wait_for_event(
        name: str,
        key: object,
        effective_date: datetime | None = None,
        data: Any = None,
        *,
        timeout: timedelta | float | None = None,
    ) -> ExecutionResult:
        """Call the step again when an event of `name` and `key`, not older than `effective_date`, is there.

        The default is the moment the step began to wait. The event's data is in
        `context.execution_pointer.event_data` then. When `timeout` is over first, the step is called with
        `context.execution_pointer.timed_out`.
        """
        return ExecutionResult(
            event_name=str(name),
            event_key=str(key),
            event_since=_moment(effective_date),
            persistence_data=data,
            timeout=None if timeout is None else as_duration(timeout),
        )

    @staticmethod
    def wait_for_activity(
        name: str,
        parameters: Any = None,
        effective_date: datetime | None = None,
        data: Any = None,
        *,
        timeout: timedelta | float | None = None,
    ) -> ExecutionResult:
        """Offer an activity, and call the step again when somebody has done it, or has failed to.

        `effective_date` is since when it counts as offered, by default now. What came back is in
        `context.execution_pointer.event_data`: ``{"result": ...}`` or ``{"error": "..."}``.
        """
        return ExecutionResult(
            activity_name=str(name),
            activity_parameters=parameters,
            event_since=_moment(effective_date),
            persistence_data=data,
            timeout=None if timeout is None else as_duration(timeout),
        )

    @staticmethod
    def start_child(child: ChildRequest, *, wait: bool) -> ExecutionResult:
        """Start a child and, with `wait`, call the step again when it has ended; else go on.

        How it ended is in `context.execution_pointer.event_data`.
        """
        return ExecutionResult(proceed=not wait, child=child)


def _moment(value: datetime | None) -> datetime | None:
    if value is not None and value.tzinfo is None:
        raise ValueError("effective_date has no time zone; use datetime.now(timezone.utc) and the like")
    return value


NEXT = ExecutionResult(proceed=True)
"""What most bodies return."""
