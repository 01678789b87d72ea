"""A thread that does one thing again and again, and survives its failures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from liteflow.core.errors import UnavailableError

log = logging.getLogger("liteflow.periodic")


class Periodic:
    """Calls `action` until stopped; it returns the seconds until the next call. `nudge` calls earlier."""

    def __init__(
        self,
        name: str,
        action: Callable[[], float],
        pause_on_error: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._name = name
        self._action = action
        self._pause_on_error = pause_on_error
        self._condition = threading.Condition()
        self._next = 0.0
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first call is made at once. Does nothing if it runs."""
        if self._thread is None:
            self._stopping = False
            self._next = 0.0
            self._thread = threading.Thread(target=self._serve, name=f"liteflow-{self._name}", daemon=True)
            self._thread.start()

    def nudge(self, seconds: float = 0.0) -> None:
        """Make the next call in at most so many seconds."""
        with self._condition:
            self._next = min(self._next, self._clock() + seconds)
            self._condition.notify()

    def stop(self) -> None:
        """End it, after the call that may be under way. Does nothing if it does not run."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._stopping and (left := self._next - self._clock()) > 0:
                    self._condition.wait(left)
                if self._stopping:
                    return
                self._next = float("inf")  # what nudges during the call is kept
            self.nudge(self._round())

    def _round(self) -> float:
        """One call, and the seconds until the next one."""
        try:
            return self._action()
        except UnavailableError as exc:
            log.warning("%s: %s; trying again in %.1f s", self._name, exc, self._pause_on_error)
        except Exception:  # whatever it was, the next round may go well
            log.exception("%s failed; trying again in %.1f s", self._name, self._pause_on_error)
        return self._pause_on_error
