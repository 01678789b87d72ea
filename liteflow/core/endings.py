"""Who waits in this process for the end of which instance.

The ends of all instances are broadcast under a few topics. Who waits for the first time subscribes to all of
them, and the process stays subscribed: on a server each costs a trip, and so does giving it back. What is
started after that is known to run until its end is heard, so that nobody needs to look before.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from liteflow.core.providers import QueueProvider

TOPIC = "ended."
TOPICS = 8
"""Who waits hears of so many a part of all ends. The more there are, the fewer ends go together."""

SEPARATOR = "\n"

REMEMBERED = 1000
"""So many of the instances that were started last are known to run, or to have ended."""


def tell(queue: QueueProvider, workflow_ids: Iterable[str]) -> None:
    """Broadcast that instances have ended or were suspended."""
    by_topic: dict[str, list[str]] = {}
    for workflow_id in workflow_ids:
        by_topic.setdefault(_topic(workflow_id), []).append(workflow_id)
    for topic, ids in by_topic.items():
        queue.notify(topic, SEPARATOR.join(ids))


def _topic(workflow_id: str) -> str:
    return f"{TOPIC}{zlib.crc32(workflow_id.encode()) % TOPICS}"


class Ending:
    """The end of one instance, for one who waits. `runs`: it was begun here, and nothing was heard of it."""

    def __init__(self) -> None:
        self.heard = threading.Event()
        self.runs = False


class Endings:
    """The broadcasts of ends, for whoever waits for one. May be used from any thread."""

    def __init__(self, queue: QueueProvider) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._subscribing = threading.Lock()
        self._subscribed: set[str] = set()
        self._waiting: dict[str, list[Ending]] = {}
        self._started: OrderedDict[str, bool] = OrderedDict()  # False once something was heard of it

    def starts(self, workflow_id: str) -> None:
        """To be told before anybody can know of an instance that is new."""
        if len(self._subscribed) == TOPICS:
            with self._lock:
                self._started[workflow_id] = True
                if len(self._started) > REMEMBERED:
                    self._started.popitem(last=False)

    def was_there(self, workflow_id: str) -> None:
        """It is not new after all: it may have ended long ago."""
        with self._lock:
            self._started.pop(workflow_id, None)

    @contextmanager
    def of(self, workflow_id: str) -> Iterator[Ending]:
        """What `heard` is set of when the instance has ended, if that is heard, after it was given."""
        ending = Ending()
        with self._lock:
            self._waiting.setdefault(workflow_id, []).append(ending)
            ending.runs = self._started.pop(workflow_id, False)
        try:
            self._subscribe()
            yield ending
        finally:
            with self._lock:
                waiting = self._waiting[workflow_id]
                waiting.remove(ending)
                if not waiting:
                    del self._waiting[workflow_id]

    def _subscribe(self) -> None:
        if len(self._subscribed) == TOPICS:
            return
        with self._subscribing:
            for number in range(TOPICS):
                topic = f"{TOPIC}{number}"
                if topic not in self._subscribed:
                    self._queue.subscribe(topic, self._heard)
                    self._subscribed.add(topic)

    def _heard(self, workflow_ids: str) -> None:
        with self._lock:
            for workflow_id in workflow_ids.split(SEPARATOR):
                if workflow_id in self._started:
                    self._started[workflow_id] = False
                for ending in self._waiting.get(workflow_id, ()):
                    ending.heard.set()

    def forget(self) -> None:
        """The queue is closed, and with it its subscriptions."""
        with self._subscribing, self._lock:
            self._subscribed.clear()
            self._started.clear()
