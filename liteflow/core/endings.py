"""Who waits in this process for the end of which instance.

The ends of all instances are broadcast under a few topics. Who waits for the first time subscribes to all of
them, and the process stays subscribed: on a server each costs a trip, and so does giving it back. What is
started after that is known to run until its end is heard, so that nobody needs to look before.

Where broadcasts are quick, the end of the only instance that a process has in hand is told twice, at first
while it is still being stored. Who hears that looks again and again for a while, until the end is durable.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic

from liteflow.core.providers import QueueProvider

TOPIC = "ended."
TOPICS = 8
"""Who waits hears of so many a part of all ends. The more there are, the fewer ends go together."""

SEPARATOR = "\n"

SOON = "soon:"
"""So begins what is told of an end that is still being stored."""

PATIENCE = 0.1
"""Seconds after such a broadcast for which an end is looked for. Then one waits as if there had been none."""

FIRST_PAUSE = 0.0002
"""Seconds before the first of these looks; later on it is a quarter of what was waited already."""

REMEMBERED = 1000
"""So many of the instances that were started last are known to run, or to have ended."""


def tell(queue: QueueProvider, workflow_ids: Iterable[str]) -> None:
    """Broadcast that instances have ended or were suspended."""
    by_topic: dict[str, list[str]] = {}
    for workflow_id in workflow_ids:
        by_topic.setdefault(_topic(workflow_id), []).append(workflow_id)
    for topic, ids in by_topic.items():
        queue.notify(topic, SEPARATOR.join(ids))


def tell_soon(queue: QueueProvider, workflow_id: str) -> None:
    """Broadcast that an instance's end, or suspension, is being stored. `tell` follows once it is."""
    queue.notify(_topic(workflow_id), f"{SOON}{workflow_id}")


def _topic(workflow_id: str) -> str:
    return f"{TOPIC}{zlib.crc32(workflow_id.encode()) % TOPICS}"


class Ending:
    """The end of one instance, for one who waits. `runs`: it was begun here, and its end was not heard."""

    def __init__(self) -> None:
        self.runs = False
        self._news = threading.Event()
        self._soon: float | None = None  # since when the end is being stored, as far as was heard

    def wait(self, timeout: float) -> None:
        """Until a look is worth it: the end was heard or may be stored by now, or `timeout` s have passed."""
        if self._soon is None:
            self._news.wait(timeout)
        self._news.clear()  # before the look, which sees all that was told until now
        if (since := self._soon) is None:
            return
        waited = monotonic() - since
        if waited > PATIENCE:
            self.not_soon()
            return
        self._news.wait(min(max(waited / 4, FIRST_PAUSE), timeout))

    def told(self) -> None:
        """It is stored."""
        self._soon = None
        self._news.set()

    def told_soon(self) -> None:
        """It is being stored."""
        self._soon = monotonic()
        self._news.set()

    @property
    def soon(self) -> bool:
        """True if nothing but such a broadcast is the reason for the next look."""
        return self._soon is not None

    def not_soon(self) -> None:
        """Wait as if it had not been told."""
        self._soon = None


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
        """What tells when the instance has ended, if that is heard, after it was given."""
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

    def _heard(self, told: str) -> None:
        if told.startswith(SOON):
            with self._lock:
                for ending in self._waiting.get(told.removeprefix(SOON), ()):
                    ending.told_soon()
            return
        with self._lock:
            for workflow_id in told.split(SEPARATOR):
                if workflow_id in self._started:
                    self._started[workflow_id] = False
                for ending in self._waiting.get(workflow_id, ()):
                    ending.told()

    def forget(self) -> None:
        """The queue is closed, and with it its subscriptions."""
        with self._subscribing, self._lock:
            self._subscribed.clear()
            self._started.clear()
