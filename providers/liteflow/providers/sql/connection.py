"""From a URL to an engine: the driver, its time limits, and what each new connection is told."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from liteflow.core.errors import ProviderError

BUSY_SECONDS = 20.0
"""So long a writer waits for the others who write to the same SQLite file."""

BEGIN = "liteflow_begin"
"""The option of an engine that says how a SQLite transaction begins; nothing: each statement by itself."""

_DRIVERS = {
    "sqlite": ("sqlite", "", ""),
    "postgresql": ("postgresql+psycopg", "psycopg", "postgres"),
    "postgres": ("postgresql+psycopg", "psycopg", "postgres"),
    "mysql": ("mysql+pymysql", "PyMySQL", "mysql"),
    "mariadb": ("mysql+pymysql", "PyMySQL", "mysql"),
}
"""By the scheme of a URL: what SQLAlchemy calls it, the driver, and the extra that installs it."""

_EXAMPLE = (
    "sqlite:///file.db, postgresql://user:password@host/database or mysql://user:password@host/database"
)

POSTGRES_SESSION = (
    # A machine that is gone in the middle of a transaction must not keep its locks for hours.
    "SET idle_in_transaction_session_timeout = '30s'; SET lock_timeout = '10s'; SET statement_timeout = '60s'"
)
MYSQL_SESSION = (
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', SESSION wait_timeout = 600,"
    " SESSION innodb_lock_wait_timeout = 10"
)


POSTGRES_SOFT = "; SET synchronous_commit = off"


def create(url: str, options: dict[str, Any], *, durable: bool = True) -> Engine:
    """An engine for a URL; nothing is connected yet. `ProviderError` if it is not valid.

    Without `durable`, a commit need not wait for the disk: what it stored survives the death of any process,
    but maybe not that of the machine. (MySQL has this by server, not by session: there nothing changes.)
    """
    parsed = _parsed(url)
    name = parsed.get_backend_name()
    arguments = _SETTINGS[name](parsed)
    try:
        engine = create_engine(
            arguments.pop("url", parsed),
            hide_parameters=True,
            **{"pool_size": 8, "max_overflow": 24, "pool_timeout": BUSY_SECONDS, **arguments, **options},
        )
    except (ModuleNotFoundError, NoSuchModuleError) as exc:
        scheme = url.partition(":")[0]
        _, driver, extra = _DRIVERS[scheme.partition("+")[0].lower()]
        raise ProviderError(
            f"the driver for {scheme}:// is not installed: {driver}; pip install 'liteflow.core[{extra}]'"
        ) from exc
    except (ArgumentError, TypeError, ValueError) as exc:
        # The driver may quote the URL, so it gets no say if that holds a password.
        raise _invalid("an option is wrong" if parsed.password else f"an option is wrong: {exc}") from None
    if name == "sqlite":
        _tell_sqlite(engine, _synchronous(parsed) if durable else "normal")
    elif name == "postgresql":
        _tell(engine, POSTGRES_SESSION + ("" if durable else POSTGRES_SOFT))
    else:
        _tell(engine, MYSQL_SESSION)
    return engine


def _invalid(reason: str) -> ProviderError:
    return ProviderError(f"the SQL URL is not valid ({reason}); it looks like {_EXAMPLE}")


def _parsed(url: str) -> URL:
    # Nothing of the URL is told: it may hold a password.
    scheme = re.match(r"[A-Za-z0-9+]*", url)
    name, _, driver = (scheme.group() if scheme else "").lower().partition("+")
    if name not in _DRIVERS:
        raise _invalid("it begins with none of sqlite, postgresql, mysql, mariadb")
    dialect = _DRIVERS[name][0]
    if driver and driver != dialect.partition("+")[2]:
        raise _invalid(f"the driver is {dialect.partition('+')[2] or 'sqlite3'}, which need not be named")
    try:
        parsed = make_url(url).set(drivername=dialect)
    except (ArgumentError, ValueError):
        raise _invalid("are user name and password percent-encoded?") from None
    if not parsed.database or (name == "sqlite" and parsed.database == ":memory:"):
        raise _invalid("it names no database" if name != "sqlite" else "it names no file")
    if name == "sqlite" and parsed.host:
        raise _invalid("a file takes three slashes, or four if its path is absolute")
    return parsed


def _sqlite(url: URL) -> dict[str, Any]:
    if sqlite3.sqlite_version_info < (3, 35):
        raise ProviderError(
            f"SQLite {sqlite3.sqlite_version} is too old: LiteFlow needs 3.35 or later;"
            " upgrade Python or SQLite"
        )
    _synchronous(url)
    return {
        "url": url.difference_update_query(["synchronous"]),
        "connect_args": {"timeout": BUSY_SECONDS, "check_same_thread": False},
    }


def _synchronous(url: URL) -> str:
    level = str(url.query.get("synchronous", "full")).lower()
    if level not in ("full", "extra", "normal"):
        raise _invalid("synchronous is full, extra or normal: what is stored is on the disk")
    return level


def _postgresql(url: URL) -> dict[str, Any]:
    defaults = {
        "connect_timeout": "5", "application_name": "liteflow", "keepalives_idle": "10",
        "keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "30000",
    }  # fmt: skip
    return {
        "connect_args": {key: value for key, value in defaults.items() if key not in url.query},
        "isolation_level": "READ COMMITTED",
    }


def _mysql(url: URL) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "connect_timeout": 5, "read_timeout": 60, "write_timeout": 60, "charset": "utf8mb4",
    }  # fmt: skip
    return {
        "connect_args": {key: value for key, value in defaults.items() if key not in url.query},
        # Less than what its sessions are told to wait for the next statement.
        "pool_recycle": 300,
        "isolation_level": "READ COMMITTED",
    }


_SETTINGS: dict[str, Callable[[URL], dict[str, Any]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
}


def _tell_sqlite(engine: Engine, synchronous: str) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin as `begin` below says, not the driver
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        how = connection.get_execution_options().get(BEGIN)
        if how:
            connection.exec_driver_sql(how)


def _tell(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.commit()
