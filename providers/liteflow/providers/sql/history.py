"""Ended pointers that have left the working rows, in order of instance and pointer."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from liteflow.core.models import FORMAT_VERSION, Pointer
from liteflow.providers.sql.database import Database, batches, execute_many
from liteflow.providers.sql.errors import repeated
from liteflow.providers.sql.records import POINTER, Encoder
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.upserts import insert_missing
from liteflow.providers.sql.values import from_json


class History:
    """Keeps a copy of each ended pointer."""

    def __init__(self, database: Database, tables: Tables, encoder: Encoder) -> None:
        self._db = database
        self._history = tables.history
        self._encoder = encoder
        self._insert = insert_missing(tables.history, database.name)

    def add(self, pointers: Sequence[tuple[str, Pointer]]) -> None:
        """Insert those that are not there yet."""
        rows = [
            {
                "instance_id": instance_id,
                "pointer": int(pointer.id),
                "format": FORMAT_VERSION,
                "value": self._encoder.json(POINTER.write(pointer), f"pointer {pointer.id}"),
            }
            for instance_id, pointer in sorted(pointers, key=lambda one: (one[0], int(one[1].id)))
        ]
        for batch in batches(rows):
            repeated(lambda: self._db.write(lambda c: execute_many(c, self._insert, batch)))  # noqa: B023

    def of(self, instance_id: str) -> list[Pointer]:
        """The pointers of an instance in order."""
        h = self._history.c
        query = select(h.pointer, h.value).where(h.instance_id == instance_id).order_by(h.pointer)
        rows = self._db.read(lambda c: c.execute(query).all())
        return [POINTER.read(from_json(row.value), id=str(row.pointer)) for row in rows]  # type: ignore[arg-type]
