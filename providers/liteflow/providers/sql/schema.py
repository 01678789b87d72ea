"""The tables and their indexes. Every query that runs periodically is served by one of them.

A workflow instance is one row of ``instances`` with all that changes often or is asked for, and rows of
``parts``: one for each attribute of its data, each execution pointer in it, each collection of a for_each,
and each claim. So a commit of one step writes the instance's row and the rows of the parts that the step
has changed, however much else there is. Rows can be read by people: values are JSON.

Where a database knows partial indexes, ended instances cost nothing in the indexes of what is due or
parked. The last four tables are those of the queue and the lock provider, used where they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, SmallInteger, String, Table
from sqlalchemy.sql.elements import ColumnElement

from liteflow.core.models import wait_key
from liteflow.providers.sql.columns import LongText, Name, number_column

SCHEMA_VERSION = "0003"
"""The migration that makes the tables what they are here."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one prefix."""

    metadata: MetaData
    instances: Table
    parts: Table
    requests: Table
    waits: Table
    history: Table
    errors: Table
    events: Table
    activities: Table
    definitions: Table
    processes: Table
    messages: Table
    sessions: Table
    broadcasts: Table
    leases: Table


def topic(name: str, key: str) -> str:
    """A short text for an event name and key of any length, to be indexed."""
    return hashlib.blake2b(wait_key(name, key).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def tables(prefix: str) -> Tables:
    """All tables, named ``<prefix>_instances`` and so on."""
    metadata = MetaData()

    def table(name: str, *columns: Column[Any], **options: Any) -> Table:
        return Table(f"{prefix}_{name}", metadata, *columns, **options)

    instances = table(
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
    i = instances.c
    _index(instances, "due", i.wake_at, where=i.wake_at.is_not(None))
    _index(instances, "status", i.status, i.create_time, i.id)
    _index(instances, "workflow", i.workflow_definition_id, i.status, i.create_time, i.id)
    _index(instances, "reference", i.reference, i.create_time, i.id, where=i.reference.is_not(None))
    _index(instances, "ended", i.status, i.complete_time, i.id, where=i.complete_time.is_not(None))
    parked = i.is_parked.is_not(None)
    _index(instances, "parked", i.is_parked, i.workflow_definition_id, i.version, i.id, where=parked)
    _index(instances, "parked_time", i.is_parked, i.create_time, i.id, where=parked)
    parts = table(
        "parts",
        Column("instance_id", Name, primary_key=True),
        Column("kind", String(20), primary_key=True),
        Column("name", Name, primary_key=True),
        Column("value", LongText, nullable=False),
    )
    requests = table(
        "requests",
        Column("instance_id", Name, primary_key=True),
        Column("place", BigInteger, primary_key=True, autoincrement=False),
        Column("id", LongText, nullable=False),
        Column("value", LongText, nullable=False),
    )
    waits = table(
        "waits",
        Column("topic", String(32), primary_key=True),
        Column("instance_id", Name, primary_key=True),
        Column("name", LongText, nullable=False),
        Column("key", LongText, nullable=False),
        Column("since", BigInteger, nullable=False),
    )
    _index(waits, "instance", waits.c.instance_id)
    history = table(
        "history",
        Column("instance_id", Name, primary_key=True),
        Column("pointer", BigInteger, primary_key=True, autoincrement=False),
        Column("format", BigInteger, nullable=False),
        Column("value", LongText, nullable=False),
    )
    errors = table(
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
    events = table(
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
    e = events.c
    _index(events, "topic", e.topic, e.time, e.id)
    _index(events, "due", e.due, e.id, where=e.due.is_not(None))
    _index(events, "processed", e.processed, e.id, where=e.processed.is_not(None))
    activities = table(
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
    a = activities.c
    # Read in order from the oldest; the lease's end is there to pass over those that are leased.
    _index(activities, "offered", a.name, a.done, a.time, a.id, a.until)
    _index(activities, "token", a.token, where=a.token.is_not(None))
    _index(activities, "instance", a.instance_id)
    definitions = table(
        "definitions",
        Column("id", Name, primary_key=True),
        Column("version", BigInteger, primary_key=True, autoincrement=False),
        Column("format", BigInteger, nullable=False),
        Column("fingerprint", LongText, nullable=False),
    )
    processes = table(
        "processes",
        Column("id", Name, primary_key=True),
        Column("format", BigInteger, nullable=False),
        Column("value", LongText, nullable=False),
    )
    # The queue. A message without a consumer is ready; `consumer` is a session.
    messages = table(
        "messages",
        number_column(),
        Column("queue", Name, nullable=False),
        Column("consumer", BigInteger),
        Column("redelivered", Boolean, nullable=False),
        Column("body", LongText, nullable=False),
        Column("traceparent", LongText),
        sqlite_autoincrement=True,
    )
    m = messages.c
    _index(messages, "ready", m.queue, m.consumer, m.id)
    _index(messages, "held", m.consumer, where=m.consumer.is_not(None))
    sessions = table(
        "sessions",
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("until", BigInteger, nullable=False),
    )
    broadcasts = table(
        "broadcasts",
        number_column(),
        Column("time", BigInteger, nullable=False),
        Column("topic", String(32), nullable=False),
        Column("origin", String(64), nullable=False),
        Column("body", LongText, nullable=False),
        sqlite_autoincrement=True,
    )
    _index(broadcasts, "time", broadcasts.c.time)
    leases = table(
        "leases",
        Column("name", Name, primary_key=True),
        Column("token", String(32), nullable=False),
        Column("until", BigInteger, nullable=False),
        Column("mark", Boolean, nullable=False),
    )
    return Tables(
        metadata, instances, parts, requests, waits, history, errors, events, activities, definitions,
        processes, messages, sessions, broadcasts, leases,
    )  # fmt: skip


def _index(
    table: Table, name: str, *columns: Column[object], where: ColumnElement[bool] | None = None
) -> None:
    Index(f"{table.name}_{name}", *columns, sqlite_where=where, postgresql_where=where)
