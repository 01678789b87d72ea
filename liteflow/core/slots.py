"""The slots of a process: threads that run bodies, and nothing else."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from liteflow.core.bodies import BodyRunner, Job
from liteflow.core.inputs import BodyEnded


class Slots:
    """`count` threads that take jobs in order. `ended` is called from a slot's thread.

    The threads are daemons: a body that never returns can't keep a process from ending.
    """

    def __init__(self, count: int, bodies: BodyRunner, ended: Callable[[Job, BodyEnded], None]) -> None:
        self._bodies = bodies
        self._ended = ended
        self._jobs: deque[Job] = deque()
        self._condition = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"liteflow-slot-{n + 1}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Run a job as soon as a slot is free."""
        with self._condition:
            self._jobs.append(job)
            self._condition.notify()

    def withdraw(self, job: Job) -> bool:
        """Take back a job that no slot has begun. False if one has."""
        with self._condition:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            return True

    def close(self) -> None:
        """Begin nothing more. What runs goes on, in threads that end with it."""
        with self._condition:
            self._closed = True
            self._jobs.clear()
            self._condition.notify_all()

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._jobs and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                job = self._jobs.popleft()
                job.began = time.monotonic()
            self._ended(job, self._bodies.run(job))
