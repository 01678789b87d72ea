"""Subscriptions to broadcasts, and broadcasts on their way out."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

from liteflow.providers.sql.signals import Broadcast, topic_key

log = logging.getLogger("liteflow.sql")

MOST_WAITING = 10_000
"""So many broadcasts wait while the database is away; the oldest are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class _Subscriber:
    callback: Callable[[str], None]
    after: int
    """What this process had sent by then is not for it."""


class Subscriptions:
    """Callbacks by topic. Any thread may use it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._guard = threading.Lock()
        self._subscribers: dict[str, list[_Subscriber]] = {}
        self._leaving: list[Broadcast] = []
        self._me = secrets.token_hex(8)
        self._sent = 0

    @property
    def active(self) -> bool:
        """Is there anybody, or anything to send?"""
        return bool(self._subscribers) or bool(self._leaving)

    def add(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Subscribe; returns what ends it."""
        key = topic_key(topic)
        with self._guard:
            subscriber = _Subscriber(callback, self._sent)
            self._subscribers.setdefault(key, []).append(subscriber)

        def unsubscribe() -> None:
            with self._guard:
                subscribers = self._subscribers.get(key, [])
                if subscriber in subscribers:
                    subscribers.remove(subscriber)
                if not subscribers:
                    self._subscribers.pop(key, None)

        return unsubscribe

    def send(self, topic: str, body: str) -> None:
        """Have it sent soon."""
        with self._guard:
            del self._leaving[: max(0, len(self._leaving) + 1 - MOST_WAITING)]
            self._sent += 1
            self._leaving.append(Broadcast(topic_key(topic), body, f"{self._me}.{self._sent}"))
        self._changed()

    def leaving(self) -> list[Broadcast]:
        """What is to be sent; it is the caller's now."""
        with self._guard:
            leaving, self._leaving = self._leaving, []
        return leaving

    def heard(self, broadcast: Broadcast) -> None:
        """Call those who wait for its topic."""
        sender, _, number = broadcast.origin.partition(".")
        with self._guard:
            subscribers = list(self._subscribers.get(broadcast.topic, ()))
        for subscriber in subscribers:
            if sender == self._me and int(number) <= subscriber.after:
                continue
            try:
                subscriber.callback(broadcast.body)
            except Exception:
                # It is others' code, and this thread serves all of them.
                log.exception("a subscriber of a broadcast failed")

    def clear(self) -> None:
        """Forget all."""
        with self._guard:
            self._subscribers.clear()
            self._leaving.clear()
