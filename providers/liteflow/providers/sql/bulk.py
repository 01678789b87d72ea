"""The two statements that every commit needs, for many rows at once.

PostgreSQL gets each as one statement over arrays, which costs a fraction of one statement for each row. The
others run it once for each row: SQLite is in this process, and PyMySQL joins the rows of an INSERT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from liteflow.providers.sql.database import execute_many
from liteflow.providers.sql.records import Row
from liteflow.providers.sql.upserts import overwriting, put

OF_ID = "of_id"
"""In the rows of an update the id of what is updated."""


class Bulk:
    """Writes rows into one table. Statements are kept, as the same ones come again and again."""

    def __init__(self, table: Table, dialect: str) -> None:
        self._table = table
        self._arrays = dialect == "postgresql"
        self._updates: dict[tuple[str, ...], Any] = {}
        self._update = update(table).where(table.primary_key.columns[0] == bindparam(OF_ID))
        self._put = _put_from_arrays(table) if self._arrays else put(table, dialect)

    def update(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Change rows that are there, each by its `OF_ID`. They may differ in the columns they change."""
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            groups.setdefault(tuple(sorted(row)), []).append(row)
        for names, group in groups.items():
            if self._arrays:
                connection.execute(self._updating(names), _columns(names, group))
            else:
                connection.execute(self._update, group)

    def _updating(self, names: tuple[str, ...]) -> Any:
        statement = self._updates.get(names)
        if statement is None:
            columns, key = self._table.c, self._table.primary_key.columns[0]
            types = {name: key.type if name == OF_ID else columns[name].type for name in names}
            given = func.unnest(*(bindparam(f"all_{name}", type_=ARRAY(types[name])) for name in names))
            rows = given.table_valued(*names, name="given").render_derived().c
            values = {name: rows[name] for name in names if name != OF_ID}
            statement = update(self._table).where(key == rows[OF_ID]).values(values)
            self._updates[names] = statement
        return statement

    def put(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Insert rows, or write them over those of the same primary key. All have all columns."""
        if rows and self._arrays:
            connection.execute(self._put, _columns(tuple(rows[0]), rows))
        else:
            execute_many(connection, self._put, rows)


def _put_from_arrays(table: Table) -> Any:
    names = table.columns.keys()
    given = func.unnest(*(bindparam(f"all_{name}", type_=ARRAY(table.c[name].type)) for name in names))
    rows = given.table_valued(*names, name="given").render_derived().c
    return overwriting(insert(table).from_select(names, select(*(rows[name] for name in names))), table)


def _columns(names: tuple[str, ...], rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {f"all_{name}": [row[name] for row in rows] for name in names}
