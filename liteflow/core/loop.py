"""A thread that runs functions one after another, now or later: what it alone touches needs no lock."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable

log = logging.getLogger("liteflow.loop")

Action = Callable[[], None]


class Loop:
    """Runs what is posted, in order, and what is due."""

    def __init__(self, name: str) -> None:
        self._mail: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Action]] = []
        self._count = itertools.count()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def post(self, action: Action) -> None:
        """Run `action` on the loop as soon as it gets to it. From any thread."""
        self._mail.put(action)

    def later(self, seconds: float, action: Action) -> None:
        """Run `action` on the loop after a while. From the loop only."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), action))

    def stop(self) -> None:
        """Run what was posted before, then end. From any other thread; forgets timers."""
        self._mail.put(None)
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            timeout = None
            if self._timers:
                timeout = self._timers[0][0] - time.monotonic()
            try:
                if timeout is not None and timeout <= 0:
                    action: Action | None = heapq.heappop(self._timers)[2]
                else:
                    action = self._mail.get(timeout=timeout)
            except queue.Empty:
                continue
            if action is None:
                return
            try:
                action()
            except Exception:  # one instance's trouble must not stop the others
                log.exception("an action failed; the loop goes on")
