"""The heartbeats of workers and schedulers: one small row for each process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select

from liteflow.core.forms import Conversion, Form, list_of
from liteflow.core.models import FORMAT_VERSION, DefinitionRecord
from liteflow.core.survey import ProcessRecord
from liteflow.providers.sql.database import Database, batches
from liteflow.providers.sql.errors import repeated
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.upserts import put
from liteflow.providers.sql.values import TIME, from_json, to_json

_DEFINITIONS = list_of(Form(DefinitionRecord, {}))
_PROCESS = Form(
    ProcessRecord,
    {
        "started": TIME,
        "seen": TIME,
        "until": TIME,
        "definitions": Conversion(_DEFINITIONS.write, lambda stored: tuple(_DEFINITIONS.read(stored))),
    },
    without=("id",),
)


class ProcessLog:
    """The methods of `PersistenceProvider` about processes."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._db = database
        self._processes = tables.processes
        self._put = put(tables.processes, database.name)

    def beat(self, process: ProcessRecord) -> None:
        """See `PersistenceProvider.beat`."""
        row = {"id": process.id, "format": FORMAT_VERSION, "value": to_json(_PROCESS.write(process))}
        repeated(lambda: self._db.write(lambda c: c.execute(self._put, row)))

    def all(self) -> list[ProcessRecord]:
        """See `PersistenceProvider.processes`."""
        p = self._processes.c
        rows = self._db.read(lambda c: c.execute(select(p.id, p.value).order_by(p.id)).all())
        return [_process(*row) for row in rows]

    def forget(self, process_ids: Sequence[str]) -> None:
        """See `PersistenceProvider.forget_processes`."""
        for batch in batches(sorted(process_ids)):
            ended = delete(self._processes).where(self._processes.c.id.in_(batch))
            repeated(lambda: self._db.write(lambda c: c.execute(ended)))  # noqa: B023 (run at once)


def _process(process_id: str, value: str) -> ProcessRecord:
    stored: Any = from_json(value)
    return _PROCESS.read(stored, id=process_id)
