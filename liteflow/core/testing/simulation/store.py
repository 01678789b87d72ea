"""The store of a simulation: the one in memory, watched, and each node's way to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from liteflow.core.errors import StoreUnavailableError
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.models import Instance, Parked, Pointer
from liteflow.core.providers import Due, PersistenceProvider
from liteflow.core.testing.simulation.faults import Fault
from liteflow.core.testing.simulation.line import Line
from liteflow.core.testing.simulation.watch import Watch
from liteflow.core.testing.simulation.world import BEGINNING, World
from liteflow.core.transition import Outcome, Transition


class WatchedStore(MemoryPersistenceProvider):
    """The store in memory, which shows each commit to a watch."""

    def __init__(self, world: World, watch: Watch) -> None:
        super().__init__(lambda: BEGINNING + timedelta(microseconds=world.micros))
        self._watch = watch

    def _commit(self, transition: Transition) -> Outcome:
        record = self._records.get(transition.instance_id)
        if record is None:
            return super()._commit(transition)
        instance = record.instance
        repeated = bool(transition.token) and instance.token == transition.token
        revision, consumed = instance.revision, instance.consumed
        before = {key: instance.pointers.get(key) for key in transition.pointers}
        claims = {key: instance.claims[key] for key in transition.claims_set if key in instance.claims}
        outcome = super()._commit(transition)
        if outcome is Outcome.COMMITTED and not repeated:
            self._watch.committed(transition, instance, revision, before, consumed, claims)
        return outcome

    def hold_due(
        self, now: datetime, hold_until: Callable[[Due], datetime | Parked], limit: int
    ) -> list[Due]:
        """Hold what is due, and show it to the watch."""
        held = super().hold_due(now, hold_until, limit)
        for due in held:
            self._watch.held(due)
        return held

    def stored(self) -> list[Instance]:
        """All instances, not copied: for those who only look."""
        return [record.instance for record in self._records.values()]

    def find(self, instance_id: str) -> Instance | None:
        """One of them."""
        record = self._records.get(instance_id)
        return record.instance if record is not None else None

    def archived(self, instance_id: str) -> dict[str, Pointer]:
        """The history of an instance, not copied."""
        return self._history.get(instance_id, {})

    def unprocessed(self) -> datetime | None:
        """The time of the first event whose waiters may not have been woken."""
        return self._events.next_due()


def _through(name: str) -> Any:
    def method(self: Any, *arguments: Any) -> Any:
        return self.line.call(name, StoreUnavailableError, getattr(self.store, name), *arguments)

    return method


_CALLS = sorted(PersistenceProvider.__abstractmethods__ - {"open", "close", "now"})
_Calls: Any = type(
    "_Calls", (PersistenceProvider,), {"__module__": __name__, **{name: _through(name) for name in _CALLS}}
)


class NodeStore(_Calls):  # type: ignore[misc]
    """A node's way to the store: every method of the contract goes through its line."""

    def __init__(self, line: Line, store: MemoryPersistenceProvider, uncertainty: timedelta) -> None:
        self.line = line
        self.store = store
        self._uncertainty = uncertainty
        self._last = line.node.now()

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Nothing to give back."""

    def now(self) -> datetime:
        """The store's clock as this node knows it; never goes backwards."""
        return self.line.node.now()

    @property
    def clock_uncertainty(self) -> timedelta:
        """By how much two nodes' ideas of the time may differ."""
        return self._uncertainty

    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        """Store transitions, or refuse them for nothing."""
        line: Line = self.line
        fault = line.boundary("commit", before=True)
        if fault is Fault.FAILURE:
            line.node.stalled = True
            return [Outcome.UNKNOWN] * len(transitions)
        if fault is Fault.CONFLICT:
            return [self._refused(transition) for transition in transitions]
        outcomes = self.store.commit(transitions)
        if line.boundary("commit", before=False) is Fault.LOST_REPLY:
            line.node.stalled = True
            raise StoreUnavailableError("commit: the answer got lost")
        return list(outcomes)

    def _refused(self, transition: Transition) -> Outcome:
        """What is stored already is never refused, only what is not."""
        found = self.store.load([transition.instance_id]).get(transition.instance_id)
        stored = isinstance(found, Instance) and found.token == transition.token
        return Outcome.COMMITTED if stored else Outcome.CONFLICT
