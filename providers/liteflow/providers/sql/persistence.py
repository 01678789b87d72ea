"""The persistence provider that stores workflows in a SQL database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from liteflow.core.errors import ProviderError
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
)
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
from liteflow.core.server_clock import ServerClock
from liteflow.core.survey import ProcessRecord, Survey
from liteflow.core.transition import Outcome, Transition
from liteflow.providers.sql.activities import ActivityPool
from liteflow.providers.sql.claims import ClaimStore
from liteflow.providers.sql.committing import Committer
from liteflow.providers.sql.connection import create
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.definitions import DefinitionLog
from liteflow.providers.sql.error_log import ErrorLog
from liteflow.providers.sql.errors import mapped
from liteflow.providers.sql.event_log import EventLog
from liteflow.providers.sql.history import History
from liteflow.providers.sql.instances import Instances
from liteflow.providers.sql.listing import list_page
from liteflow.providers.sql.migrating import migrate
from liteflow.providers.sql.opening import checked_prefix
from liteflow.providers.sql.processes import ProcessLog
from liteflow.providers.sql.purging import Purge
from liteflow.providers.sql.records import Encoder
from liteflow.providers.sql.requests import Inbox
from liteflow.providers.sql.scheduling import Scheduling
from liteflow.providers.sql.schema import Tables, tables
from liteflow.providers.sql.servers import prepare, server_time, version_of
from liteflow.providers.sql.surveying import survey

CLOCK_RESOLUTION = 1
"""Microseconds to which the servers cut the time that they tell."""


@dataclass(frozen=True, slots=True)
class _Store:
    """What there is while the provider is open."""

    database: Database
    clock: ServerClock
    tables: Tables
    instances: Instances
    committer: Committer
    claims: ClaimStore
    scheduling: Scheduling
    inbox: Inbox
    events: EventLog
    activities: ActivityPool
    errors: ErrorLog
    history: History
    definitions: DefinitionLog
    processes: ProcessLog
    purge: Purge


class SqlPersistenceProvider(PersistenceProvider):
    """Stores workflows in SQLite 3.35, PostgreSQL 12, MySQL 8.0.17, MariaDB 10.6 or later.

    `url` is one of ``sqlite:///file.db``, ``postgresql://user:password@host/database``, ``mysql://...`` and
    ``mariadb://...``; its query string goes to the driver. Tables are named ``<prefix>_instances`` and so
    on, so that several systems can share a database; they are made by the first who opens the provider.
    `options` are options of SQLAlchemy's `create_engine`.

    A SQLite file is safe for several processes on one machine, but is also the store of a single one: it
    goes with the lock and the queue of this process. Several hosts that run its workflows need a lock that
    they share.
    """

    def __init__(self, url: str, prefix: str = "liteflow", **options: Any) -> None:
        self._url = url
        self._prefix = checked_prefix(prefix)
        self._options = options
        self._opening = threading.Lock()
        self._opened: _Store | None = None
        self.embedded = url.lower().startswith("sqlite")

    def __repr__(self) -> str:
        # Without the URL: it may hold a password.
        return f"<SqlPersistenceProvider {self._prefix}>"

    @property
    def _store(self) -> _Store:
        store = self._opened
        if store is None:
            raise ProviderError("SQL: the provider is not open")
        return store

    def open(self) -> None:
        """Connect, make the tables or bring them up to date, and learn the server's time."""
        with self._opening:
            if self._opened is None:
                self._opened = self._connect()

    def _connect(self) -> _Store:
        engine = create(self._url, self._options)
        try:
            with mapped():
                database = Database(engine)
                encoder = Encoder(prepare(database))
                migrate(database, self._prefix)
            clock = ServerClock(mapped()(partial(server_time, database)), CLOCK_RESOLUTION)
            clock.measure()
        except BaseException:
            engine.dispose()
            raise
        named = tables(self._prefix)
        errors = ErrorLog(database, named)
        return _Store(
            database=database,
            clock=clock,
            tables=named,
            instances=Instances(database, named, encoder),
            committer=Committer(database, named, encoder, errors),
            claims=ClaimStore(database, named, encoder),
            scheduling=Scheduling(database, named),
            inbox=Inbox(database, named, encoder),
            events=EventLog(database, named, encoder),
            activities=ActivityPool(database, named, encoder),
            errors=errors,
            history=History(database, named, encoder),
            definitions=DefinitionLog(database, named),
            processes=ProcessLog(database, named),
            purge=Purge(database, named),
        )

    def close(self) -> None:
        """Give back the connections."""
        with self._opening:
            store, self._opened = self._opened, None
        if store is not None:
            store.clock.join()
            store.database.engine.dispose()

    @mapped()
    def describe(self) -> str:
        """The database and its version."""
        return " ".join(self._store.database.read(version_of))

    def now(self) -> datetime:
        """The server's clock, by an offset that is measured once a minute; of SQLite this machine's."""
        return self._store.clock.now()

    @property
    def clock_uncertainty(self) -> timedelta:
        """See `PersistenceProvider.clock_uncertainty`."""
        return self._store.clock.uncertainty

    # -------------------------------------------------------------------------------- instances

    @mapped()
    def create(self, instances: Sequence[Instance]) -> list[bool]:
        """See `PersistenceProvider.create`."""
        return self._store.instances.create(instances)

    @mapped()
    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        """See `PersistenceProvider.load`."""
        return self._store.instances.load(instance_ids)

    @mapped()
    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        """See `PersistenceProvider.commit`."""
        return self._store.committer.commit(transitions)

    @mapped()
    def archive(self, pointers: Sequence[tuple[str, Pointer]]) -> None:
        """See `PersistenceProvider.archive`."""
        self._store.history.add(pointers)

    @mapped()
    def history(self, instance_id: str) -> list[Pointer]:
        """See `PersistenceProvider.history`."""
        return self._store.history.of(instance_id)

    @mapped()
    def errors(self, instance_id: str, limit: int) -> list[ErrorRecord]:
        """See `PersistenceProvider.errors`."""
        return self._store.errors.last(instance_id, limit)

    @mapped()
    def request(self, instance_id: str, request: Request, wake_at: datetime) -> RequestOutcome:
        """See `PersistenceProvider.request`."""
        return self._store.inbox.add(instance_id, request, wake_at)

    # ------------------------------------------------------------------------------- scheduling

    @mapped()
    def lower_wake(self, wakes: Mapping[str, datetime]) -> None:
        """See `PersistenceProvider.lower_wake`."""
        self._store.scheduling.lower_wake(wakes)

    @mapped()
    def move_wake(self, moves: Sequence[WakeMove]) -> None:
        """See `PersistenceProvider.move_wake`."""
        self._store.scheduling.move_wake(moves)

    @mapped()
    def count_crash(self, instance_id: str, revision: int, by: int) -> None:
        """See `PersistenceProvider.count_crash`."""
        self._store.scheduling.count_crash(instance_id, revision, by)

    @mapped()
    def hold_due(self, now: datetime, hold: Callable[[Due], datetime | Parked], limit: int) -> list[Due]:
        """See `PersistenceProvider.hold_due`."""
        return self._store.scheduling.hold_due(now, hold, limit)

    @mapped()
    def next_due(self) -> datetime | None:
        """See `PersistenceProvider.next_due`."""
        times = (self._store.scheduling.next_due(), self._store.events.next_due())
        return min((time for time in times if time is not None), default=None)

    @mapped()
    def renew_claims(self, renewals: Sequence[ClaimRenewal]) -> list[bool]:
        """See `PersistenceProvider.renew_claims`."""
        return self._store.claims.renew(renewals)

    @mapped()
    def park(self, instance_id: str, revision: int, parked: Parked) -> None:
        """See `PersistenceProvider.park`."""
        self._store.scheduling.park(instance_id, revision, parked)

    @mapped()
    def parked(self, workflow_definition_id: str, version: int, after: str, limit: int) -> list[Waiter]:
        """See `PersistenceProvider.parked`."""
        return self._store.scheduling.parked(workflow_definition_id, version, after, limit)

    # ----------------------------------------------------------------------------------- events

    @mapped()
    def add_event(self, event: Event) -> bool:
        """See `PersistenceProvider.add_event`."""
        return self._store.events.add(event)

    @mapped()
    def events(self, waits: Sequence[Wait], now: datetime, limit: int) -> list[Event]:
        """See `PersistenceProvider.events`."""
        return self._store.events.fitting(waits, now, limit)

    @mapped()
    def event(self, event_id: str) -> Event | None:
        """See `PersistenceProvider.event`."""
        return self._store.events.get(event_id)

    @mapped()
    def waiting_for(self, name: str, key: str, after: str, limit: int) -> list[Waiter]:
        """See `PersistenceProvider.waiting_for`."""
        return self._store.scheduling.waiting_for(name, key, after, limit)

    @mapped()
    def hold_events(self, now: datetime, hold_until: datetime, limit: int) -> list[Event]:
        """See `PersistenceProvider.hold_events`."""
        return self._store.events.hold(now, hold_until, limit)

    @mapped()
    def mark_processed(self, event_ids: Sequence[str]) -> None:
        """See `PersistenceProvider.mark_processed`."""
        self._store.events.mark_processed(event_ids, self.now())

    # ------------------------------------------------------------------------------- activities

    @mapped()
    def offer_activities(self, activities: Sequence[Activity]) -> None:
        """See `PersistenceProvider.offer_activities`."""
        self._store.activities.offer(activities)

    @mapped()
    def take_activity(
        self, name: str, worker: str, token: str, now: datetime, until: datetime
    ) -> Activity | None:
        """See `PersistenceProvider.take_activity`."""
        return self._store.activities.take(name, worker, token, now, until)

    @mapped()
    def activity(self, token: str) -> Activity | None:
        """See `PersistenceProvider.activity`."""
        return self._store.activities.of_token(token)

    @mapped()
    def finish_activity(self, activity_id: str) -> None:
        """See `PersistenceProvider.finish_activity`."""
        self._store.activities.finish(activity_id)

    @mapped()
    def release_activity(self, token: str) -> bool:
        """See `PersistenceProvider.release_activity`."""
        return self._store.activities.release(token)

    @mapped()
    def withdraw_activities(self, activity_ids: Sequence[str]) -> None:
        """See `PersistenceProvider.withdraw_activities`."""
        self._store.activities.withdraw(activity_ids)

    # ------------------------------------------------------------------------------------ purge

    @mapped()
    def purge(self, status: WorkflowStatus, older_than: datetime, limit: int) -> int:
        """See `PersistenceProvider.purge`."""
        return self._store.purge.instances(status, older_than, limit)

    @mapped()
    def purge_events(self, before: datetime, limit: int, unless_awaited: Sequence[str] = ()) -> int:
        """See `PersistenceProvider.purge_events`."""
        return self._store.purge.events(before, limit, unless_awaited, self.now())

    # ------------------------------------------------------------------------------ definitions

    @mapped()
    def record_definitions(self, definitions: Sequence[DefinitionRecord]) -> None:
        """See `PersistenceProvider.record_definitions`."""
        self._store.definitions.record(definitions)

    @mapped()
    def definitions(self, workflow_definition_id: str | None = None) -> list[DefinitionRecord]:
        """See `PersistenceProvider.definitions`."""
        return self._store.definitions.of(workflow_definition_id)

    @mapped()
    def forget_definition(self, workflow_definition_id: str, version: int) -> bool:
        """See `PersistenceProvider.forget_definition`."""
        return self._store.definitions.forget(workflow_definition_id, version)

    # ------------------------------------------------------------------------------ the cluster

    @mapped()
    def beat(self, process: ProcessRecord) -> None:
        """See `PersistenceProvider.beat`."""
        self._store.processes.beat(process)

    @mapped()
    def processes(self) -> list[ProcessRecord]:
        """See `PersistenceProvider.processes`."""
        return self._store.processes.all()

    @mapped()
    def forget_processes(self, process_ids: Sequence[str]) -> None:
        """See `PersistenceProvider.forget_processes`."""
        self._store.processes.forget(process_ids)

    @mapped()
    def survey(self, overdue_since: datetime) -> Survey:
        """See `PersistenceProvider.survey`."""
        return survey(self._store.database, self._store.tables, overdue_since)

    # ---------------------------------------------------------------------------------- listing

    @mapped()
    def list(self, query: ListFilter) -> Page:
        """See `PersistenceProvider.list`."""
        store = self._store
        return list_page(store.database, store.tables, query)
