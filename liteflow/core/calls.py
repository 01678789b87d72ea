"""The runner's calls to the three backends: each kind in a stage of its own, answered on the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from liteflow.core.loop import Loop
from liteflow.core.models import Event, Instance, Wait, WorkflowStatus
from liteflow.core.providers import (
    Lease,
    LockProvider,
    Message,
    PersistenceProvider,
    QueueProvider,
    Taken,
    WakeMove,
)
from liteflow.core.runtime import THREADS, Runtime
from liteflow.core.stage import Stage
from liteflow.core.transition import Outcome, Transition

EVENTS_AT_ONCE = 16
"""So many events are taken from the log for each wait at a time."""


@dataclass(frozen=True)
class Loaded:
    """An instance, with the events that its open waits may take."""

    instance: Instance | Exception | None
    events: list[Event]


@dataclass(frozen=True)
class Look:
    """Asks for logged events that the waits may take."""

    waits: list[Wait]
    instance: Instance

    @property
    def limit(self) -> int:
        """Enough for each wait that events which the instance has consumed don't hide new ones."""
        return max((len(ids) for ids in self.instance.consumed.values()), default=0) + EVENTS_AT_ONCE


class Calls:
    """One stage for each kind of call, to be made from the loop, where the answers come back."""

    def __init__(
        self,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        lock: LockProvider,
        lease_ttl: float,
        loop: Loop,
        runtime: Runtime = THREADS,
    ) -> None:
        self._persistence = persistence
        self._queue = queue
        self._lock = lock
        self._lease_ttl = lease_ttl
        local = not persistence.shared
        post, stage = loop.post, runtime.stage
        locking: dict[str, Any] = {"inline": not lock.shared, "at_pause": loop.at_pause}
        storing: dict[str, Any] = {"inline": local, "at_pause": loop.at_pause}
        sending: dict[str, Any] = {"inline": not queue.shared, "at_pause": loop.at_pause}
        self.acquire: Stage[str, Lease | Taken] = stage("acquire", self._acquire, post, **locking)
        self.release: Stage[Lease, bool] = stage("release", lock.release, post, **locking)
        self.load: Stage[str, Loaded] = stage("load", self._load, post, **storing)
        self.look: Stage[Look, list[Event]] = stage("look", self._look, post, **storing)
        self.commit: Stage[Transition, Outcome] = stage(
            "commit", persistence.commit, post, most=128, **storing
        )
        self.write: Stage[Callable[[], object], object] = stage("write", _each, post, **storing)
        # These two call what the application has hung in, which may take its time: never on the loop.
        self.hooks: Stage[Callable[[], object], object] = stage("hooks", _each, post, at_pause=loop.at_pause)
        self.outbox: Stage[Callable[[], object], object] = stage(
            "outbox", _each, post, at_pause=loop.at_pause
        )
        self.move: Stage[WakeMove, None] = stage("settle", self._move, post, **storing)
        self.send: Stage[Message, None] = stage("send", self._send, post, **sending)
        self._stages: list[Stage[Any, Any]] = [
            self.acquire, self.load, self.look, self.commit, self.write, self.hooks,
            self.outbox, self.move, self.release, self.send,
        ]  # fmt: skip

    def close(self) -> None:
        """Finish what was handed in."""
        for stage in self._stages:
            stage.close()

    def _acquire(self, names: list[str]) -> list[Lease | Taken]:
        return self._lock.acquire(names, self._lease_ttl)

    def _load(self, instance_ids: list[str]) -> list[Loaded]:
        found = self._persistence.load(instance_ids)
        looks = {
            key: Look(waits, instance)
            for key, instance in found.items()
            if isinstance(instance, Instance)
            and instance.status is WorkflowStatus.RUNNABLE
            and (waits := instance.waits())
        }
        events = dict(zip(looks, self._look(list(looks.values())), strict=True))
        return [Loaded(found.get(key), events.get(key, [])) for key in instance_ids]

    def _look(self, looks: list[Look]) -> list[list[Event]]:
        """One look into the log for all of them; each gets what it waits for."""
        if not looks:
            return []
        waits = [wait for look in looks for wait in look.waits]
        most = max(look.limit for look in looks)
        by_wait: dict[tuple[str, str], list[Event]] = {}
        for event in self._persistence.events(waits, self._persistence.now(), most):
            by_wait.setdefault((event.name, event.key), []).append(event)
        return [_fitting(look.waits, by_wait) for look in looks]

    def _move(self, moves: list[WakeMove]) -> list[None]:
        self._persistence.move_wake(moves)
        return [None] * len(moves)

    def _send(self, messages: list[Message]) -> list[None]:
        self._queue.send(messages)
        return [None] * len(messages)


def _fitting(waits: list[Wait], events: dict[tuple[str, str], list[Event]]) -> list[Event]:
    """The events that one of the waits may take, by name and key; for the rest the engine looks."""
    since: dict[tuple[str, str], datetime] = {}
    for wait in waits:
        key = (wait.name, wait.key)
        since[key] = min(wait.since, since.get(key, wait.since))
    return [event for key, first in since.items() for event in events.get(key, ()) if event.time >= first]


def _each(calls: list[Callable[[], object]]) -> list[object]:
    """Each on its own: one that fails does not spoil the others."""
    results: list[object] = []
    for call in calls:
        try:
            results.append(call())
        except Exception as exc:
            results.append(exc)
    return results
