"""Protections of the protocol, each taken away: what is left has to break a promise in some history."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from liteflow.core import LocalLockProvider, MemoryPersistenceProvider, Settings, early, engine
from liteflow.core import client as client_module
from liteflow.core.calls import Calls
from liteflow.core.models import Instance, Pointer
from liteflow.core.providers import Delivery, Due, Lease, WakeMove
from liteflow.core.runner import Runner
from liteflow.core.storing import Storing
from liteflow.core.taking import Taking
from liteflow.core.testing.simulation import Cluster, Fault, Faults, History, simulate
from liteflow.core.testing.simulation.queue import NodeQueue, Waiting
from liteflow.core.testing.simulation.store import NodeStore, WatchedStore
from liteflow.core.testing.simulation.workloads import WORKLOADS, history_of
from liteflow.core.transition import Outcome, Transition

SMALL = Cluster()
ALONE = Cluster(workers=1)
LONG = Cluster(settings=Settings(time_slice=60.0))
"""Instances are in one worker's hands for longer than a lease lasts."""


def only(fault: Fault, rate: float = 0.1, patience: float | None = None) -> Faults:
    """Histories in which nothing else goes wrong."""
    return Faults(kinds=(fault,), rate=rate, patience=patience)


@dataclass(frozen=True)
class Mutation:
    """A protection, how to take it away, and where that shows: in a workload, with some faults, on a cluster.

    Without a workload it is the mix of all that `history_of` makes.
    """

    name: str
    apply: Callable[[pytest.MonkeyPatch], None]
    workload: str | None = None
    faults: Faults | None = None
    cluster: Cluster = SMALL

    def history(self, seed: int) -> History:
        """One of the histories in which it is looked for."""
        workload = next((one for one in WORKLOADS if one.name == self.workload), None)
        if workload is None or self.faults is None:
            return history_of(seed, workload)
        return simulate(
            workload.workflows, *workload.scenarios,
            seed=seed, check=workload.check, faults=self.faults, cluster=self.cluster,
        )  # fmt: skip


def no_compare(patch: pytest.MonkeyPatch) -> None:
    """A commit is stored whatever it was computed from."""
    commit = MemoryPersistenceProvider._commit

    def commit_anyway(self: MemoryPersistenceProvider, transition: Transition) -> Outcome:
        record = self._records.get(transition.instance_id)
        if record is not None and record.instance.token != transition.token:
            record.instance.revision = transition.revision
            record.instance.inbox_sequence = transition.inbox_sequence
        return commit(self, transition)

    patch.setattr(MemoryPersistenceProvider, "_commit", commit_anyway)


def inbox_not_compared(patch: pytest.MonkeyPatch) -> None:
    """A commit does not look whether requests have come meanwhile."""
    commit = MemoryPersistenceProvider._commit

    def commit_anyway(self: MemoryPersistenceProvider, transition: Transition) -> Outcome:
        record = self._records.get(transition.instance_id)
        if record is None:
            return commit(self, transition)
        asked, record.instance.inbox_sequence = record.instance.inbox_sequence, transition.inbox_sequence
        outcome = commit(self, transition)
        record.instance.inbox_sequence = asked
        return outcome

    patch.setattr(MemoryPersistenceProvider, "_commit", commit_anyway)


def no_token(patch: pytest.MonkeyPatch) -> None:
    """A commit whose answer got lost is not recognised when it is made again."""
    commit = MemoryPersistenceProvider._commit

    def commit_unknown(self: MemoryPersistenceProvider, transition: Transition) -> Outcome:
        record = self._records.get(transition.instance_id)
        if record is not None and record.instance.token == transition.token:
            return Outcome.CONFLICT
        return commit(self, transition)

    patch.setattr(MemoryPersistenceProvider, "_commit", commit_unknown)


class _Done(Delivery):
    """Acknowledged before its time."""

    def __init__(self, delivery: Delivery) -> None:
        self.message, self.redelivered = delivery.message, delivery.redelivered

    def ack(self) -> None:
        """Too late."""

    def nack(self) -> None:
        """Too late."""


def ack_first(patch: pytest.MonkeyPatch) -> None:
    """A message is acknowledged when it is taken."""
    delivered = Taking._delivered

    def acknowledged(self: Taking, delivery: Delivery) -> None:
        delivery.ack()
        delivered(self, _Done(delivery))

    patch.setattr(Taking, "_delivered", acknowledged)


def mark_ignored(patch: pytest.MonkeyPatch) -> None:
    """Who gives a lease back does not look whether somebody was turned away."""
    release = LocalLockProvider._release

    def clean(self: LocalLockProvider, lease: Lease) -> bool:
        held = self._held.get(lease.name)
        if held is not None:
            held.marked = False
        return release(self, lease)

    patch.setattr(LocalLockProvider, "_release", clean)


def owner_unchecked(patch: pytest.MonkeyPatch) -> None:
    """A lease is given back by whoever once had it."""
    release = LocalLockProvider._release

    def anybody(self: LocalLockProvider, lease: Lease) -> bool:
        held = self._held.get(lease.name)
        if held is not None:
            lease = Lease(lease.name, held.lease.token, lease.expires)
        return release(self, lease)

    patch.setattr(LocalLockProvider, "_release", anybody)


def not_renewed(patch: pytest.MonkeyPatch) -> None:
    """Leases are not renewed."""
    patch.setattr(Runner, "renew_leases", lambda self: None)


def claims_not_renewed(patch: pytest.MonkeyPatch) -> None:
    """The claims of long steps are not renewed."""
    patch.setattr(Runner, "renew_claims", lambda self: None)


