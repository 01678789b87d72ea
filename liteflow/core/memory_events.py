"""The event log of the memory provider. Its methods are called under the provider's lock."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable
from datetime import datetime

from liteflow.core.memory_copy import own
from liteflow.core.memory_index import DueIndex
from liteflow.core.models import Event, Wait


class EventLog:
    """Events by id, by name and key in order of time, and those unprocessed by when they are due."""

    def __init__(self) -> None:
        self._events: dict[str, Event] = {}
        self._times: dict[tuple[str, str], list[tuple[datetime, str]]] = {}
        self._due = DueIndex()

    def add(self, event: Event) -> bool:
        """Append a copy; False if the id is known."""
        if event.id in self._events:
            return False
        self._events[event.id] = own(event)
        bisect.insort(self._times.setdefault((event.name, event.key), []), (event.time, event.id))
        self._due.set(event.id, None if event.processed else event.time)
        return True

    def get(self, event_id: str) -> Event | None:
        """One event."""
        event = self._events.get(event_id)
        return own(event) if event is not None else None

    def fitting(self, waits: Iterable[Wait], now: datetime, limit: int) -> list[Event]:
        """Events that fit any of the waits, at most `limit` for each, in order of time, then id."""
        found: set[tuple[datetime, str]] = set()
        for wait in waits:
            times = self._times.get((wait.name, wait.key), [])
            first = bisect.bisect_left(times, (wait.since, ""))
            found.update(entry for entry in times[first : first + limit] if entry[0] <= now)
        return [own(self._events[event_id]) for _, event_id in sorted(found)]

    def hold(self, now: datetime, hold_until: datetime, limit: int) -> list[Event]:
        """Unprocessed events that are due, which they are not again before `hold_until`."""
        held = self._due.until(now, limit)
        for event_id in held:
            self._due.set(event_id, hold_until)
        return [own(self._events[event_id]) for event_id in held]

    def mark_processed(self, event_ids: Iterable[str], now: datetime) -> None:
        """These are not due any more."""
        for event_id in event_ids:
            if event_id in self._events:
                self._events[event_id].processed = now
                self._due.set(event_id, None)

    def old(self, before: datetime, limit: int) -> list[Event]:
        """Events that were processed before this, the earliest first. They are not copies."""
        processed = ((one.processed, one.id) for one in self._events.values() if one.processed is not None)
        first = heapq.nsmallest(limit, (entry for entry in processed if entry[0] < before))
        return [self._events[event_id] for _, event_id in first]

    def remove(self, event: Event) -> None:
        """Forget one that was processed."""
        del self._events[event.id]
        times = self._times[event.name, event.key]
        del times[bisect.bisect_left(times, (event.time, event.id))]
        if not times:
            del self._times[event.name, event.key]

    def next_due(self) -> datetime | None:
        """When the first unprocessed event is due."""
        return self._due.first()
