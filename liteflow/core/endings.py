"""Who waits in this process for the end of which instance.

The ends of all instances are broadcast under a few topics. A topic that somebody was interested in once stays
subscribed: on a server that costs a trip, and so does giving it back.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from liteflow.core.providers import QueueProvider

TOPIC = "ended."
TOPICS = 8
"""Who waits hears of so many a part of all ends. The more there are, the fewer ends go together."""

SEPARATOR = "\n"


def tell(queue: QueueProvider, workflow_ids: Iterable[str]) -> None:
    """Broadcast that instances have ended or were suspended."""
    by_topic: dict[str, list[str]] = {}
    for workflow_id in workflow_ids:
        by_topic.setdefault(_topic(workflow_id), []).append(workflow_id)
    for topic, ids in by_topic.items():
        queue.notify(topic, SEPARATOR.join(ids))


def _topic(workflow_id: str) -> str:
    return f"{TOPIC}{zlib.crc32(workflow_id.encode()) % TOPICS}"


class Endings:
    """The broadcasts of ends, for whoever waits for one. May be used from any thread."""

    def __init__(self, queue: QueueProvider) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._subscribed: dict[str, Callable[[], None]] = {}
        self._waiting: dict[str, list[threading.Event]] = {}

    @contextmanager
    def of(self, workflow_id: str) -> Iterator[threading.Event]:
        """An event that is set when the instance has ended, if that is heard, after it was given."""
        ended = threading.Event()
        with self._lock:
            self._waiting.setdefault(workflow_id, []).append(ended)
        try:
            self._subscribe(_topic(workflow_id))
            yield ended
        finally:
            with self._lock:
                waiting = self._waiting[workflow_id]
                waiting.remove(ended)
                if not waiting:
                    del self._waiting[workflow_id]

    def _subscribe(self, topic: str) -> None:
        if topic in self._subscribed:
            return
        unsubscribe = self._queue.subscribe(topic, self._heard)
        with self._lock:
            known = self._subscribed.setdefault(topic, unsubscribe)
        if known is not unsubscribe:
            unsubscribe()

    def _heard(self, workflow_ids: str) -> None:
        with self._lock:
            for workflow_id in workflow_ids.split(SEPARATOR):
                for ended in self._waiting.get(workflow_id, ()):
                    ended.set()

    def forget(self) -> None:
        """The queue is closed, and with it its subscriptions."""
        with self._lock:
            self._subscribed.clear()
