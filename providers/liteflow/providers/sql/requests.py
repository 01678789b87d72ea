"""Requests: under the lock of the instance's row, which knows duplicates and numbers them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import DBAPIError

from liteflow.core.errors import InstanceUnreadableError
from liteflow.core.models import FORMAT_VERSION, Request, WorkflowStatus
from liteflow.core.providers import RequestOutcome
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.errors import is_lost
from liteflow.providers.sql.records import Encoder
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.values import from_json, to_micros


class Inbox:
    """Puts requests into the inboxes of instances."""

    def __init__(self, database: Database, tables: Tables, encoder: Encoder) -> None:
        self._db = database
        self._instances, self._requests = tables.instances, tables.requests
        self._encoder = encoder

    def add(self, instance_id: str, request: Request, wake_at: datetime) -> RequestOutcome:
        """See `PersistenceProvider.request`."""
        self._encoder.requests(instance_id, [request])  # what can't be stored is refused before
        at = to_micros(wake_at)
        try:
            return self._db.write(lambda c: self._add(c, instance_id, request, at))
        except DBAPIError as exc:
            if not is_lost(exc):
                raise
        outcome = self._db.write(lambda c: self._add(c, instance_id, request, at))
        # The try whose answer got lost has stored it.
        return RequestOutcome.STORED if outcome is RequestOutcome.DUPLICATE else outcome

    def _add(self, connection: Connection, instance_id: str, request: Request, at: int) -> RequestOutcome:
        i, r = self._instances.c, self._requests.c
        query = select(i.format, i.status, i.inbox_sequence, i.applied, i.wake_at).where(i.id == instance_id)
        found = connection.execute(query.with_for_update()).first()
        if found is None:
            return RequestOutcome.NOT_FOUND
        if found.format > FORMAT_VERSION:
            raise InstanceUnreadableError(instance_id, found.format)
        inbox = connection.execute(select(r.id, r.place).where(r.instance_id == instance_id)).all()
        applied = from_json(found.applied) if found.applied is not None else None
        if request.id in [row.id for row in inbox] or (isinstance(applied, list) and request.id in applied):
            return RequestOutcome.DUPLICATE
        if WorkflowStatus(found.status).ended:
            return RequestOutcome.ENDED
        sequence = found.inbox_sequence + 1
        place = max((row.place for row in inbox), default=-1) + 1
        rows = self._encoder.requests(instance_id, [replace(request, sequence=sequence)], place)
        connection.execute(insert(self._requests), rows)
        lowered = at if found.wake_at is None else min(at, found.wake_at)
        mine = update(self._instances).where(i.id == instance_id)
        connection.execute(mine.values(inbox_sequence=sequence, wake_at=lowered))
        return RequestOutcome.STORED
