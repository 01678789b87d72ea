"""Runs functions one after another, now or later: what they alone touch needs no lock.

Whoever posts a function while nothing runs becomes the owner for a moment, and runs it in its own thread: to
hand it over would take longer than most of them do. The loop's own thread runs what is due, and goes on where
others have done enough.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger("liteflow.loop")

Action = Callable[[], None]

GUEST = 8
"""So many functions are run by another thread that has come with one; it has work of its own."""

TOGETHER = 16
"""After so many at the latest comes a pause, in which others are told of what they were given meanwhile."""


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
    """Runs what is posted, in order, and what is due: one function at a time, in whichever thread.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mail: deque[Action] = deque()
        self._owner = threading.Lock()  # of the thread that runs functions, and will get to what is posted
        self._owner.acquire()  # by nobody else, before it is started
        self._running = False
        self._ended = False
        self._pausing: dict[Action, None] = {}
        self._timers: list[Timer] = []
        self._next_timer = math.inf
        self._cancelled_timers = 0
        self._count = itertools.count()
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()  # to the thread; True makes it the owner
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._running = True
        self._signals.put(True)
        self._thread.start()

    def post(self, action: Action) -> None:
        """Run `action` on the loop as soon as it gets to it, which may be now and here. From any thread."""
        self._mail.append(action)
        if self._running and self._owner.acquire(blocking=False) and not self._run(GUEST):
            self._signals.put(True)

    def hand_over(self, action: Action) -> None:
        """The same, but not here: for threads that others wait for."""
        self._mail.append(action)
        if self._running and self._owner.acquire(blocking=False):
            self._signals.put(True)

    @property
    def _owned(self) -> bool:
        return self._owner.locked()

    def later(self, seconds: float, action: Action) -> Timer:
        """Run `action` on the loop after a while. From the loop only."""
        timer = Timer(self, self._clock() + seconds, next(self._count), action)
        heapq.heappush(self._timers, timer)
        if timer.time < self._next_timer:
            self._next_timer = timer.time
            self._signals.put(False)
        return timer

    def at_pause(self, action: Action) -> None:
        """Run `action` once, when all that was posted so far has been run, or soon. From the loop only."""
        self._pausing[action] = None

    def stop(self) -> None:
        """Run what was posted before, then end. From any other thread; forgets timers."""
        self.post(self._end)
        self._thread.join(timeout=10)

    def _end(self) -> None:
        self._running, self._ended = False, True
        self._signals.put(False)

    # -------------------------------------------------------------------------------------- the owner

    def _run(self, most: float) -> bool:
        """Run what was posted, as the owner. False if there is more than that: it is to be owned on."""
        mail, done = self._mail, 0
        while True:
            while mail and done < most:
                _call(mail.popleft())
                done += 1
                if done % TOGETHER == 0:
                    break
            self._pause()
            if mail:
                if done >= most:
                    return False
                continue
            self._owner.release()
            # Who has posted since could not become the owner before that, and relies on this look.
            if not mail or not self._owner.acquire(blocking=False):
                return True

    def _pause(self) -> None:
        if self._next_timer <= self._clock():  # its thread can't ask for it while it is the owner
            self._run_timers()
        while self._pausing:
            action = next(iter(self._pausing))
            del self._pausing[action]
            _call(action)

    def _run_timers(self) -> None:
        now = self._clock()
        while self._timers and self._timers[0].time <= now:
            action = heapq.heappop(self._timers).action
            if action is None:
                self._cancelled_timers -= 1
            else:
                _call(action)
        self._next_timer = self._timers[0].time if self._timers else math.inf
        self._signals.put(False)

    def _cancelled(self) -> None:
        self._cancelled_timers += 1
        if self._cancelled_timers > 64 and self._cancelled_timers > len(self._timers) // 2:
            self._timers = [timer for timer in self._timers if timer.action is not None]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    # ------------------------------------------------------------------------------------- the thread

    def _serve(self) -> None:
        asked: float | None = None  # the time of the timers that are about to be run
        while not self._ended:
            next_timer = self._next_timer
            try:
                if next_timer in (asked, math.inf):
                    mine = self._signals.get()
                else:
                    mine = self._signals.get(timeout=max(next_timer - self._clock(), 0.0))
                asked = None  # they may have been asked for a moment too early
            except queue.Empty:
                asked = next_timer
                self.post(self._run_timers)
                continue
            if mine:
                self._run(math.inf)


def _call(action: Action) -> None:
    try:
        action()
    except Exception:  # one instance's trouble must not stop the others
        log.exception("an action failed; the loop goes on")
