"""What is asked of a database when it is opened: its version, its limits, its clock, and WAL of SQLite."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from liteflow.core.errors import ProviderError
from liteflow.providers.sql.connection import BUSY_SECONDS
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.errors import is_transient

OLDEST = {"SQLite": (3, 35), "PostgreSQL": (12,), "MySQL": (8, 0, 17), "MariaDB": (10, 6)}
"""The oldest versions that have what is used here."""

MOST_BYTES = 64 * 1024 * 1024
"""In one text, where the server does not allow less."""

_TIMES = {"postgresql": "SELECT clock_timestamp()", "mysql": "SELECT UTC_TIMESTAMP(6)"}


def prepare(database: Database) -> int:
    """Check that the database will do, and return how many bytes it takes in one text."""
    if database.name == "sqlite":
        _write_ahead(database)
    return database.read(_checked)


def _checked(connection: Connection) -> int:
    dialect = connection.dialect
    name, found = _version(connection)
    if found < OLDEST[name]:
        raise ProviderError(
            f"{name} {_dotted(found)} is too old: LiteFlow needs {_dotted(OLDEST[name])} or later;"
            " upgrade the server or name another one"
        )
    if dialect.name == "mysql":
        packet = connection.execute(text("SELECT @@max_allowed_packet")).scalar_one()
        # Quotes and backslashes take two bytes on their way.
        return min(MOST_BYTES, int(packet) // 2 - 64 * 1024)
    return MOST_BYTES


def version_of(connection: Connection) -> tuple[str, str]:
    """What the database calls itself, and its version."""
    name, found = _version(connection)
    return name, _dotted(found)


def _version(connection: Connection) -> tuple[str, tuple[int, ...]]:
    dialect = connection.dialect
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL"}[dialect.name]
    if getattr(dialect, "is_mariadb", False):
        name = "MariaDB"
    return name, tuple(part for part in dialect.server_version_info or () if isinstance(part, int))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _write_ahead(database: Database) -> None:
    """Readers and a writer at a time. The file remembers it, but must have nobody else for a moment."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with database.engine.connect() as connection:
                mode = connection.execute(text("PRAGMA journal_mode = WAL")).scalar()
            break
        except OperationalError as exc:
            # Unlike everything else this does not wait for those who have the file.
            if not is_transient(exc) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
    if mode != "wal":
        raise ProviderError(
            "SQLite can't keep a write-ahead log here, which readers beside a writer need:"
            " put the file on a local disk"
        )


def server_time(database: Database) -> datetime:
    """The time of the server, or of this machine where there is none."""
    if database.name not in _TIMES:
        return datetime.now(timezone.utc)
    statement = text(_TIMES[database.name])
    told: datetime = database.read(lambda connection: connection.execute(statement).scalar_one())
    return told.replace(tzinfo=timezone.utc) if told.tzinfo is None else told.astimezone(timezone.utc)