def claims_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A claim does not expire."""
    is_ready = engine._is_ready

    def unclaimed(instance: Instance, pointer: Pointer, now: datetime) -> bool:
        return pointer.id not in instance.claims and is_ready(instance, pointer, now)

    patch.setattr(engine, "_is_ready", unclaimed)


def waits_apart(patch: pytest.MonkeyPatch) -> None:
    """The index of waits is written after the commit, by another call."""
    set_waits = MemoryPersistenceProvider._set_waits

    def later(self: Any, transitions: Sequence[Transition]) -> list[Outcome]:
        waits: list[tuple[Any, Any]] = []
        with pytest.MonkeyPatch.context() as apart:
            apart.setattr(
                MemoryPersistenceProvider,
                "_set_waits",
                lambda _, record, found: waits.append((record, found)),
            )
            outcomes = self.store.commit(transitions)
        self.line.boundary("commit", before=True)
        for record, found in waits:
            set_waits(self.store, record, found)
        return list(outcomes)

    patch.setattr(NodeStore, "commit", later)


def unconfirmed(patch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the broker's confirmation: what did not get through counts as sent."""

    def lost(self: NodeQueue, messages: Sequence[Waiting]) -> None:
        return None

    patch.setattr(NodeQueue, "unconfirmed", lost)


def no_hold(patch: pytest.MonkeyPatch) -> None:
    """The scheduler does not hold what it sends."""

    def found(self: Any, now: datetime, hold_until: Callable[[Due], datetime], limit: int) -> list[Due]:
        due = [self._to_due(self._records[key]) for key in self._due.until(now, limit)]
        for one in due:
            self._watch.held(one)
        return due

    patch.setattr(WatchedStore, "hold_due", found)


def no_look_after_commit(patch: pytest.MonkeyPatch) -> None:
    """The event log is looked at before the wait is stored, and not after."""
    patch.setattr(Storing, "_look", lambda self, act, instance, known: None)


def no_look_at_load(patch: pytest.MonkeyPatch) -> None:
    """Who is woken for an event does not look into the log."""
    patch.setattr(Calls, "_look", lambda self, looks: [[] for _ in looks])


def key_unchecked(patch: pytest.MonkeyPatch) -> None:
    """The idempotency key of a start says nothing."""
    patch.setattr(client_module, "start_id", lambda key: str(uuid.uuid4()))


def wake_unlowered(patch: pytest.MonkeyPatch) -> None:
    """Who is turned away acknowledges without lowering `wake_at`."""
    patch.setattr(MemoryPersistenceProvider, "lower_wake", lambda self, wakes: None)


def wake_uncompared(patch: pytest.MonkeyPatch) -> None:
    """Who leaves an instance clears `wake_at` whatever it is meanwhile."""

    def move(self: MemoryPersistenceProvider, moves: Sequence[WakeMove]) -> None:
        for one in moves:
            record = self._records[one.instance_id]
            self._set_wake(record.instance, one.new)
            record.instance.message_sent = one.message_sent

    patch.setattr(MemoryPersistenceProvider, "move_wake", move)


def certainty_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A timer is due when the worker's own clock says so."""
    patch.setattr(NodeStore, "clock_uncertainty", timedelta(0))


def no_patience(patch: pytest.MonkeyPatch) -> None:
    """Who is sent for while an instance is being stored looks for it once."""
    patch.setattr(early, "PATIENCE", -1.0)


def not_told_again(patch: pytest.MonkeyPatch) -> None:
    """The early wake-up is relied on for longer than it is held."""
    patch.setattr(early, "PATIENCE", 0.02)
    patch.setattr(early, "IN_TIME", math.inf)


MUTATIONS = [
    Mutation("compare-and-set off", no_compare),
    Mutation("acknowledged before the commit", ack_first, "events", only(Fault.CRASH)),
    Mutation("wake-up mark ignored", mark_ignored, "events", only(Fault.DELAY)),
    Mutation("waits stored apart from the commit", waits_apart, "events", only(Fault.CRASH, 0.03), ALONE),
    Mutation("no confirmation by the broker", unconfirmed, "events", only(Fault.FAILURE)),
    Mutation("leases not renewed", not_renewed, "burst", only(Fault.DELAY, 0.5, 1.5), LONG),
    Mutation("claims not renewed", claims_not_renewed),
    Mutation("owner not checked at release", owner_unchecked, "chains", only(Fault.PAUSE)),
    Mutation("scheduler without hold", no_hold),
    Mutation("event log looked at before the commit only", no_look_after_commit, "events"),
    Mutation("event log not looked at by who is woken", no_look_at_load, "events"),
    Mutation("claims do not expire", claims_for_ever, "chains", only(Fault.CRASH)),
    Mutation("idempotency key unchecked", key_unchecked, "keys"),
    Mutation("commit's token unchecked", no_token, "control", only(Fault.LOST_REPLY)),
    Mutation("inbox not compared", inbox_not_compared, "control"),
    Mutation("`wake_at` not lowered by who is turned away", wake_unlowered, "events", only(Fault.CRASH)),
    Mutation("`wake_at` cleared without comparing", wake_uncompared, "timers", only(Fault.DELAY)),
    Mutation("too early a wake-up dropped at once", no_patience, "chains", only(Fault.DELAY)),
    Mutation("not told once more what was stored late", not_told_again, "chains", only(Fault.DELAY, 0.3)),
    Mutation("clocks taken for exact", certainty_forgotten, "timers", only(Fault.DELAY)),
]
