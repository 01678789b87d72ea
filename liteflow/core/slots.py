"""The slots of a process: threads that run bodies, and nothing else."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from liteflow.core.bodies import BodyRunner, Work


class Slots:
    """`count` threads that take jobs in order. `ended` is called from a slot's thread.

    The threads are daemons: a body that never returns can't keep a process from ending.
    """

    def __init__(self, count: int, bodies: BodyRunner, ended: Callable[[Any, Any], None]) -> None:
        self._bodies = bodies
        self._ended = ended
        self._jobs: deque[tuple[Work, bool]] = deque()
        self._short: dict[Work, bool] = {}  # what runs and is not claimed; True for one that is alone
        self._condition = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"liteflow-slot-{n + 1}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Work, *, alone: bool = False) -> None:
        """Run a job as soon as a slot is free, and with `alone` as soon as no short body runs beside it."""
        with self._condition:
            self._jobs.append((job, alone))
            self._condition.notify()

    def claimed(self, job: Work) -> None:
        """The job is a long step now: others need not wait for it."""
        with self._condition:
            if self._short.pop(job, None) is not None:
                self._condition.notify_all()

    def withdraw(self, job: Work) -> bool:
        """Take back a job that no slot has begun. False if one has."""
        with self._condition:
            for entry in self._jobs:
                if entry[0] is job:
                    self._jobs.remove(entry)
                    return True
            return False

    def close(self) -> None:
        """Begin nothing more. What runs goes on, in threads that end with it."""
        with self._condition:
            self._closed = True
            self._jobs.clear()
            self._condition.notify_all()

    def _may_begin(self) -> bool:
        if not self._jobs:
            return False
        alone = self._jobs[0][1]
        return not self._short if alone else not any(self._short.values())

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._may_begin() and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                job, alone = self._jobs.popleft()
                job.began = time.monotonic()
                if job.claim is None:
                    self._short[job] = alone
            ended = self._bodies.work(job)
            with self._condition:
                if self._short.pop(job, None):
                    self._condition.notify_all()
                elif self._jobs:
                    self._condition.notify()
            self._ended(job, ended)
