"""The options of a host or process, validated once. The names are the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from liteflow.core.errors import SettingsError
from liteflow.core.retry import DEFAULT_ERROR_POLICY, ErrorPolicy


@dataclass(frozen=True)
class Settings:
    """What a host can be told. Times are in seconds, sizes in bytes.

    `concurrency`: slots, i.e. bodies that run at a time.
    `lease_ttl`: how long a lease, or the claim of a long step, lives without renewal; renewed three
    times in that time.
    `poll_interval`: the scheduler's sweep for what got lost.
    `shutdown_timeout`: what `stop` gives running bodies.
    `long_step`: a body that runs longer goes on under a claim of its own, outside the lease.
    `poison_after`: a step whose process died so many times in a row suspends its instance.
    `time_slice`: how long one instance is advanced at a stretch while it has something to do.
    `wake_grace`: when a wake-up message that was sent counts as lost.
    `max_data_size`: of one instance's data.
    `on_error`: what happens to a failing step where neither it nor its definition says so.
    `allow_local_lock`: accept a process-local lock or queue beside a shared store, which is wrong
    as soon as a second process uses the store.
    `lifecycle`: tell of lifecycle events; by default where somebody can hear them.
    `event_retention`: how long events are kept; then nobody can wait for them in retrospect any more.
    `activity_lease`: how long somebody has an activity before it is offered to others.
    """

    concurrency: int = 16
    lease_ttl: float = 10.0
    poll_interval: float = 5.0
    shutdown_timeout: float = 30.0
    long_step: float = 0.05
    poison_after: int = 3
    time_slice: float = 1.0
    wake_grace: float = 10.0
    max_data_size: int = 4 * 1024 * 1024
    on_error: ErrorPolicy = DEFAULT_ERROR_POLICY
    allow_local_lock: bool = False
    lifecycle: bool | None = None
    activity_lease: float = 30.0
    event_retention: float = 30 * 24 * 3600.0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise SettingsError(f"option {name} must be a number of at least {least}, not {value!r}")
        for name in ("concurrency", "poison_after", "max_data_size"):
            if not isinstance(getattr(self, name), int):
                raise SettingsError(f"option {name} must be a whole number, not {getattr(self, name)!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """From keyword options; an unknown one is a `SettingsError` that lists the known."""
        known = {f.name for f in fields(cls)}
        for name in options:
            if name not in known:
                raise SettingsError(f"unknown option {name!r}; known are {', '.join(sorted(known))}")
        return cls(**options)


_LEAST: dict[str, float] = {
    "concurrency": 1,
    "lease_ttl": 0.1,
    "poll_interval": 0.01,
    "shutdown_timeout": 0,
    "long_step": 0.01,
    "poison_after": 1,
    "activity_lease": 0.01,
    "event_retention": 0,
    "time_slice": 0,
    "wake_grace": 0.01,
    "max_data_size": 1024,
}
