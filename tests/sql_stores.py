"""What the tests of the SQL store share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Table, event, text

from liteflow.providers.sql import SqlPersistenceProvider
from liteflow.providers.sql.connection import create
from liteflow.providers.sql.migrating import version_table
from liteflow.providers.sql.schema import tables


def opened(url: str, prefix: str = "liteflow", **options: Any) -> Iterator[SqlPersistenceProvider]:
    """A provider with tables of its own, which are removed in the end."""
    provider = SqlPersistenceProvider(url, prefix=prefix, **options)
    provider.open()
    yield provider
    provider.close()
    if not url.startswith("sqlite"):
        drop(url, prefix)


def drop(url: str, prefix: str) -> None:
    """Remove all tables of a prefix."""
    engine = create(url, {})
    made = tables(prefix).metadata
    Table(version_table(prefix), made)
    made.drop_all(engine)
    engine.dispose()


def execute(provider: SqlPersistenceProvider, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Run a statement in which ``{t}`` stands for the tables' prefix; the rows, if it gives any."""
    with provider._store.database.engine.begin() as connection:
        found = connection.execute(text(statement.replace("{t}", provider._prefix)), values)
        return [dict(row) for row in found.mappings()] if found.returns_rows else []


def sent_by(provider: SqlPersistenceProvider) -> list[tuple[str, Any]]:
    """The statements that the provider sends from now on, each with its parameters, or a list of them."""
    sent: list[tuple[str, Any]] = []

    @event.listens_for(provider._store.database.engine, "before_cursor_execute")
    def executed(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "BEGIN" not in statement:
            sent.append((statement, parameters))

    return sent
