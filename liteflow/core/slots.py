"""The slots of a process: threads that run bodies, and nothing else.

Waking a thread costs more than many a body. So a job is left to a thread that has just begun another one,
and is likely to be back in a moment; `overdue`, called a moment later, wakes others if it was not.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from liteflow.core.bodies import BodyRunner, Work

MOMENT = 0.0005
"""Seconds after its begin for which a body is expected to end soon. Waking a thread takes a tenth of it."""

LONG_WAIT = 0.005
"""When a job has waited so many seconds, the bodies before it end soon, but not soon enough."""


class Slots:
    """`count` threads that take jobs in order. `ended` is called from a slot's thread.

    The threads are daemons: a body that never returns can't keep a process from ending. `clock` is
    monotonic, in seconds.
    """

    def __init__(
        self,
        count: int,
        bodies: BodyRunner,
        ended: Callable[[Any, Any], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._bodies = bodies
        self._ended = ended
        self._jobs: deque[tuple[Work, bool, float]] = deque()
        self._short: dict[Work, bool] = {}  # what runs and is not claimed; True for one that is alone
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._sleeping = 0  # threads that wait to be notified
        self._coming = 0  # threads that were notified, and are not there yet
        self._running: set[Work] = set()  # whose body some thread is in
        self._idents: set[int] = set()  # of the threads
        self._last_begin = 0.0  # when a thread took a job, or was woken to take one
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"liteflow-slot-{n + 1}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Work, *, alone: bool = False) -> None:
        """Run a job as soon as a slot is free, and with `alone` as soon as no short body runs beside it.

        Nobody is woken for it before `begin`.
        """
        self._jobs.append((job, alone, self._clock()))

    def begin(self) -> bool:
        """Have what was submitted begun. False if `overdue` is to be called after a moment."""
        now = self._clock()
        with self._lock:
            if not self._jobs or self._sleeping == 0:
                return True
            if self._coming or threading.get_ident() in self._idents:
                return len(self._jobs) == 1  # one is on its way, or here, and takes the first of them
            if self._sleeping < len(self._threads) and now < self._last_begin + MOMENT:
                return False  # one is likely to be back by then
            self._last_begin = now
            self._wake(1)
            return len(self._jobs) == 1

    def overdue(self) -> bool:
        """Wake threads for jobs that were left to one that is not back. False: ask again in a moment."""
        now = self._clock()
        with self._lock:
            if not self._jobs or self._sleeping == 0:
                return True
            if self._running and now >= self._last_begin + MOMENT:
                self._wake(min(len(self._jobs), self._sleeping))
                return True
            if not self._coming and now > self._jobs[0][2] + LONG_WAIT:
                self._wake(1)
            return False

    def claimed(self, job: Work) -> None:
        """The job is a long step now: others need not wait for it."""
        with self._lock:
            if self._short.pop(job, None) is not None:
                self._wake(self._sleeping)

    def withdraw(self, job: Work) -> bool:
        """Take back a job that no slot has begun. False if one has."""
        with self._lock:
            for entry in self._jobs:
                if entry[0] is job:
                    self._jobs.remove(entry)
                    return True
            return False

    def close(self) -> None:
        """Begin nothing more. What runs goes on, in threads that end with it."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
            self._wake(self._sleeping)

    def _wake(self, count: int) -> None:
        self._sleeping -= count
        self._coming += count
        self._condition.notify(count)

    def _may_begin(self) -> bool:
        jobs = self._jobs
        while jobs and jobs[0][0].dropped:
            jobs.popleft()  # its step has ended without it
        if not jobs:
            return False
        return not (self._short and (jobs[0][1] or True in self._short.values()))

    def _take(self) -> Work:
        job, alone, _ = self._jobs.popleft()
        self._running.add(job)
        job.began = self._last_begin = self._clock()
        if job.claim is None:
            self._short[job] = alone
        return job

    def _over(self, job: Work) -> None:
        if self._short.pop(job, None):
            self._wake(self._sleeping)  # it was alone

    def _serve(self) -> None:
        job: Work | None = None
        self._idents.add(threading.get_ident())
        while True:
            with self._lock:
                if job is not None:
                    self._over(job)
                while not self._may_begin() and not self._closed:
                    self._sleeping += 1
                    self._condition.wait()
                    self._coming -= 1
                if self._closed:
                    return
                job = self._take()
            outcome = self._bodies.work(job)
            self._running.discard(job)
            self._ended(job, outcome)
