"""The two indexes of the memory provider: what is due when, and who waits for what."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable
from datetime import datetime


class DueIndex:
    """Ids in order of the time that is set for them. A heap in which outdated entries are passed over."""

    def __init__(self) -> None:
        self._times: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []

    def set(self, key: str, time: datetime | None) -> None:
        """From now on the id has this time, or none."""
        if time is None:
            self._times.pop(key, None)
        elif self._times.get(key) != time:
            self._times[key] = time
            heapq.heappush(self._heap, (time, key))
            if len(self._heap) > 2 * len(self._times) + 64:
                self._heap = [(time, key) for key, time in self._times.items()]
                heapq.heapify(self._heap)

    def first(self) -> datetime | None:
        """The earliest time of all."""
        while self._heap and self._outdated(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def until(self, now: datetime, limit: int) -> list[str]:
        """Ids whose time is not after `now`, earliest first."""
        found: dict[str, datetime] = {}
        while len(found) < limit and self._heap and self._heap[0][0] <= now:
            time, key = heapq.heappop(self._heap)
            if not self._outdated(time, key):
                found[key] = time
        for key, time in found.items():
            heapq.heappush(self._heap, (time, key))
        return list(found)

    def _outdated(self, time: datetime, key: str) -> bool:
        return self._times.get(key) != time


class WaitIndex:
    """For each event name and key the ids of the instances that wait for it, in order."""

    def __init__(self) -> None:
        self._waiters: dict[tuple[str, str], list[str]] = {}

    def add(self, waits: Iterable[tuple[str, str]], instance_id: str) -> None:
        """The instance waits for these, which it did not before."""
        for wait in waits:
            bisect.insort(self._waiters.setdefault(wait, []), instance_id)

    def remove(self, waits: Iterable[tuple[str, str]], instance_id: str) -> None:
        """The instance does not wait for these any more."""
        for wait in waits:
            waiters = self._waiters[wait]
            del waiters[bisect.bisect_left(waiters, instance_id)]
            if not waiters:
                del self._waiters[wait]

    def after(self, wait: tuple[str, str], instance_id: str, limit: int) -> list[str]:
        """At most `limit` of those who wait for this, beginning after an id."""
        waiters = self._waiters.get(wait, [])
        first = bisect.bisect_right(waiters, instance_id)
        return waiters[first : first + limit]
