"""The scheduler's work: send wake-ups for what is due, and for what got lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from liteflow.core.bundles import bundled
from liteflow.core.errors import UnavailableError
from liteflow.core.flow import INTERNAL_EVENTS
from liteflow.core.models import Parked
from liteflow.core.parking import nobody_runs, redrive
from liteflow.core.presence import DefinitionKey, Runnable
from liteflow.core.providers import (
    EVENTS_QUEUE,
    Due,
    Lease,
    LockProvider,
    Message,
    PersistenceProvider,
    QueueProvider,
    workflow_queue,
)
from liteflow.core.runtime import THREADS, Runtime
from liteflow.core.settings import Settings
from liteflow.core.topics import DUE_TOPIC

log = logging.getLogger("liteflow.scheduler")

PAGE = 500
"""So many instances are held and sent at a time."""

BACKLOG = 200
"""With more messages than that waiting in a queue, one that was sent is taken to be among them."""

LONGEST_HOLD = 300.0
"""Seconds; the growing time after which an instance that nobody looked at is sent again."""

DOUBLINGS = 2
"""So often that time doubles if no backlog explains why nobody looked: then its message got lost."""

PURGE_EVERY = 3600.0
"""Seconds between two looks for events that are old enough to be deleted."""

REMEMBER_DEAD_FOR = 24 * 3600.0
"""Seconds for which it is told of a process that it has died."""

LEADER = "scheduler"


class Poller:
    """Scans the store by index while it leads. Several processes may have one: a lease elects.

    `leads_now` is called when it begins to lead.
    """

    def __init__(
        self,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        lock: LockProvider,
        settings: Settings,
        runtime: Runtime = THREADS,
        *,
        leads_now: Callable[[], None] = lambda: None,
    ) -> None:
        self._leads_now = leads_now
        self._persistence = persistence
        self._queue = queue
        self._lock = lock
        self._settings = settings
        self._lease: Lease | None = None
        self._clock = runtime.monotonic
        self._spread = runtime.spread
        self._purge_at = 0.0
        self._recall_until: datetime | None = None
        self._periodic = runtime.periodic("scheduler", self._round)
        self._unsubscribe: Callable[[], None] = lambda: None
        self._runnable = Runnable(persistence, runtime.monotonic)
        self._look_at_parked = False
        self._told_of: set[DefinitionKey] = set()  # definitions that have no worker

    @property
    def leads(self) -> bool:
        """True while this one is at work, and not another."""
        return self._lease is not None

    def start(self) -> None:
        """Begin to scan.

        With lock and queue of this process alone, a lasting store is what a process before has left: nobody
        else is at anything, and the messages that were sent are gone. So what it had at hand is looked at.
        """
        if self._persistence.shared and not self._queue.shared and not self._lock.shared:
            self._recall_until = self._persistence.now() + timedelta(seconds=LONGEST_HOLD)
        self._unsubscribe = self._queue.subscribe(DUE_TOPIC, self._due_earlier)
        self._periodic.start()

    def stop(self) -> None:
        """End, and let another one lead at once."""
        self._unsubscribe()
        self._periodic.stop()
        lease, self._lease = self._lease, None
        if lease is not None:
            self._lock.release([lease])

    def _due_earlier(self, seconds: str) -> None:
        left = float(seconds) - self._persistence.now().timestamp()
        self._periodic.nudge(max(left, 0.0))

    def _round(self) -> float:
        if not self._lead():
            return self._settings.lease_ttl / 3
        if self._look_at_parked:
            # Whoever led before may have died between parking and asking who is there.
            for definition in sorted(self._runnable.read()):
                redrive(self._persistence, self._queue, *definition)
            self._look_at_parked = False
        while self._recall() or self._send_due() or self._send_events():
            if not self._lead():
                return 0.0
        if self._purge_events():
            return 0.0
        pause = min(self._settings.poll_interval, self._settings.lease_ttl / 3)
        due = self._persistence.next_due()
        if due is not None:
            pause = min(pause, max((due - self._certainly()).total_seconds(), 0.001))
        return pause

    def _certainly(self) -> datetime:
        """A time that has come by any process's clock: who is sent for what is due by it finds it due."""
        return self._persistence.now() - self._persistence.clock_uncertainty

    def _lead(self) -> bool:
        ttl = self._settings.lease_ttl
        if self._lease is not None:
            if self._lock.renew([self._lease], ttl)[0]:
                return True
            log.warning("this scheduler does not lead any more")
            self._lease = None
        outcome = self._lock.acquire([LEADER], ttl)[0]
        if isinstance(outcome, Lease):
            self._lease = outcome
            self._look_at_parked = True
            log.info("this scheduler leads")
            self._leads_now()
            return True
        return False

    def _recall(self) -> bool:
        """Send one page of what is due as late as a message counts as lost; True if there may be more."""
        if self._recall_until is None:
            return False
        until = self._recall_until
        recalled = self._persistence.hold_due(until, lambda _: until + timedelta(microseconds=1), PAGE)
        self._send(bundled([_message(one, recalled=True) for one in recalled], self._spread))
        if len(recalled) < PAGE:
            self._recall_until = None
        return len(recalled) == PAGE

    def _send_due(self) -> bool:
        """One page; True if there may be more."""
        now = self._persistence.now()
        runnable: frozenset[DefinitionKey] | None = None
        read = False
        depths: dict[str, int] = {}

        def hold(due: Due) -> datetime | Parked:
            nonlocal runnable, read
            if runnable is None:  # not asked for when nothing is due
                runnable = self._runnable.definitions()
            if _definition(due) not in runnable and not read:  # not by now either?
                runnable, read = runnable | self._runnable.read(), True
            if _definition(due) in runnable:
                return self._hold_until(now, due, depths)
            self._look_at_parked = True  # the next time, unless all goes well now
            return nobody_runs(*_definition(due), now)

        due = self._persistence.hold_due(self._certainly(), hold, PAGE)
        parked = [one for one in due if _definition(one) not in (runnable or ())]
        if parked:
            self._parked(parked)
            self._look_at_parked = False
        self._wake([one for one in due if _definition(one) in (runnable or ())], depths)
        return len(due) == PAGE

    def _parked(self, parked: list[Due]) -> None:
        """These were just parked. Who has come since it was asked last has not seen that: ask once more."""
        runnable = self._runnable.read()
        self._told_of -= runnable
        for definition in sorted({_definition(one) for one in parked}):
            if definition in runnable:
                redrive(self._persistence, self._queue, *definition)
            elif definition not in self._told_of:
                self._told_of.add(definition)
                log.warning("no worker with %s version %d is alive: its instances are parked", *definition)

    def _wake(self, due: list[Due], depths: dict[str, int]) -> None:
        messages = []
        for one in due:
            if one.message_sent or one.holds:
                if self._backlog(one, depths):
                    continue  # its message is in it
                log.info(
                    "workflow %s was due at %s and nobody has looked at it; sending its id again",
                    one.instance_id, one.wake_at.isoformat(),
                )  # fmt: skip
            messages.append(_message(one))
        self._send(bundled(messages, self._spread))

    def _backlog(self, due: Due, depths: dict[str, int]) -> bool:
        """Do many messages wait where its own would? `depths` are those that were asked for already."""
        queue = workflow_queue(due.workflow_definition_id, due.version)
        if queue not in depths:
            depths[queue] = self._queue.depth(queue)
        return depths[queue] > BACKLOG

    def _hold_until(self, now: datetime, due: Due, depths: dict[str, int]) -> datetime:
        doublings = due.holds
        if doublings > DOUBLINGS and not self._backlog(due, depths):
            doublings = DOUBLINGS
        return now + timedelta(seconds=min(self._settings.wake_grace * 2**doublings, LONGEST_HOLD))

    def _send_events(self) -> bool:
        hold = self._persistence.now() + timedelta(seconds=self._settings.wake_grace)
        events = self._persistence.hold_events(self._certainly(), hold, PAGE)
        self._send([Message(EVENTS_QUEUE, event.id, event.traceparent) for event in events])
        return len(events) == PAGE

    def _purge_events(self) -> bool:
        """Delete one page of events that were kept long enough; True if there may be more.

        Children and activities of a parent that is suspended end for it when it goes on, however late.
        """
        if self._clock() < self._purge_at:
            return False
        before = self._persistence.now() - timedelta(seconds=self._settings.event_retention)
        purged = self._persistence.purge_events(before, PAGE, INTERNAL_EVENTS)
        if purged:
            log.info("%d events from before %s were looked at, and deleted", purged, before.isoformat())
        if purged < PAGE:
            self._purge_at = self._clock() + PURGE_EVERY
            self._forget_the_dead()
        return purged == PAGE

    def _forget_the_dead(self) -> None:
        """Delete the records of processes that have died long ago."""
        before = self._persistence.now() - timedelta(seconds=REMEMBER_DEAD_FOR)
        dead = [process.id for process in self._persistence.processes() if process.until < before]
        self._persistence.forget_processes(dead)

    def _send(self, messages: list[Message]) -> None:
        if not messages:
            return
        try:
            self._queue.send(messages)
        except UnavailableError as exc:
            # They are held; when the hold runs out they are sent again.
            log.warning("%d messages could not be sent (%s); they are sent again later", len(messages), exc)


def _definition(due: Due) -> DefinitionKey:
    return due.workflow_definition_id, due.version


def _message(due: Due, *, recalled: bool = False) -> Message:
    queue = workflow_queue(due.workflow_definition_id, due.version)
    return Message(queue, due.instance_id, recalled=recalled)
