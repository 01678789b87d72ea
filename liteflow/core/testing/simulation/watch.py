"""Watches a history for broken promises, from where the truth is: inside the store and the lock server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from liteflow.core import engine
from liteflow.core.bodies import Job, Work
from liteflow.core.models import (
    Claim,
    Event,
    Instance,
    Pointer,
    PointerStatus,
    Wait,
    WorkflowStatus,
    wait_key,
)
from liteflow.core.poller import LEADER
from liteflow.core.providers import Due
from liteflow.core.testing.simulation.world import BEGINNING, SECOND, Node, World
from liteflow.core.transition import Transition

SLACK = timedelta(seconds=0.3)
"""What is due by less than that may still be on its way when all is quiet."""

SENT_AT_MOST = 6
"""So often the scheduler may send an instance for the same due time: whoever looks too early puts it back."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was broken: which one, how, and at which second of the history."""

    promise: str
    how: str
    at: float

    def __str__(self) -> str:
        return f"{self.at:.6f} {self.promise}: {self.how}"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a body. `position` counts what was stored of its pointer before.

    `held` tells that its node had the instance's lease, since when, or that the body runs under a claim.
    """

    instance_id: str
    pointer_id: str
    step_id: str
    attempt: int
    node: Node
    micros: int
    position: int
    held: bool
    since: int


@dataclass(slots=True)
class _Grant:
    token: str
    node: Node
    expires: float
    at: int
    forgotten: bool = False


class Watch:
    """Sees every lease, commit and body of a history. `excused` tells whether anything has gone wrong."""

    def __init__(self, world: World, excused: Callable[[], bool]) -> None:
        self.broken: list[Broken] = []
        self.runs: list[Run] = []
        self._world = world
        self._excused = excused
        self._grants: dict[str, _Grant] = {}
        self._lost: dict[str, int] = {}  # by instance: when a lease or a claim of it was last lost
        self._last: dict[tuple[str, str], Run] = {}
        self._positions: Counter[tuple[str, str]] = Counter()
        self._ended: dict[tuple[str, str], int] = {}
        # When a pointer that sleeps until a time of its node's clock is due, by the true time.
        self._due: dict[tuple[str, str, datetime], int] = {}
        self._taken: set[tuple[str, str]] = set()
        self._held: Counter[tuple[str, datetime]] = Counter()

    def tell(self, promise: str, how: str) -> None:
        """A promise is broken."""
        self.broken.append(Broken(promise, how, self._world.micros / SECOND))

    # ------------------------------------------------------------------------------------------- leases

    def leased(self, name: str, token: str, expires: float) -> None:
        """A lease was given."""
        known, now = self._grants.get(name), self._world.micros / SECOND
        if known is not None:
            taken = known.expires > now and not known.forgotten
            if taken:
                self.tell("one holder", f"{name} is given away while {known.node.name} has it")
            elif name != LEADER and not self._excused():
                self.tell("leases are renewed", f"{name} ran out, although {known.node.name} is well")
            self._lost[name.partition(":")[2]] = self._world.micros
        self._grants[name] = _Grant(token, self._world.actor().node, expires, self._world.micros)

    def renewed(self, name: str, token: str, expires: float) -> None:
        """A lease lives longer."""
        known = self._grants.get(name)
        if known is not None and known.token == token:
            known.expires = expires

    def released(self, name: str, token: str) -> None:
        """A lease was given back."""
        known = self._grants.get(name)
        if known is not None and known.token == token:
            del self._grants[name]

    def forgotten(self) -> None:
        """The lock server has lost them all."""
        for grant in self._grants.values():
            grant.forgotten = True

    def _held_by(self, node: Node, instance_id: str) -> _Grant | None:
        grant = self._grants.get(f"workflow:{instance_id}")
        if grant is None or grant.node is not node or grant.forgotten:
            return None
        return grant if grant.expires > self._world.micros / SECOND else None

    # ------------------------------------------------------------------------------------------- bodies

    def body(self, node: Node, work: Work, run: Callable[[Work], Any]) -> Any:
        """A slot runs a body."""
        if isinstance(work, Job):
            self._begins(node, work)
        return run(work)

    def _begins(self, node: Node, job: Job) -> None:
        instance_id, pointer = job.instance.id, job.pointer
        key = (instance_id, pointer.id)
        what = f"{instance_id} pointer {pointer.id} ({job.step.id})"
        lease = self._held_by(node, instance_id)
        mine = Run(
            instance_id, pointer.id, job.step.id, pointer.retry_count + 1, node, self._world.micros,
            self._positions[key], lease is not None or job.claim is not None,
            lease.at if lease is not None else self._world.micros - 1,
        )  # fmt: skip
        self.runs.append(mine)
        if job.dropped:
            self.tell("control lands", f"nobody wants {what} any more, and it begins on {node.name}")
        if lease is not None and self._ended.get(key, lease.at) < lease.at:  # it has been loaded since
            self.tell("a committed step never runs again", f"{what} has ended and begins on {node.name}")
        last, self._last[key] = self._last.get(key), mine
        if last is not None and last.position == mine.position and not self._excuses(last, mine):
            self.tell(
                "a step runs twice only after a death or a lost lease",
                f"{what} ran on {last.node.name} at {last.micros / SECOND:.6f}, begins on {node.name}",
            )
        if pointer.status is PointerStatus.SLEEPING and pointer.sleep_until is not None:
            # Of the sleep that it has loaded: who has lost its lease may be rounds behind.
            due = self._due[(*key, pointer.sleep_until)]
            if self._world.micros < due:
                early = (due - self._world.micros) / 1000
                self.tell("timers are never early", f"{what} begins {early:.3f} ms early")

    def _excuses(self, last: Run, mine: Run) -> bool:
        """May a body run again? Its process died, or somebody does not know yet that a lease was lost."""
        lost = self._lost.get(mine.instance_id, -1)
        return last.node.dead or not last.held or lost > last.since or (lost >= 0 and not mine.held)

    # ------------------------------------------------------------------------------------------ commits

    def committed(
        self,
        transition: Transition,
        after: Instance,
        revision: int,
        before: Mapping[str, Pointer | None],
        consumed: Mapping[str, Sequence[str]],
        claims: Mapping[str, Claim],
    ) -> None:
        """A transition was applied, now. `revision`, `before`, `consumed` and `claims` are from before it."""
        node = self._world.actor().node
        if self._held_by(node, after.id) is None:
            # It lost its lease, and still commits first: what the new holder has run counts for nothing.
            self._lost[after.id] = self._world.micros
        if transition.revision != revision:
            self.tell(
                "one history",
                f"{after.id}: what {node.name} made of revision {transition.revision} replaces {revision}",
            )
        for pointer_id, new in transition.pointers.items():
            if pointer_id not in transition.claims_set:
                self._positions[after.id, pointer_id] += 1
            old = before[pointer_id]
            if old is not None and old.ended and not new.ended:
                self.tell("one history", f"{after.id}: pointer {pointer_id} had ended and is open again")
            if new.ended:
                self._ended.setdefault((after.id, pointer_id), self._world.micros)
            self._timer(after.id, node, old, new)
        for pointer_id, claim in claims.items():
            self._taken_over(after.id, pointer_id, claim)
        if "consumed" in transition.fields:
            self._consumed(after, consumed)

    def _timer(self, instance_id: str, node: Node, old: Pointer | None, new: Pointer) -> None:
        key = (instance_id, new.id)
        was = old.sleep_until if old is not None else None
        if old is not None and was is not None and was != new.sleep_until:
            due = self._due.get((*key, was))
            slept = old.status is PointerStatus.SLEEPING and new.status in _AWAKE
            if due is not None and (slept or new.timed_out) and self._world.micros < due:
                early = (due - self._world.micros) / 1000
                self.tell("timers are never early", f"{instance_id} pointer {new.id} is {early:.3f} ms early")
        if new.sleep_until is not None and new.sleep_until != was:
            due = (new.sleep_until - BEGINNING) // timedelta(microseconds=1) - node.skew
            self._due[(*key, new.sleep_until)] = due

    def _taken_over(self, instance_id: str, pointer_id: str, claim: Claim) -> None:
        last = self._last.get((instance_id, pointer_id))
        well = last is not None and not last.node.dead
        if well and not self._excused():
            self.tell("claims are renewed", f"{instance_id} pointer {pointer_id} is taken from who is well")
        elif well and claim.until > self.now() + SLACK:
            self.tell("claims hold", f"{instance_id} pointer {pointer_id} is taken before the claim's end")
        self._lost[instance_id] = self._world.micros

    def _consumed(self, after: Instance, before: Mapping[str, Sequence[str]]) -> None:
        for key, ids in after.consumed.items():
            for event_id in set(ids).difference(before.get(key, ())):
                if (after.id, event_id) in self._taken:
                    self.tell("an event reaches each wait once", f"{after.id} takes event {event_id} again")
                self._taken.add((after.id, event_id))

    def held(self, due: Due) -> None:
        """The scheduler sends it."""
        self._held[due.instance_id, due.wake_at] += 1
        if self._held[due.instance_id, due.wake_at] == SENT_AT_MOST:
            self.tell("what is sent is held", f"{due.instance_id} is sent again and again for {due.wake_at}")

    def now(self) -> datetime:
        """The store's time."""
        return BEGINNING + timedelta(microseconds=self._world.micros)

    # ------------------------------------------------------------------------------------------- quiet

    def at_rest(
        self, instances: Sequence[Instance], events: Callable[[Sequence[Wait], datetime], Sequence[Event]]
    ) -> None:
        """All is quiet: nothing may be undone, and what is to come has to be known to the scheduler."""
        past = self.now() - SLACK
        for instance in instances:
            problem = _undone(instance, past, events)
            if problem:
                self.tell("no lost wake-up", f"all is quiet, and {instance.id} {problem}")


