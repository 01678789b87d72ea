"""The definitions that workers have made known."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from liteflow.core.models import FORMAT_VERSION, DefinitionRecord
from liteflow.providers.sql.database import Database, batches, execute_many
from liteflow.providers.sql.errors import repeated
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.upserts import put


class DefinitionLog:
    """One row for each version of a definition."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._db = database
        self._definitions = tables.definitions
        self._put = put(tables.definitions, database.name)

    def record(self, definitions: Sequence[DefinitionRecord]) -> None:
        """Store these, over what is there of the same ids and versions."""
        last = {(one.id, one.version): one for one in definitions}
        rows = [
            {"id": key[0], "version": key[1], "format": FORMAT_VERSION, "fingerprint": last[key].fingerprint}
            for key in sorted(last)
        ]
        for batch in batches(rows):
            repeated(lambda: self._db.write(lambda c: execute_many(c, self._put, batch)))  # noqa: B023

    def of(self, workflow_definition_id: str | None) -> list[DefinitionRecord]:
        """All in order of id and version, or those of one id."""
        d = self._definitions.c
        query = select(d.id, d.version, d.fingerprint).order_by(d.id, d.version)
        if workflow_definition_id is not None:
            query = query.where(d.id == workflow_definition_id)
        return [DefinitionRecord(*row) for row in self._db.read(lambda c: c.execute(query).all())]
