"""Deleting what is old: ended instances with all that belongs to them, and processed events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from liteflow.core.errors import ProviderError
from liteflow.core.models import FORMAT_VERSION, WorkflowStatus
from liteflow.providers.sql.database import Database, batches
from liteflow.providers.sql.errors import repeated
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.values import to_micros


class Purge:
    """The methods of `PersistenceProvider` that delete by age."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._db = database
        self._tables = tables

    def instances(self, status: WorkflowStatus, older_than: datetime, limit: int) -> int:
        """See `PersistenceProvider.purge`. An instance and what belongs to it go in one transaction."""
        if not status.ended:
            raise ProviderError(f"instances that are {status.name} have not ended and are not purged")
        i = self._tables.instances.c
        # In a newer format there may be more to an instance than is known here.
        ended = (
            select(i.id)
            .where(i.status == int(status), i.complete_time < to_micros(older_than))
            .where(i.outbox.is_(None), i.format <= FORMAT_VERSION)
            .order_by(i.complete_time, i.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )

        def purge(connection: Connection) -> int:
            ids = connection.execute(ended).scalars().all()
            t = self._tables
            for batch in batches(ids):
                for table in (t.parts, t.requests, t.waits, t.history, t.errors, t.activities):
                    connection.execute(delete(table).where(table.c.instance_id.in_(batch)))
                connection.execute(delete(t.instances).where(i.id.in_(batch)))
            return len(ids)

        return self._write(purge, limit)

    def events(self, before: datetime, limit: int, unless_awaited: Sequence[str], now: datetime) -> int:
        """See `PersistenceProvider.purge_events`."""
        events, waits = self._tables.events, self._tables.waits
        e = events.c
        old = (
            select(e.id, e.name, e.topic)
            .where(e.processed < to_micros(before))
            .order_by(e.processed, e.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )

        def purge(connection: Connection) -> int:
            found = connection.execute(old).all()
            topics = list({one.topic for one in found if one.name in unless_awaited})
            awaited: set[str] = set()
            for batch in batches(topics):
                query = select(waits.c.topic).where(waits.c.topic.in_(batch))
                awaited.update(connection.execute(query).scalars())
            for batch in batches([one.id for one in found if one.topic in awaited]):
                again = update(events).where(e.id.in_(batch)).values(processed=to_micros(now))
                connection.execute(again)
            for batch in batches([one.id for one in found if one.topic not in awaited]):
                connection.execute(delete(events).where(e.id.in_(batch)))
            return len(found)

        return self._write(purge, limit)

    def _write(self, purge: object, limit: int) -> int:
        # After a lost reply the second try deletes the next ones, if there are any.
        return repeated(lambda: self._db.write(purge)) if limit > 0 else 0  # type: ignore[arg-type]
