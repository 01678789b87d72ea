"""The first tables."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, SmallInteger, String, text

from liteflow.providers.sql.columns import LongText, Name, table_options

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them all."""
    prefix: str = op.get_context().opts["prefix"]
    options = table_options(op.get_bind().dialect)

    def table(name: str, *columns: Column[Any]) -> None:
        op.create_table(f"{prefix}_{name}", *columns, **options)

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
        "instances",
        Column("id", Name, primary_key=True),
        Column("format", BigInteger, nullable=False),
        Column("workflow_definition_id", Name, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("create_time", BigInteger, nullable=False),
        Column("fingerprint", LongText, nullable=False),
        Column("status", SmallInteger, nullable=False),
        Column("reference", Name),
        Column("description", LongText),
        Column("complete_time", BigInteger),
        Column("reason", LongText),
        Column("revision", BigInteger, nullable=False),
        Column("token", Name, nullable=False),
        Column("begun", Boolean, nullable=False),
        Column("wake_at", BigInteger),
        Column("next_execution", BigInteger),
        Column("message_sent", Boolean, nullable=False),
        Column("pointer_sequence", BigInteger, nullable=False),
        Column("inbox_sequence", BigInteger, nullable=False),
        Column("applied", LongText),
        Column("outbox", LongText),
        Column("outbox_sequence", BigInteger, nullable=False),
        Column("consumed", LongText),
        Column("crashes", BigInteger, nullable=False),
        Column("parked", LongText),
        Column("is_parked", SmallInteger),
        Column("holds", BigInteger, nullable=False),
        Column("traceparent", LongText),
        Column("deadline", BigInteger),
        Column("completions", BigInteger, nullable=False),
        Column("parent", LongText),
    )
    index("instances", "due", "wake_at", where="wake_at")
    index("instances", "ended", "status", "complete_time", "id", where="complete_time")
    index("instances", "parked", "is_parked", "workflow_definition_id", "version", "id", where="is_parked")
    index("instances", "parked_time", "is_parked", "create_time", "id", where="is_parked")
    index("instances", "reference", "reference", "create_time", "id", where="reference")
    index("instances", "status", "status", "create_time", "id")
    index("instances", "workflow", "workflow_definition_id", "status", "create_time", "id")

    table(
        "parts",
        Column("instance_id", Name, primary_key=True),
        Column("kind", String(20), primary_key=True),
        Column("name", Name, primary_key=True),
        Column("value", LongText, nullable=False),
    )

    table(
        "requests",
        Column("instance_id", Name, primary_key=True),
        Column("place", BigInteger, primary_key=True, autoincrement=False),
        Column("id", LongText, nullable=False),
        Column("value", LongText, nullable=False),
    )

    table(
        "waits",
        Column("topic", String(32), primary_key=True),
        Column("instance_id", Name, primary_key=True),
        Column("name", LongText, nullable=False),
        Column("key", LongText, nullable=False),
        Column("since", BigInteger, nullable=False),
    )
    index("waits", "instance", "instance_id")

    table(
        "history",
        Column("instance_id", Name, primary_key=True),
        Column("pointer", BigInteger, primary_key=True, autoincrement=False),
        Column("format", BigInteger, nullable=False),
        Column("value", LongText, nullable=False),
    )

    table(
        "errors",
        Column("instance_id", Name, primary_key=True),
        Column("revision", BigInteger, primary_key=True, autoincrement=False),
        Column("pointer_id", String(32), primary_key=True),
        Column("attempt", BigInteger, primary_key=True, autoincrement=False),
        Column("format", BigInteger, nullable=False),
        Column("step_id", LongText, nullable=False),
        Column("time", BigInteger, nullable=False),
        Column("type", LongText, nullable=False),
        Column("message", LongText, nullable=False),
        Column("traceback", LongText, nullable=False),
    )

    table(
        "events",
        Column("id", Name, primary_key=True),
        Column("format", BigInteger, nullable=False),
        Column("topic", String(32), nullable=False),
        Column("name", LongText, nullable=False),
        Column("key", LongText, nullable=False),
        Column("time", BigInteger, nullable=False),
        Column("data", LongText),
        Column("processed", BigInteger),
        Column("traceparent", LongText),
        Column("due", BigInteger),
    )
    index("events", "due", "due", "id", where="due")
    index("events", "processed", "processed", "id", where="processed")
    index("events", "topic", "topic", "time", "id")

    table(
        "activities",
        Column("id", Name, primary_key=True),
        Column("format", BigInteger, nullable=False),
        Column("name", Name, nullable=False),
        Column("parameters", LongText),
        Column("time", BigInteger, nullable=False),
        Column("instance_id", Name, nullable=False),
        Column("token", Name),
        Column("worker", LongText),
        Column("until", BigInteger),
        Column("done", Boolean, nullable=False),
    )
    index("activities", "instance", "instance_id")
    index("activities", "offered", "name", "done", "time", "id", "until")
    index("activities", "token", "token", where="token")

    table(
        "definitions",
        Column("id", Name, primary_key=True),
        Column("version", BigInteger, primary_key=True, autoincrement=False),
        Column("format", BigInteger, nullable=False),
        Column("fingerprint", LongText, nullable=False),
    )
