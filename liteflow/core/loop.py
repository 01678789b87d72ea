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


class Timer:
    """Something that is due later. `cancel` forgets it; to be called on the loop."""

    __slots__ = ("_loop", "action", "number", "time")

    def __init__(self, loop: Loop, time: float, number: int, action: Action) -> None:
        self._loop = loop
        self.time = time
        self.number = number
        self.action: Action | None = action

    def __lt__(self, other: Timer) -> bool:
        return (self.time, self.number) < (other.time, other.number)

    def cancel(self) -> None:
        """It does not run any more, and nothing that it would have used is kept for it."""
        if self.action is not None:
            self.action = None
            self._loop._cancelled()


class Loop:
    """Runs what is posted, in order, and what is due."""

    def __init__(self, name: str) -> None:
        self._mail: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._timers: list[Timer] = []
        self._cancelled_timers = 0
        self._count = itertools.count()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def post(self, action: Action) -> None:
        """Run `action` on the loop as soon as it gets to it. From any thread."""
        self._mail.put(action)

    def later(self, seconds: float, action: Action) -> Timer:
        """Run `action` on the loop after a while. From the loop only."""
        timer = Timer(self, time.monotonic() + seconds, next(self._count), action)
        heapq.heappush(self._timers, timer)
        return timer

    def _cancelled(self) -> None:
        self._cancelled_timers += 1
        if self._cancelled_timers > 64 and self._cancelled_timers > len(self._timers) // 2:
            self._timers = [timer for timer in self._timers if timer.action is not None]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    def stop(self) -> None:
        """Run what was posted before, then end. From any other thread; forgets timers."""
        self._mail.put(None)
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            timeout = None
            if self._timers:
                timeout = self._timers[0].time - time.monotonic()
            try:
                if timeout is not None and timeout <= 0:
                    action = heapq.heappop(self._timers).action
                    if action is None:
                        self._cancelled_timers -= 1
                        continue
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
