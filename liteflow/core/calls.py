"""The runner's calls to the three backends: each kind in a stage of its own, answered on the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    """One stage for each kind of call. `post` brings the answers to the loop."""

    def __init__(
        self,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        lock: LockProvider,
        lease_ttl: float,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._persistence = persistence
        self._queue = queue
        self._lock = lock
        self._lease_ttl = lease_ttl
        local = not persistence.shared
        self.acquire: Stage[str, Lease | Taken] = Stage(
            "acquire", self._acquire, post, inline=not lock.shared
        )
        self.release: Stage[Lease, bool] = Stage("release", lock.release, post, inline=not lock.shared)
        self.load: Stage[str, Loaded] = Stage("load", self._load, post, inline=local)
        self.look: Stage[Look, list[Event]] = Stage("look", self._look, post, inline=local)
        self.commit: Stage[Transition, Outcome] = Stage(
            "commit", persistence.commit, post, inline=local, most=128
        )
        self.write: Stage[Callable[[], object], object] = Stage("write", _each, post, inline=local)
        # These two call what the application has hung in, which may take its time: never on the loop.
        self.hooks: Stage[Callable[[], object], object] = Stage("hooks", _each, post)
        self.outbox: Stage[Callable[[], object], object] = Stage("outbox", _each, post)
        self.move: Stage[WakeMove, None] = Stage("settle", self._move, post, inline=local)
        self.send: Stage[Message, None] = Stage("send", self._send, post, inline=not queue.shared)
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
        loaded = []
        for instance_id in instance_ids:
            instance = found.get(instance_id)
            events: list[Event] = []
            if isinstance(instance, Instance) and instance.status is WorkflowStatus.RUNNABLE:
                if waits := instance.waits():
                    events = self._look([Look(waits, instance)])[0]
            loaded.append(Loaded(instance, events))
        return loaded

    def _look(self, looks: list[Look]) -> list[list[Event]]:
        now = self._persistence.now()
        return [self._persistence.events(look.waits, now, look.limit) for look in looks]

    def _move(self, moves: list[WakeMove]) -> list[None]:
        self._persistence.move_wake(moves)
        return [None] * len(moves)

    def _send(self, messages: list[Message]) -> list[None]:
        self._queue.send(messages)
        return [None] * len(messages)


def _each(calls: list[Callable[[], object]]) -> list[object]:
    """Each on its own: one that fails does not spoil the others."""
    results: list[object] = []
    for call in calls:
        try:
            results.append(call())
        except Exception as exc:
            results.append(exc)
    return results
