"""The errors of instances, in order of the revisions at which they happened."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, select, tuple_

from liteflow.core.models import FORMAT_VERSION, ErrorRecord
from liteflow.core.transition import Transition
from liteflow.providers.sql.database import Database, execute_many
from liteflow.providers.sql.records import Row
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.upserts import insert_missing
from liteflow.providers.sql.values import from_micros, to_micros

ERRORS_KEPT = 1000
"""At least so many of the last errors of an instance are kept."""

TRIM_EVERY = 128
"""One of so many errors makes room by removing the oldest ones of its instance."""

MOST_TEXT = 100_000
"""Characters of a message or traceback that are stored."""


class ErrorLog:
    """Stores the error records of transitions, each once."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._db = database
        self._errors = tables.errors
        self._insert = insert_missing(tables.errors, database.name)
        e = tables.errors.c
        self._order = (e.revision, e.pointer_id, e.attempt)
        newest = (column.desc() for column in self._order)
        self._newest = select(tables.errors).where(e.instance_id == bindparam("of_id")).order_by(*newest)

    def store(self, connection: Connection, transitions: Sequence[Transition]) -> None:
        """Insert the errors of these transitions, as a part of their commit."""
        rows = [_row(one.revision, error) for one in transitions for error in one.errors]
        execute_many(connection, self._insert, rows)
        for row in rows:
            if zlib.crc32(f"{row['instance_id']}:{row['revision']}".encode()) % TRIM_EVERY == 0:
                self._trim(connection, row["instance_id"])

    def last(self, instance_id: str, limit: int) -> list[ErrorRecord]:
        """The last errors of an instance, oldest first."""
        if limit <= 0:
            return []
        query = self._newest.limit(limit)
        rows = self._db.read(lambda c: c.execute(query, {"of_id": instance_id}).mappings().all())
        return [
            ErrorRecord(
                row["instance_id"],
                row["pointer_id"],
                row["step_id"],
                row["attempt"],
                from_micros(row["time"]),
                row["type"],
                row["message"],
                row["traceback"],
            )
            for row in reversed(rows)
        ]

    def _trim(self, connection: Connection, instance_id: str) -> None:
        """Remove all but the last errors of an instance."""
        surplus = self._newest.with_only_columns(*self._order).offset(ERRORS_KEPT).limit(1)
        found = connection.execute(surplus, {"of_id": instance_id}).first()
        if found is not None:
            old = tuple_(*self._order) <= tuple_(*found)
            of_it = self._errors.c.instance_id == instance_id
            connection.execute(delete(self._errors).where(of_it, old))


def _row(revision: int, error: ErrorRecord) -> Row:
    return {
        "instance_id": error.instance_id,
        "revision": revision,
        "pointer_id": error.pointer_id,
        "attempt": error.attempt,
        "format": FORMAT_VERSION,
        "step_id": _text(error.step_id),
        "time": to_micros(error.time),
        "type": _text(error.type),
        "message": _text(error.message),
        "traceback": _text(error.traceback),
    }


def _text(text: str) -> str:
    """What of a text can be stored: exceptions may say anything, of any length."""
    if len(text) > MOST_TEXT:
        half = MOST_TEXT // 2
        text = f"{text[:half]} [...] {text[-half:]}"
    return text.encode("utf-8", "replace").decode()
