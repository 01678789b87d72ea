"""The event log: events by name, key and time, and by when the scheduler has to look at them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from liteflow.core.errors import DataError
from liteflow.core.models import FORMAT_VERSION, Event, Wait
from liteflow.providers.sql.database import Database, batches
from liteflow.providers.sql.errors import is_lost, repeated
from liteflow.providers.sql.records import UNREADABLE, Encoder, Row
from liteflow.providers.sql.schema import Tables, topic
from liteflow.providers.sql.values import checked_name, from_json, from_micros, to_micros


class EventLog:
    """The methods of `PersistenceProvider` that are about events alone."""

    def __init__(self, database: Database, tables: Tables, encoder: Encoder) -> None:
        self._db = database
        self._events = tables.events
        self._encoder = encoder

    def add(self, event: Event) -> bool:
        """Insert an event; False if its id is there already."""
        row = self._row(event)
        try:
            return self._add(row)
        except DBAPIError as exc:
            if not is_lost(exc):
                raise
        # If it is there now, the lost try has stored it: telling of it twice does less harm than not
        # telling at all.
        self._add(row)
        return True

    def _add(self, row: Row) -> bool:
        try:
            self._db.write(lambda connection: connection.execute(insert(self._events), row))
        except IntegrityError:
            return False
        return True

    def _row(self, event: Event) -> Row:
        time = to_micros(event.time)
        text = self._encoder.text
        return {
            "id": checked_name(event.id, "event id"),
            "format": FORMAT_VERSION,
            "topic": topic(event.name, event.key),
            "name": text(event.name, "event name"),
            "key": text(event.key, "event key"),
            "time": time,
            "data": None if event.data is None else self._encoder.json(event.data, "event data"),
            "processed": None if event.processed is None else to_micros(event.processed),
            "traceparent": event.traceparent,
            # When the scheduler looks at it, as long as it has to.
            "due": time if event.processed is None else None,
        }

    def get(self, event_id: str) -> Event | None:
        """One event."""
        query = select(self._events).where(self._events.c.id == event_id)
        row = self._db.read(lambda c: c.execute(query).first())
        return _event(row) if row is not None else None

    def fitting(self, waits: Sequence[Wait], now: datetime, limit: int) -> list[Event]:
        """Events that fit any of the waits, at most `limit` for each, in order of time, then id."""
        wanted = {(topic(wait.name, wait.key), to_micros(wait.since)) for wait in waits}
        found: dict[str, Event] = {}
        for batch in batches(sorted(wanted)):
            rows = self._together(batch, to_micros(now), limit)
            found.update((row.id, _event(row)) for row in rows)
        return sorted(found.values(), key=lambda event: (event.time, event.id))

    def _together(self, wanted: Sequence[tuple[str, int]], until: int, limit: int) -> Sequence[Any]:
        """Rows for all of these topics and times, by one query unless there are many."""
        e = self._events.c
        from_when: dict[str, int] = {}
        for name, since in wanted:
            from_when[name] = min(since, from_when.get(name, since))
        earliest = min(from_when.values())
        at_once = select(self._events).where(
            e.topic.in_(list(from_when)), e.time >= earliest, e.time <= until
        )
        rows = self._db.read(lambda c: c.execute(at_once.limit(limit)).all())
        if len(rows) < limit:
            return [row for row in rows if row.time >= from_when[row.topic]]
        # There may be more for one of them: each on its own.
        queries = [
            select(self._events)
            .where(e.topic == name, e.time >= since, e.time <= until)
            .order_by(e.time, e.id)
            .limit(limit)
            for name, since in wanted
        ]
        pages = self._db.read(lambda c: [c.execute(query).all() for query in queries])
        return [row for page in pages for row in page]

    def hold(self, now: datetime, hold_until: datetime, limit: int) -> list[Event]:
        """Unprocessed events that are due, which they are not again before `hold_until`."""
        e = self._events.c
        query = select(self._events).where(e.due <= to_micros(now)).order_by(e.due, e.id).limit(limit)

        def hold(connection: Connection) -> Sequence[Any]:
            # Those that another scheduler is holding just now are its own.
            rows = connection.execute(query.with_for_update(skip_locked=True)).all()
            for batch in batches([row.id for row in rows]):
                held = update(self._events).where(e.id.in_(batch)).values(due=to_micros(hold_until))
                connection.execute(held)
            return rows

        if self._db.read(lambda c: c.execute(query.limit(1)).first()) is None:
            return []
        return [_event(row) for row in self._db.write(hold)]

    def mark_processed(self, event_ids: Sequence[str], now: datetime) -> None:
        """These are not due any more."""
        processed = {"processed": to_micros(now), "due": None}
        for batch in batches(sorted(event_ids)):
            done = update(self._events).where(self._events.c.id.in_(batch)).values(processed)
            repeated(lambda: self._db.write(lambda c: c.execute(done)))  # noqa: B023 (run at once)

    def next_due(self) -> datetime | None:
        """When the first unprocessed event is due."""
        due = self._events.c.due
        query = select(due).where(due.is_not(None)).order_by(due).limit(1)
        found = self._db.read(lambda c: c.execute(query).scalar())
        return from_micros(found) if found is not None else None


def _event(row: Any) -> Event:
    try:
        return Event(
            row.id,
            row.name,
            row.key,
            from_micros(row.time),
            None if row.data is None else from_json(row.data),
            None if row.processed is None else from_micros(row.processed),
            row.traceparent,
        )
    except UNREADABLE as exc:
        raise DataError(f"event {row.id}", f"can't be read: {exc}") from exc
