"""Leases within one process: the default, and the reference for other lock providers."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from liteflow.core.providers import Lease, LockProvider, Taken


@dataclass
class _Held:
    lease: Lease
    marked: bool = False


class LocalLockProvider(LockProvider):
    """Leases that live in this object. `clock` is a monotonic clock in seconds."""

    shared = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._tokens = itertools.count(1)

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Nothing to give back; leases run out by themselves."""

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        with self._guard:
            return [self._acquire(name, ttl) for name in names]

    def _acquire(self, name: str, ttl: float) -> Lease | Taken:
        now = self._clock()
        held = self._held.get(name)
        if held is not None and held.lease.expires > now:
            held.marked = True
            return Taken(held.lease.expires - now)
        lease = Lease(name, str(next(self._tokens)), now + ttl)
        self._held[name] = _Held(lease)
        return lease

    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        with self._guard:
            return [self._renew(lease, ttl) for lease in leases]

    def _renew(self, lease: Lease, ttl: float) -> bool:
        now = self._clock()
        held = self._held.get(lease.name)
        if held is None or held.lease.token != lease.token or held.lease.expires <= now:
            lease.held = False
            return False
        held.lease.expires = lease.expires = now + ttl
        return True

    def release(self, leases: Sequence[Lease]) -> list[bool]:
        with self._guard:
            return [self._release(lease) for lease in leases]

    def _release(self, lease: Lease) -> bool:
        lease.held = False
        held = self._held.get(lease.name)
        if held is None or held.lease.token != lease.token:
            return False
        del self._held[lease.name]
        return not held.marked and held.lease.expires > self._clock()