_AWAKE = frozenset(
    [PointerStatus.PENDING, PointerStatus.RUNNING, PointerStatus.COMPLETE, PointerStatus.WAITING_FOR_EVENT]
)


def _undone(
    instance: Instance, past: datetime, events: Callable[[Sequence[Wait], datetime], Sequence[Event]]
) -> str | None:
    """What is left to do for an instance that nobody is at, or None. `past` is a time gone by."""
    if instance.parked is not None:
        return f"is parked: {instance.parked.reason}"
    if instance.outbox:
        return "has something in its outbox"
    if instance.status.ended:
        return None
    if instance.inbox:
        return f"has an unread request: {instance.inbox[0].kind}"
    if instance.status is not WorkflowStatus.RUNNABLE:
        return None
    if not instance.begun:
        return "has not begun"
    ready = engine.ready(instance, past)
    if ready:
        return f"could go on with {ready[0].step_id}"
    waits = instance.waits()
    for event in events(waits, past) if waits else ():
        if event.id not in instance.consumed.get(wait_key(event.name, event.key), ()):
            return f"has not got the event {event.name} {event.key} of {event.time}"
    timers = [t for p in instance.open_pointers() for t in (p.sleep_until, p.deadline) if t is not None]
    if instance.deadline is not None:
        timers.append(instance.deadline)
    if timers and min(timers) <= past:
        return f"was due at {min(timers)}"
    if timers and (instance.wake_at is None or instance.wake_at > min(timers) + SLACK):
        return f"is due at {min(timers)}, but nobody is going to look before {instance.wake_at}"
    return None
