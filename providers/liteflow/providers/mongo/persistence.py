"""The persistence provider that stores workflows in MongoDB."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from liteflow.core.errors import ProviderError, StoreUnavailableError
from liteflow.core.findings import Finding
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
from liteflow.providers.mongo import documents
from liteflow.providers.mongo.activities import ActivityPool
from liteflow.providers.mongo.checking import check
from liteflow.providers.mongo.committing import Committer
from liteflow.providers.mongo.connection import CODEC_OPTIONS, Client, check_version, connect, database_of
from liteflow.providers.mongo.definitions import DefinitionLog
from liteflow.providers.mongo.error_log import ErrorLog
from liteflow.providers.mongo.errors import mapped
from liteflow.providers.mongo.event_log import EventLog
from liteflow.providers.mongo.history import History
from liteflow.providers.mongo.indexes import Collections
from liteflow.providers.mongo.items import ItemStore, of_created
from liteflow.providers.mongo.listing import list_page
from liteflow.providers.mongo.loading import Loader
from liteflow.providers.mongo.processes import ProcessLog
from liteflow.providers.mongo.purging import Purge
from liteflow.providers.mongo.reading import readable_page
from liteflow.providers.mongo.requests import Inbox
from liteflow.providers.mongo.scheduling import Scheduling
from liteflow.providers.mongo.surveying import survey
from liteflow.providers.mongo.writing import encoded, insert_missing

CLOCK_RESOLUTION = 1000
"""Microseconds to which the server cuts the time that it tells."""


@dataclass(frozen=True, slots=True)
class _Store:
    """What there is while the provider is open."""

    client: Client
    clock: ServerClock
    collections: Collections
    loader: Loader
    items: ItemStore
    committer: Committer
    scheduling: Scheduling
    inbox: Inbox
    events: EventLog
    activities: ActivityPool
    errors: ErrorLog
    history: History
    definitions: DefinitionLog
    processes: ProcessLog
    purge: Purge


class MongoPersistenceProvider(PersistenceProvider):
    """Stores workflows in MongoDB 4.4 or later, on a standalone server or a replica set.

    The URL goes to the driver as it is; its path names the database, unless `database` does. Writes
    wait for the majority and the journal unless the URL says otherwise. Collections are named
    ``<prefix>.instances`` and so on, so that several systems can share a database. `options` are options
    of the driver's client.
    """

    def __init__(
        self,
        url: str = "mongodb://localhost:27017/liteflow",
        database: str | None = None,
        prefix: str = "liteflow",
        **options: Any,
    ) -> None:
        self._url = url
        self._database = database
        self._prefix = prefix
        self._options = options
        self._opening = threading.Lock()
        self._opened: _Store | None = None

    def __repr__(self) -> str:
        # Without the URL: it may hold a password.
        return f"<MongoPersistenceProvider {self._prefix}>"

    @property
    def _store(self) -> _Store:
        store = self._opened
        if store is None:
            raise ProviderError("MongoDB: the provider is not open")
        return store

    def open(self) -> None:
        """Connect, create missing indexes, and learn the server's time.

        Waits some seconds for a server that is away, then raises `StoreUnavailableError`.
        """
        with self._opening:
            if self._opened is None:
                self._opened = self._connect()

    def _connect(self) -> _Store:
        client = connect(self._url, self._options)
        try:
            with mapped():
                check_version(client)
                database = database_of(client, self._database)
                collections = Collections.of(database, self._prefix)
                collections.create_indexes()
            clock = ServerClock(lambda: _server_time(client), CLOCK_RESOLUTION)
            clock.measure()
        except BaseException:
            client.close()
            raise
        items, errors = ItemStore(collections), ErrorLog(collections.errors)
        return _Store(
            client=client,
            clock=clock,
            collections=collections,
            loader=Loader(collections.instances, items),
            items=items,
            committer=Committer(collections.instances, items, errors),
            scheduling=Scheduling(collections),
            inbox=Inbox(collections.instances),
            events=EventLog(collections.events),
            activities=ActivityPool(collections.activities),
            errors=errors,
            history=History(collections.history),
            definitions=DefinitionLog(collections.definitions),
            processes=ProcessLog(collections.processes),
            purge=Purge(collections),
        )

    def close(self) -> None:
        """Give back the connections."""
        with self._opening:
            store, self._opened = self._opened, None
        if store is not None:
            store.client.close()
            store.clock.join()

    def check(self) -> list[Finding]:
        """See `Provider.check`."""
        return check(self._url, self._options, self._database, self._prefix)

    @mapped()
    def describe(self) -> str:
        """Its version, and whether it is a replica set."""
        client = self._store.client
        told = client.admin.command("hello")
        where = f"replica set {told['setName']}" if "setName" in told else "standalone"
        return f"MongoDB {client.server_info()['version']}, {where}"

    def now(self) -> datetime:
        """The server's clock, by an offset that is measured once a minute."""
        return self._store.clock.now()

    @property
    def clock_uncertainty(self) -> timedelta:
        """See `PersistenceProvider.clock_uncertainty`."""
        return self._store.clock.uncertainty

    # -------------------------------------------------------------------------------- instances

    @mapped()
    def create(self, instances: Sequence[Instance]) -> list[bool]:
        """See `PersistenceProvider.create`. `DataError`, before any is stored, if one can't be."""
        store = self._store
        items = [of_created(one) for one in instances]
        new = [
            encoded(documents.instance_to_document(one, stored.lists), f"workflow {one.id}")
            for one, stored in zip(instances, items, strict=True)
        ]
        store.items.add(items)
        known = insert_missing(store.collections.instances, new)
        if not known:
            return [True] * len(instances)
        ids = [instances[place].id for place in known]
        found = store.collections.instances.find({"_id": {"$in": ids}}, {"token": 1})
        tokens = {document["_id"]: document.get("token") for document in found}
        if not tokens.keys() >= set(ids):
            raise StoreUnavailableError("MongoDB: the majority has not confirmed an instance yet")
        return [
            place not in known or (one.token != "" and tokens[one.id] == one.token)
            for place, one in enumerate(instances)
        ]

    @mapped()
    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        """See `PersistenceProvider.load`."""
        return self._store.loader.load(instance_ids)

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
        return self._store.scheduling.renew_claims(renewals)

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
        instances = self._store.collections.instances

        def page(after: str) -> Iterable[Mapping[str, Any]]:
            query = documents.waiting_query(name, key, after)
            return instances.find(query, documents.WAITER_FIELDS).sort("_id", 1).limit(limit)

        return readable_page("workflow", documents.waiter, page, after, limit)

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
        return survey(self._store.collections.instances, overdue_since)

    # ---------------------------------------------------------------------------------- listing

    @mapped()
    def list(self, query: ListFilter) -> Page:
        """See `PersistenceProvider.list`."""
        return list_page(self._store.collections.instances, query)


def _server_time(client: Client) -> datetime:
    with mapped():
        told: datetime = client.admin.command("hello", codec_options=CODEC_OPTIONS)["localTime"]
    return told
