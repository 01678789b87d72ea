"""The tables of the queue and of the lock."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, String, text

from liteflow.providers.sql.columns import LongText, Name, number_column, table_options

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make them."""
    prefix: str = op.get_context().opts["prefix"]
    dialect = op.get_bind().dialect

    def table(name: str, *columns: Column[Any], **options: Any) -> None:
        op.create_table(f"{prefix}_{name}", *columns, **table_options(dialect), **options)

    def index(table: str, name: str, *columns: str, where: str | None = None) -> None:
        condition = None if where is None else text(f"{where} IS NOT NULL")
        op.create_index(
            f"{prefix}_{table}_{name}",
            f"{prefix}_{table}",
            list(columns),
            sqlite_where=condition,
            postgresql_where=condition,
        )

    table(
        "messages",
        number_column(),
        Column("queue", Name, nullable=False),
        Column("consumer", BigInteger),
        Column("redelivered", Boolean, nullable=False),
        Column("body", LongText, nullable=False),
        Column("traceparent", LongText),
        sqlite_autoincrement=True,
    )
    index("messages", "ready", "queue", "consumer", "id")
    index("messages", "held", "consumer", where="consumer")

    table(
        "sessions",
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("until", BigInteger, nullable=False),
    )

    table(
        "broadcasts",
        number_column(),
        Column("time", BigInteger, nullable=False),
        Column("topic", String(32), nullable=False),
        Column("origin", String(64), nullable=False),
        Column("body", LongText, nullable=False),
        sqlite_autoincrement=True,
    )
    index("broadcasts", "time", "time")

    # A crash of PostgreSQL empties an unlogged table, and that is what leases need: nobody's release is clean
    # then, and so nobody who was turned away is forgotten. A standby that takes over begins without them too.
    unlogged = ["UNLOGGED"] if dialect.name == "postgresql" else []
    table(
        "leases",
        Column("name", Name, primary_key=True),
        Column("token", String(32), nullable=False),
        Column("until", BigInteger, nullable=False),
        Column("mark", Boolean, nullable=False),
        prefixes=unlogged,
    )
