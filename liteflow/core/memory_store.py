"""The persistence provider that keeps everything in this process: the default, and the reference.

It keeps copies of what it is given and gives copies away, all values in their encoded form, so a test
that passes on it tells the truth about the others. One lock makes each method one act.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial

from liteflow.core.errors import ProviderError
from liteflow.core.memory_activities import ActivityPool
from liteflow.core.memory_copy import own, own_transition
from liteflow.core.memory_events import EventLog
from liteflow.core.memory_index import DueIndex, WaitIndex
from liteflow.core.memory_survey import survey
from liteflow.core.models import (
    Activity,
    DefinitionRecord,
    ErrorRecord,
    Event,
    Instance,
    Parked,
    Pointer,
    Request,
    Wait,
    WorkflowStatus,
    WorkflowSummary,
)
from liteflow.core.paging import decode_cursor, encode_cursor
from liteflow.core.providers import (
    ClaimRenewal,
    Due,
    ListFilter,
    Page,
    PersistenceProvider,
    RequestOutcome,
    Waiter,
    WakeMove,
)
from liteflow.core.survey import ProcessRecord, Survey
from liteflow.core.transition import Outcome, Transition

ERRORS_KEPT = 1000
"""So many of the last errors of an instance are kept."""


@dataclass(slots=True)
class _Record:
    """An instance as this provider keeps it: with the waits that are indexed and the count of holds."""

    instance: Instance
    waits: list[Wait]
    holds: int = 0


class MemoryPersistenceProvider(PersistenceProvider):
    """Keeps instances, events and the rest in memory. They end with the object, not with `close`.

    `clock` gives the time, aware UTC; the default is this machine's.
    """

    shared = False

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or partial(datetime.now, timezone.utc)
        self._last_now = datetime.min.replace(tzinfo=timezone.utc)
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}
        self._due = DueIndex()
        self._waiters = WaitIndex()
        self._parked: set[str] = set()
        self._history: dict[str, dict[str, Pointer]] = {}
        self._errors: dict[str, list[ErrorRecord]] = {}
        self._events = EventLog()
        self._activities = ActivityPool()
        self._definitions: dict[tuple[str, int], DefinitionRecord] = {}
        self._processes: dict[str, ProcessRecord] = {}

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Nothing to give back; what is stored stays."""

    def now(self) -> datetime:
        """The time of the clock; never goes backwards."""
        now = self._clock()
        if now > self._last_now:  # two threads may set it at once: of times that close either will do
            self._last_now = now
        return self._last_now

    # -------------------------------------------------------------------------------- instances

    def create(self, instances: Sequence[Instance]) -> list[bool]:
        """See `PersistenceProvider.create`."""
        with self._lock:
            return [self._create(instance) for instance in instances]

    def _create(self, instance: Instance) -> bool:
        known = self._records.get(instance.id)
        if known is not None:
            return instance.token != "" and known.instance.token == instance.token
        record = _Record(own(instance), [])
        self._records[instance.id] = record
        self._set_waits(record, instance.waits())
        self._due.set(instance.id, instance.wake_at)
        if instance.parked is not None:
            self._parked.add(instance.id)
        return True

    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        """See `PersistenceProvider.load`."""
        with self._lock:
            return {key: own(self._records[key].instance) for key in instance_ids if key in self._records}

    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        """See `PersistenceProvider.commit`."""
        with self._lock:
            return [self._commit(transition) for transition in transitions]

    def _commit(self, transition: Transition) -> Outcome:
        record = self._records.get(transition.instance_id)
        if record is None:
            return Outcome.CONFLICT
        instance = record.instance
        if transition.token and instance.token == transition.token:
            return Outcome.COMMITTED
        if instance.revision != transition.revision or instance.inbox_sequence != transition.inbox_sequence:
            return Outcome.CONFLICT
        for key, claim in transition.claims_expected.items():
            if instance.claims.get(key) != claim:
                return Outcome.CONFLICT
        wake_at = instance.wake_at
        # What the engine has made nobody changes any more: parts of it may become parts of what is kept here.
        (transition if transition.after is not None else own_transition(transition)).apply(instance)
        if instance.wake_at != wake_at:
            self._due.set(instance.id, instance.wake_at)
        if transition.waits is not None:
            self._set_waits(record, transition.waits)
        if transition.errors:
            errors = self._errors.setdefault(instance.id, [])
            errors += transition.errors
            del errors[:-ERRORS_KEPT]
        if self._parked:
            self._parked.discard(instance.id)
        record.holds = 0
        return Outcome.COMMITTED

    def _set_waits(self, record: _Record, waits: Sequence[Wait]) -> None:
        if not waits and not record.waits:
            return
        before = {(wait.name, wait.key) for wait in record.waits}
        after = {(wait.name, wait.key) for wait in waits}
        self._waiters.remove(before - after, record.instance.id)
        self._waiters.add(after - before, record.instance.id)
        record.waits = list(waits)

    def _set_wake(self, instance: Instance, wake_at: datetime | None) -> None:
        instance.wake_at = wake_at
        self._due.set(instance.id, wake_at)

    def _lower(self, instance: Instance, wake_at: datetime) -> None:
        if instance.wake_at is None or wake_at < instance.wake_at:
            self._set_wake(instance, wake_at)

    def request(self, instance_id: str, request: Request, wake_at: datetime) -> RequestOutcome:
        """See `PersistenceProvider.request`."""
        with self._lock:
            record = self._records.get(instance_id)
            if record is None:
                return RequestOutcome.NOT_FOUND
            instance = record.instance
            if request.id in instance.applied or any(known.id == request.id for known in instance.inbox):
                return RequestOutcome.DUPLICATE
            if instance.status.ended:
                return RequestOutcome.ENDED
            instance.inbox_sequence += 1
            # A new list, since the old one may be part of what others hold.
            instance.inbox = [*instance.inbox, replace(own(request), sequence=instance.inbox_sequence)]
            self._lower(instance, wake_at)
            return RequestOutcome.STORED

    # -------------------------------------------------------------------------- history, errors

    def archive(self, pointers: Sequence[tuple[str, Pointer]]) -> None:
        """See `PersistenceProvider.archive`."""
        with self._lock:
            for instance_id, pointer in pointers:
                self._history.setdefault(instance_id, {}).setdefault(pointer.id, own(pointer))

    def history(self, instance_id: str) -> list[Pointer]:
        """See `PersistenceProvider.history`."""
        with self._lock:
            archived = self._history.get(instance_id, {})
            return [own(archived[pointer_id]) for pointer_id in sorted(archived, key=int)]

    def errors(self, instance_id: str, limit: int) -> list[ErrorRecord]:
        """See `PersistenceProvider.errors`."""
        with self._lock:
            kept = self._errors.get(instance_id, [])
            return kept[max(0, len(kept) - limit) :]

    # ---------------------------------------------------------------------------------- wake_at

    def lower_wake(self, wakes: Mapping[str, datetime]) -> None:
        """See `PersistenceProvider.lower_wake`."""
        with self._lock:
            for instance_id, wake_at in wakes.items():
                record = self._records.get(instance_id)
                if record is not None and not record.instance.status.ended:
                    record.instance.message_sent, record.holds = False, 0
                    self._lower(record.instance, wake_at)

    def move_wake(self, moves: Sequence[WakeMove]) -> None:
        """See `PersistenceProvider.move_wake`."""
        with self._lock:
            for move in moves:
                record = self._records.get(move.instance_id)
                if record is None:
                    continue
                instance = record.instance
                if (instance.revision, instance.inbox_sequence) != (move.revision, move.inbox_sequence):
                    continue
                current, new = instance.wake_at, move.new
                if current == move.expected or (current is not None and new is not None and new < current):
                    self._set_wake(instance, move.new)
                    instance.message_sent = move.message_sent
                    instance.parked = None
                    self._parked.discard(instance.id)
                    record.holds = 0

    def hold_due(self, now: datetime, hold: Callable[[Due], datetime | Parked], limit: int) -> list[Due]:
        """See `PersistenceProvider.hold_due`."""
        with self._lock:
            found = [self._records[key] for key in self._due.until(now, limit)]
            read = [(self._to_due(record), record.instance.revision) for record in found]
        # Outside of the lock: the function is the caller's.
        holds = [(due, revision, hold(due)) for due, revision in read]
        held: list[Due] = []
        with self._lock:
            for due, revision, until in holds:
                record = self._records.get(due.instance_id)
                if record is None:
                    continue
                instance = record.instance
                if instance.revision != revision or instance.wake_at is None or self._to_due(record) != due:
                    continue
                if isinstance(until, Parked):
                    self._park(instance, until)
                    record.holds = 0
                else:
                    self._set_wake(instance, until)
                    record.holds += 1
                held.append(due)
        return held

    @staticmethod
    def _to_due(record: _Record) -> Due:
        instance = record.instance
        assert instance.wake_at is not None
        return Due(
            instance.id,
            instance.workflow_definition_id,
            instance.version,
            instance.wake_at,
            instance.message_sent,
            record.holds,
        )

    def next_due(self) -> datetime | None:
        """See `PersistenceProvider.next_due`."""
        with self._lock:
            times = (self._due.first(), self._events.next_due())
            return min((time for time in times if time is not None), default=None)

    def renew_claims(self, renewals: Sequence[ClaimRenewal]) -> list[bool]:
        """See `PersistenceProvider.renew_claims`."""
        with self._lock:
            return [self._renew_claim(renewal) for renewal in renewals]

    def _renew_claim(self, renewal: ClaimRenewal) -> bool:
        record = self._records.get(renewal.instance_id)
        claims = record.instance.claims if record is not None else {}
        claim = claims.get(renewal.pointer_id)
        if record is None or claim is None or claim.token != renewal.claim.token:
            return False
        moves = record.instance.wake_at == min(known.until for known in claims.values())
        claims[renewal.pointer_id] = replace(claim, until=renewal.until)
        if moves:
            self._set_wake(record.instance, min(known.until for known in claims.values()))
        return True

    def count_crash(self, instance_id: str, revision: int, by: int) -> None:
        """See `PersistenceProvider.count_crash`."""
        with self._lock:
            record = self._records.get(instance_id)
            if record is not None and record.instance.revision == revision:
                record.instance.crashes += by

    # ----------------------------------------------------------------------------------- parked

    def park(self, instance_id: str, revision: int, parked: Parked) -> None:
        """See `PersistenceProvider.park`."""
        with self._lock:
            record = self._records.get(instance_id)
            if record is not None and revision in (-1, record.instance.revision):
                self._park(record.instance, parked)

    def _park(self, instance: Instance, parked: Parked) -> None:
        instance.parked = parked
        self._parked.add(instance.id)
        self._set_wake(instance, None)

    def parked(self, workflow_definition_id: str, version: int, after: str, limit: int) -> list[Waiter]:
        """See `PersistenceProvider.parked`."""
        with self._lock:
            waiters = [self._to_waiter(found) for found in sorted(self._parked) if found > after]
        wanted = (workflow_definition_id, version)
        return [waiter for waiter in waiters if (waiter.workflow_definition_id, waiter.version) == wanted][
            :limit
        ]

    def _to_waiter(self, instance_id: str) -> Waiter:
        instance = self._records[instance_id].instance
        return Waiter(instance.id, instance.workflow_definition_id, instance.version)

    # ----------------------------------------------------------------------------------- events

    def add_event(self, event: Event) -> bool:
        """See `PersistenceProvider.add_event`."""
        with self._lock:
            return self._events.add(event)

    def events(self, waits: Sequence[Wait], now: datetime, limit: int) -> list[Event]:
        """See `PersistenceProvider.events`."""
        with self._lock:
            return self._events.fitting(waits, now, limit)

    def event(self, event_id: str) -> Event | None:
        """See `PersistenceProvider.event`."""
        with self._lock:
            return self._events.get(event_id)

    def hold_events(self, now: datetime, hold_until: datetime, limit: int) -> list[Event]:
        """See `PersistenceProvider.hold_events`."""
        with self._lock:
            return self._events.hold(now, hold_until, limit)

    def mark_processed(self, event_ids: Sequence[str]) -> None:
        """See `PersistenceProvider.mark_processed`."""
        with self._lock:
            self._events.mark_processed(event_ids, self.now())

    def waiting_for(self, name: str, key: str, after: str, limit: int) -> list[Waiter]:
        """See `PersistenceProvider.waiting_for`."""
        with self._lock:
            return [self._to_waiter(found) for found in self._waiters.after((name, key), after, limit)]

    # ------------------------------------------------------------------------------- activities

    def offer_activities(self, activities: Sequence[Activity]) -> None:
        """See `PersistenceProvider.offer_activities`."""
        with self._lock:
            self._activities.offer(activities)

    def take_activity(
        self, name: str, worker: str, token: str, now: datetime, until: datetime
    ) -> Activity | None:
        """See `PersistenceProvider.take_activity`."""
        with self._lock:
            return self._activities.take(name, worker, token, now, until)

    def activity(self, token: str) -> Activity | None:
        """See `PersistenceProvider.activity`."""
        with self._lock:
            return self._activities.of_token(token)

    def finish_activity(self, activity_id: str) -> None:
        """See `PersistenceProvider.finish_activity`."""
        with self._lock:
            self._activities.finish(activity_id)

    def release_activity(self, token: str) -> bool:
        """See `PersistenceProvider.release_activity`."""
        with self._lock:
            return self._activities.release(token)

    def withdraw_activities(self, activity_ids: Sequence[str]) -> None:
        """See `PersistenceProvider.withdraw_activities`."""
        with self._lock:
            self._activities.withdraw(activity_ids)

    # ------------------------------------------------------------------------------------ purge

    def purge(self, status: WorkflowStatus, older_than: datetime, limit: int) -> int:
        """See `PersistenceProvider.purge`."""
        if not status.ended:
            raise ProviderError(f"instances that are {status.name} have not ended and are not purged")
        with self._lock:
            ended = (
                (instance.complete_time, instance.id)
                for instance in (record.instance for record in self._records.values())
                if instance.status is status
                and instance.complete_time is not None
                and instance.complete_time < older_than
                and not instance.outbox
            )
            purged = {instance_id for _, instance_id in heapq.nsmallest(limit, ended)}
            for instance_id in purged:
                self._forget(instance_id)
            self._activities.withdraw_all_of(purged)
            return len(purged)

    def _forget(self, instance_id: str) -> None:
        self._set_waits(self._records[instance_id], [])
        self._due.set(instance_id, None)
        self._parked.discard(instance_id)
        self._history.pop(instance_id, None)
        self._errors.pop(instance_id, None)
        del self._records[instance_id]

    def purge_events(self, before: datetime, limit: int, unless_awaited: Sequence[str] = ()) -> int:
        """See `PersistenceProvider.purge_events`."""
        with self._lock:
            old = self._events.old(before, limit)
            for event in old:
                topic = (event.name, event.key)
                if event.name in unless_awaited and self._waiters.after(topic, "", 1):
                    self._events.mark_processed([event.id], self.now())
                else:
                    self._events.remove(event)
            return len(old)

    # -------------------------------------------------------------------------------- definitions

    def record_definitions(self, definitions: Sequence[DefinitionRecord]) -> None:
        """See `PersistenceProvider.record_definitions`."""
        with self._lock:
            for record in definitions:
                self._definitions[record.id, record.version] = record

    def definitions(self, workflow_definition_id: str | None = None) -> list[DefinitionRecord]:
        """See `PersistenceProvider.definitions`."""
        with self._lock:
            records = [self._definitions[key] for key in sorted(self._definitions)]
        return [record for record in records if workflow_definition_id in (None, record.id)]

    def forget_definition(self, workflow_definition_id: str, version: int) -> bool:
        """See `PersistenceProvider.forget_definition`."""
        with self._lock:
            return self._definitions.pop((workflow_definition_id, version), None) is not None

    # -------------------------------------------------------------------------------- the cluster

    def beat(self, process: ProcessRecord) -> None:
        """See `PersistenceProvider.beat`."""
        with self._lock:
            self._processes[process.id] = process

    def processes(self) -> list[ProcessRecord]:
        """See `PersistenceProvider.processes`."""
        with self._lock:
            return [self._processes[key] for key in sorted(self._processes)]

    def forget_processes(self, process_ids: Sequence[str]) -> None:
        """See `PersistenceProvider.forget_processes`."""
        with self._lock:
            for process_id in process_ids:
                self._processes.pop(process_id, None)

    def survey(self, overdue_since: datetime) -> Survey:
        """See `PersistenceProvider.survey`."""
        with self._lock:
            return survey(
                [record.instance for record in self._records.values()],
                [self._records[key].instance for key in self._parked],
                overdue_since,
            )

    # -------------------------------------------------------------------------------- listing

    def list(self, query: ListFilter) -> Page:
        """See `PersistenceProvider.list`."""
        with self._lock:
            newest = heapq.nlargest(query.limit + 1, self._matching(query), lambda i: (i.create_time, i.id))
            items = [_summary(instance) for instance in newest[: query.limit]]
        more = len(newest) > query.limit
        return Page(items, encode_cursor(items[-1].create_time, items[-1].id) if more else None)

    def _matching(self, query: ListFilter) -> Iterator[Instance]:
        before = decode_cursor(query.cursor) if query.cursor is not None else None
        for record in self._records.values():
            instance = record.instance
            if (
                query.status in (None, instance.status)
                and query.workflow in (None, instance.workflow_definition_id)
                and query.reference in (None, instance.reference)
                and query.parked in (None, instance.parked is not None)
                and (query.created_after is None or query.created_after <= instance.create_time)
                and (query.created_before is None or instance.create_time < query.created_before)
                and (before is None or (instance.create_time, instance.id) < before)
            ):
                yield instance


def _summary(instance: Instance) -> WorkflowSummary:
    return WorkflowSummary(
        instance.id,
        instance.status,
        instance.workflow_definition_id,
        instance.version,
        instance.reference,
        instance.create_time,
        instance.complete_time,
        instance.parked.reason if instance.parked is not None else None,
    )
