"""When something that failed runs again: the users' retry policies, and the processes' own backoff."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from liteflow.core.errors import SettingsError
from liteflow.core.result import as_duration


class WorkflowErrorHandling(enum.Enum):
    """What happens to a workflow when one of its steps raises."""

    RETRY = "retry"
    SUSPEND = "suspend"
    TERMINATE = "terminate"
    COMPENSATE = "compensate"


@dataclass(frozen=True)
class RetryPolicy:
    """How often and when a failing step runs again.

    `max_attempts` counts the first run. The pause before attempt n + 1 is ``interval * backoff ** (n - 1)``,
    at most `max_interval`, shortened at random by up to the share `jitter` (0 to 1). Errors of the classes
    in `non_retryable` are not tried again. When the attempts are used up, `on_exhausted` happens.
    """

    max_attempts: int = 10
    interval: timedelta | float = 60.0
    backoff: float = 1.0
    max_interval: timedelta | float | None = None
    jitter: float = 0.0
    non_retryable: tuple[type[BaseException], ...] = ()
    on_exhausted: WorkflowErrorHandling = WorkflowErrorHandling.SUSPEND

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise SettingsError("RetryPolicy: max_attempts must be at least 1")
        if as_duration(self.interval) < timedelta(0):
            raise SettingsError("RetryPolicy: interval must not be negative")
        if self.backoff < 1:
            raise SettingsError("RetryPolicy: backoff must be at least 1")
        if not 0 <= self.jitter <= 1:
            raise SettingsError("RetryPolicy: jitter must be between 0 and 1")
        if self.on_exhausted is WorkflowErrorHandling.RETRY:
            raise SettingsError("RetryPolicy: on_exhausted can't be RETRY")

    def pause(self, attempt: int, seed: str) -> timedelta:
        """The pause after failed attempt `attempt` (from 1). The same `seed` gives the same jitter."""
        limit = None if self.max_interval is None else as_duration(self.max_interval).total_seconds()
        seconds = as_duration(self.interval).total_seconds()
        for _ in range(attempt - 1):
            if limit is not None and seconds >= limit:
                break
            seconds = min(seconds * self.backoff, 1e9)
        if limit is not None:
            seconds = min(seconds, limit)
        if self.jitter:
            seconds *= 1 - self.jitter * random.Random(seed).random()
        return timedelta(seconds=seconds)


@dataclass(frozen=True)
class ErrorPolicy:
    """A behaviour and, for RETRY, its policy."""

    behavior: WorkflowErrorHandling
    retry: RetryPolicy = RetryPolicy()


DEFAULT_ERROR_POLICY = ErrorPolicy(WorkflowErrorHandling.RETRY)
"""What applies where neither step nor definition nor host says anything: 60 s, 10 attempts, then SUSPEND."""


def backoff(first: float = 0.05, limit: float = 5.0) -> Iterator[float]:
    """Endless pauses in seconds for calls to a backend that is away: doubling, with jitter of a half."""
    pause = first
    while True:
        yield pause * (0.5 + random.random() / 2)
        pause = min(pause * 2, limit)
