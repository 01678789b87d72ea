"""Making the tables, and bringing those of an older release up to date."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from liteflow.core.errors import ProviderError, StoreUnavailableError
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.schema import SCHEMA_VERSION

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_SECONDS = 60
"""So long a process waits for another one that is making the tables."""


def version_table(prefix: str) -> str:
    """Where Alembic keeps the version of the tables of a prefix."""
    return f"{prefix}_schema_version"


def config(prefix: str, connection: Connection) -> Config:
    """What Alembic needs to know."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    made.attributes.update(prefix=prefix, connection=connection)
    return made


def migrate(database: Database, prefix: str) -> None:
    """Bring the tables to `SCHEMA_VERSION`, one process at a time. `ProviderError` if they are newer."""
    if database.read(lambda connection: _version(connection, prefix)) == SCHEMA_VERSION:
        return
    database.write(lambda connection: _upgrade(connection, prefix))


def _version(connection: Connection, prefix: str) -> str:
    table = version_table(prefix)
    if not inspect(connection).has_table(table):
        return ""
    name = connection.dialect.identifier_preparer.quote(table)
    found = connection.execute(text(f"SELECT version_num FROM {name}")).scalar()
    return str(found or "")


def _upgrade(connection: Connection, prefix: str) -> None:
    with _alone(connection, prefix):
        version = _version(connection, prefix)
        if version > SCHEMA_VERSION:
            raise ProviderError(
                f"the tables with the prefix {prefix} are of version {version}, made by a newer release;"
                f" this one knows {SCHEMA_VERSION}: upgrade LiteFlow here too"
            )
        if version < SCHEMA_VERSION:
            command.upgrade(config(prefix, connection), SCHEMA_VERSION)


@contextmanager
def _alone(connection: Connection, prefix: str) -> Iterator[None]:
    """SQLite's transaction has the whole file; the servers lock what a name stands for."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        # Also for who does not wait for the disk otherwise: a crash would leave them without their tables.
        connection.execute(text("SET LOCAL synchronous_commit = on"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": zlib.crc32(prefix.encode())})
        yield
    elif dialect == "mysql":
        name = {"name": version_table(prefix), "seconds": LOCK_SECONDS}
        if connection.execute(text("SELECT GET_LOCK(:name, :seconds)"), name).scalar() != 1:
            raise StoreUnavailableError("MySQL: another process has been making the tables for a minute")
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)
    else:
        yield
