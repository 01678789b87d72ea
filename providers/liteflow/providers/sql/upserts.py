"""INSERT statements that each database writes in its own way."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import mysql, postgresql, sqlite


def insert_missing(table: Table, dialect: str) -> Any:
    """Inserts a row unless its primary key is there."""
    if dialect == "mysql":
        statement = mysql.insert(table)
        key = next(iter(table.primary_key)).name
        return statement.on_duplicate_key_update({key: table.c[key]})  # no change; IGNORE would hide errors
    return _insert(table, dialect).on_conflict_do_nothing()


def put(table: Table, dialect: str) -> Any:
    """Inserts a row, or writes it over the one of its primary key."""
    if dialect == "mysql":
        others = [column.name for column in table.columns if not column.primary_key]
        statement = mysql.insert(table)
        return statement.on_duplicate_key_update({name: statement.inserted[name] for name in others})
    return overwriting(_insert(table, dialect), table)


def overwriting(insert: Any, table: Table) -> Any:
    """An INSERT of SQLite or PostgreSQL that writes over rows of the same primary key."""
    others = [column.name for column in table.columns if not column.primary_key]
    return insert.on_conflict_do_update(
        index_elements=list(table.primary_key), set_={name: insert.excluded[name] for name in others}
    )


def _insert(table: Table, dialect: str) -> Any:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
