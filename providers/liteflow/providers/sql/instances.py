"""Creating and loading instances."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from liteflow.core.errors import LiteFlowError
from liteflow.core.models import Instance
from liteflow.providers.sql.database import Database, batches, execute_many
from liteflow.providers.sql.errors import repeated
from liteflow.providers.sql.records import INSTANCE_COLUMNS, Encoder, Row, read_instance
from liteflow.providers.sql.schema import Tables

CREATE_TRIES = 20
"""So often instances are tried to be created while others create the same ones."""


class Instances:
    """The methods of `PersistenceProvider` that insert and read whole instances."""

    def __init__(self, database: Database, tables: Tables, encoder: Encoder) -> None:
        self._db = database
        self._encoder = encoder
        self._tables = tables
        i, p, r = tables.instances.c, tables.parts.c, tables.requests.c
        ids: BindParameter[Any] = bindparam("ids", expanding=True)
        self._tokens = select(i.id, i.token).where(i.id.in_(ids))
        self._rows = select(*(i[name] for name in INSTANCE_COLUMNS), i.format).where(i.id.in_(ids))
        self._parts = (
            select(p.instance_id, p.kind, p.name, p.value)
            .where(p.instance_id.in_(ids))
            .order_by(p.instance_id, p.kind, p.name)
        )
        self._requests = (
            select(r.instance_id, r.value).where(r.instance_id.in_(ids)).order_by(r.instance_id, r.place)
        )

    # ---------------------------------------------------------------------------------- create

    def create(self, instances: Sequence[Instance]) -> list[bool]:
        """See `PersistenceProvider.create`."""
        rows = [_Rows(self._encoder, instance) for instance in instances]
        created: list[bool] = []
        for batch in batches(rows):
            created += self._create(batch)
        return created

    def _create(self, batch: Sequence[_Rows]) -> list[bool]:
        tries = 0
        while True:
            try:
                # Nearly always all are new, so at first nobody looks.
                insert_new = partial(self._insert, batch=batch, looks=tries > 0)
                return repeated(partial(self._db.write, insert_new))
            except IntegrityError:
                tries += 1
                if tries == CREATE_TRIES:
                    raise

    def _insert(self, connection: Connection, batch: Sequence[_Rows], looks: bool) -> list[bool]:
        tokens: dict[str, str] = {}
        if looks:
            ids = list({one.id for one in batch})
            tokens = {row.id: row.token for row in connection.execute(self._tokens, {"ids": ids})}
        created, new = [], []
        for one in batch:
            if one.id in tokens:
                created.append(one.token != "" and tokens[one.id] == one.token)
            else:
                created.append(True)
                new.append(one)
                tokens[one.id] = one.token
        t = self._tables
        execute_many(connection, insert(t.instances), [one.instance for one in new])
        execute_many(connection, insert(t.parts), [row for one in new for row in one.parts])
        execute_many(connection, insert(t.requests), [row for one in new for row in one.requests])
        execute_many(connection, insert(t.waits), [row for one in new for row in one.waits])
        return created

    # ------------------------------------------------------------------------------------ load

    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        """See `PersistenceProvider.load`."""
        loaded: dict[str, Instance | Exception] = {}
        for batch in batches(list(dict.fromkeys(instance_ids))):
            loaded |= self._load(batch)
        return loaded

    def _load(self, ids: Sequence[str]) -> dict[str, Instance | Exception]:
        def read(connection: Connection) -> tuple[list[Any], list[Any], list[Any]]:
            given = {"ids": list(ids)}
            rows = list(connection.execute(self._rows, given).mappings())
            parts = list(connection.execute(self._parts, given)) if rows else []
            requests = list(connection.execute(self._requests, given)) if rows else []
            return rows, parts, requests

        rows, parts, requests = self._db.snapshot(read)
        by_id: dict[str, tuple[list[Any], list[str]]] = {row["id"]: ([], []) for row in rows}
        for instance_id, kind, name, value in parts:
            if instance_id in by_id:
                by_id[instance_id][0].append((kind, name, value))
        for instance_id, value in requests:
            if instance_id in by_id:
                by_id[instance_id][1].append(value)
        return {row["id"]: _read(row, *by_id[row["id"]]) for row in rows}


class _Rows:
    """All rows of a new instance."""

    def __init__(self, encoder: Encoder, instance: Instance) -> None:
        self.id, self.token = instance.id, instance.token
        self.instance: Row = encoder.instance(instance)
        self.parts = encoder.parts_of(instance)
        self.requests = encoder.requests(instance.id, instance.inbox)
        self.waits = encoder.waits(instance.id, instance.waits())


def _read(row: Any, parts: list[Any], requests: list[str]) -> Instance | Exception:
    try:
        return read_instance(row, parts, requests)
    except LiteFlowError as exc:
        return exc
