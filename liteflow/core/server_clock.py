"""The server's clock, read without asking it each time.

A server tells its time cut to its resolution. A reply that was asked for at `sent` and came at `received`,
by this process's monotonic clock, says that the offset between the two clocks lies between
``told - received`` and ``told + resolution - sent``. Several replies together narrow it down to a part of
a millisecond. Clocks drift, so the offset is measured anew once a minute, in the background.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from liteflow.core.errors import ProviderError

log = logging.getLogger("liteflow.clock")

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)
REFRESH = 60_000_000
"""Microseconds after which the offset is measured anew."""

SAMPLES = 16
GOOD_ENOUGH = 250
"""No more samples are taken once the offset is known to so many microseconds."""

DRIFT = 50e-6
"""What two clocks may drift apart in each second, about."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """The bounds of the offset in microseconds, and when they were found."""

    low: int
    high: int
    at: int

    def and_also(self, other: _Measured) -> _Measured:
        """Both are true. If they contradict each other a clock was set, and the later one counts."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return _Measured(low, high, other.at) if low <= high else other


class ServerClock:
    """The time of the server that `read` asks, which cuts it to `resolution` microseconds.

    Never goes backwards. `local` is a monotonic clock in microseconds, by default this process's.
    """

    def __init__(
        self, read: Callable[[], datetime], resolution: int, local: Callable[[], int] | None = None
    ) -> None:
        self._read = read
        self._resolution = resolution
        self._local = local or (lambda: time.monotonic_ns() // 1000)
        self._lock = threading.Lock()
        self._measured: _Measured | None = None
        self._last = 0
        self._refresh_at = 0
        self._thread: threading.Thread | None = None

    def measure(self) -> None:
        """Find the offset. Raises what `read` raises."""
        measured = self._sample()
        for _ in range(SAMPLES - 1):
            if measured.high - measured.low <= GOOD_ENOUGH:
                break
            measured = measured.and_also(self._sample())
        with self._lock:
            self._measured = measured
            self._refresh_at = measured.at + REFRESH

    def _sample(self) -> _Measured:
        sent = self._local()
        told = (self._read() - EPOCH) // MICROSECOND
        received = self._local()
        return _Measured(told - received, told + self._resolution - sent, received)

    def now(self) -> datetime:
        """The server's time."""
        local = self._local()
        if local >= self._refresh_at:
            self._begin_refresh()
        # Without the lock: this is called for every step. Two threads at once may differ by the time between.
        measured = self._known()
        now = local + (measured.low + measured.high) // 2
        if now > self._last:
            self._last = now
        return EPOCH + timedelta(microseconds=self._last)

    def _begin_refresh(self) -> None:
        with self._lock:
            if self._measured is not None and self._thread is None:
                self._thread = threading.Thread(target=self._refresh, name="liteflow-clock", daemon=True)
                self._thread.start()

    @property
    def uncertainty(self) -> timedelta:
        """How far the time of two processes that measure like this one may be apart."""
        measured = self._known()
        drift = 2 * DRIFT * max(0, self._local() - measured.at)
        return timedelta(microseconds=measured.high - measured.low + drift)

    def _known(self) -> _Measured:
        if self._measured is None:
            raise ProviderError("the persistence provider is not open")
        return self._measured

    def _refresh(self) -> None:
        try:
            self.measure()
        except ProviderError as exc:
            log.debug("the server's clock could not be read, trying again later: %s", exc)
            with self._lock:
                self._refresh_at = self._local() + REFRESH // 10
        finally:
            with self._lock:
                self._thread = None

    def join(self) -> None:
        """Return when nothing is measured any more."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
