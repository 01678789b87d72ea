"""Runs functions one after another, now or later: what they alone touch needs no lock.

There is a thread for it, but as long as nothing is going on, whoever posts a function runs it at once in its
own thread: to hand it over would take longer than most of them do.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
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
    """Runs what is posted, in order, and what is due. Only one function runs at a time, in any thread."""

    def __init__(self, name: str) -> None:
        self._mail: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._turn = threading.Lock()  # held by the thread that runs something; guards the timers
        self._guard = threading.Lock()  # for a moment, to decide who runs what is posted
        self._behind = 0  # of what was posted, how much is in the mail or being taken from it
        self._timers: list[Timer] = []
        self._sleeps_until = math.inf
        self._cancelled_timers = 0
        self._count = itertools.count()
        self._running = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._running = True
        self._thread.start()

    def post(self, action: Action) -> None:
        """Run `action` on the loop as soon as it gets to it, which may be now and here. From any thread."""
        with self._guard:
            now = self._behind == 0 and self._running and self._turn.acquire(blocking=False)
            if not now:
                self._behind += 1
        if not now:
            self._mail.put(action)
            return
        try:
            _run(action)
        finally:
            self._turn.release()

    def later(self, seconds: float, action: Action) -> Timer:
        """Run `action` on the loop after a while. From the loop only."""
        timer = Timer(self, time.monotonic() + seconds, next(self._count), action)
        heapq.heappush(self._timers, timer)
        if timer.time < self._sleeps_until:
            self._sleeps_until = timer.time
            self._wake()
        return timer

    def _wake(self) -> None:
        with self._guard:
            self._behind += 1
        self._mail.put(_look_at_timers)

    def _cancelled(self) -> None:
        self._cancelled_timers += 1
        if self._cancelled_timers > 64 and self._cancelled_timers > len(self._timers) // 2:
            self._timers = [timer for timer in self._timers if timer.action is not None]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    def stop(self) -> None:
        """Run what was posted before, then end. From any other thread; forgets timers."""
        with self._guard:
            self._running = False
        self._mail.put(None)
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            with self._turn:
                self._run_timers()
                self._sleeps_until = self._timers[0].time if self._timers else math.inf
                timeout = self._sleeps_until - time.monotonic() if self._timers else None
            try:
                action = self._mail.get(timeout=None if timeout is None else max(timeout, 0.0))
            except queue.Empty:
                continue
            if action is None:
                return
            with self._turn:
                self._sleeps_until = 0.0  # it will look at the timers before it sleeps
                _run(action)
                with self._guard:
                    self._behind -= 1

    def _run_timers(self) -> None:
        while self._timers and self._timers[0].time <= time.monotonic():
            action = heapq.heappop(self._timers).action
            if action is None:
                self._cancelled_timers -= 1
            else:
                _run(action)


def _look_at_timers() -> None:
    """Does nothing but wake the loop's thread, which looks at the timers before it sleeps again."""


def _run(action: Action) -> None:
    try:
        action()
    except Exception:  # one instance's trouble must not stop the others
        log.exception("an action failed; the loop goes on")
