"""Calls of many threads at a time, made as one: each waits for the trip of all instead of for its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from liteflow.core.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

MOST = 256
"""Items in one call."""


@dataclass(eq=False)
class _Entry(Generic[T, R]):
    item: T
    done: threading.Event | None = None  # for who waits: it has an outcome, or its thread leads
    outcome: R | BaseException | None = None
    leads: bool = False


class Together(Generic[T, R]):
    """A function of many items, called with one by each of many threads.

    Who comes while nobody calls makes the call; who comes meanwhile is in the next one. A lone thread waits
    for nobody. If an item has a `DataError`, the items of that call are tried one by one.
    """

    def __init__(self, call: Callable[[list[T]], Sequence[R]]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._waiting: deque[_Entry[T, R]] = deque()
        self._led = False

    def __call__(self, item: T) -> R:
        """The result for this item, or what was raised for it."""
        mine: _Entry[T, R] = _Entry(item)
        with self._lock:
            self._waiting.append(mine)
            if self._led:
                mine.done = threading.Event()
            else:
                self._led = mine.leads = True
        if mine.done is not None:
            mine.done.wait()
        if mine.leads:
            self._lead()
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        return cast(R, mine.outcome)

    def _lead(self) -> None:
        """Make one call, the own item included, and have the first of those who wait make the next."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
        try:
            self._make(batch)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._led = following is not None
            for entry in batch[1:]:
                _wake(entry)
            if following is not None:
                following.leads = True
                _wake(following)

    def _make(self, batch: Sequence[_Entry[T, R]]) -> None:
        try:
            results: Sequence[R | BaseException] = self._call([entry.item for entry in batch])
        except DataError as exc:
            if len(batch) > 1:
                for entry in batch:
                    self._make([entry])
                return
            results = [exc]
        except BaseException as exc:
            results = [exc] * len(batch)
        for entry, result in zip(batch, results, strict=True):
            entry.outcome = result


def _wake(entry: _Entry[T, R]) -> None:
    if entry.done is not None:
        entry.done.set()
