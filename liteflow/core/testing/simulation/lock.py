"""The lock server of a simulation: the one in memory, watched, and each node's way to it."""

from __future__ import annotations

from collections.abc import Sequence

from liteflow.core.errors import LockUnavailableError
from liteflow.core.memory_lock import LocalLockProvider
from liteflow.core.providers import Lease, LockProvider, Taken
from liteflow.core.testing.simulation.faults import Fault
from liteflow.core.testing.simulation.line import Line
from liteflow.core.testing.simulation.watch import Watch
from liteflow.core.testing.simulation.world import SECOND, World


class WatchedLock(LocalLockProvider):
    """Leases in memory, which shows to a watch what becomes of them."""

    def __init__(self, world: World, watch: Watch) -> None:
        super().__init__(lambda: world.micros / SECOND)
        self._watch = watch

    def _acquire(self, name: str, ttl: float) -> Lease | Taken:
        outcome = super()._acquire(name, ttl)
        if isinstance(outcome, Lease):
            self._watch.leased(name, outcome.token, outcome.expires)
        return outcome

    def _renew(self, lease: Lease, ttl: float) -> bool:
        renewed = super()._renew(lease, ttl)
        if renewed:
            self._watch.renewed(lease.name, lease.token, lease.expires)
        return renewed

    def _release(self, lease: Lease) -> bool:
        clean = super()._release(lease)
        self._watch.released(lease.name, lease.token)
        return clean

    def forget(self) -> None:
        """The server starts anew, empty."""
        self._watch.forgotten()
        self._held.clear()


class NodeLock(LockProvider):
    """A node's way to the lock server. Leases end by the node's own clock."""

    def __init__(self, line: Line, lock: LocalLockProvider) -> None:
        self._line = line
        self._lock = lock

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Nothing to give back."""

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        """Try once for each name."""
        asked = self._line.node.world.micros  # the lease counts from when it was asked for, not when it came
        found = self._line.call("acquire", LockUnavailableError, self._lock.acquire, names, ttl)
        expires = self._line.node.local(asked) + ttl
        return [Lease(one.name, one.token, expires) if isinstance(one, Lease) else one for one in found]

    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Extend leases. One that could not be asked for counts as held until it ends."""
        asked = self._line.node.world.micros
        fault = self._line.boundary("renew", before=True)
        if fault is Fault.FAILURE:
            self._line.node.stalled = True
            return [lease.held for lease in leases]
        outcomes = self._lock.renew([Lease(one.name, one.token, 0.0) for one in leases], ttl)
        if self._line.boundary("renew", before=False) is Fault.LOST_REPLY:
            return [lease.held for lease in leases]
        for lease, ours in zip(leases, outcomes, strict=True):
            if ours:
                lease.expires = self._line.node.local(asked) + ttl
            else:
                lease.held = False
        return outcomes

    def release(self, leases: Sequence[Lease]) -> list[bool]:
        """Give leases back. Never raises; what is not known to be clean is not."""
        for lease in leases:
            lease.held = False
        if self._line.boundary("release", before=True) is Fault.FAILURE:
            self._line.node.stalled = True
            return [False] * len(leases)
        outcomes = self._lock.release([Lease(one.name, one.token, 0.0) for one in leases])
        if self._line.boundary("release", before=False) is Fault.LOST_REPLY:
            return [False] * len(leases)
        return outcomes
