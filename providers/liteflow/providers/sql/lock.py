"""The lock provider on a SQL database: a lease is a row with an owner's token, an end and a mark.

Rows and not the servers' advisory locks: those belong to a connection and end with it, so a lease would end
with a broken connection while its holder works on, or outlive the holder's time to live while the connection
stands; there is no mark on them that the holder reads in the act that gives the lease back; and SQLite has
none.

Each call is one transaction, and all of them lock rows in the order of their names, so that none of them
waits for another in a circle.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, case, delete, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite

from liteflow.core.errors import LockUnavailableError, ProviderError
from liteflow.core.providers import Lease, LockProvider, Taken
from liteflow.providers.sql.columns import short_name
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.errors import mapped, repeated
from liteflow.providers.sql.opening import checked_prefix, opened_database
from liteflow.providers.sql.schema import tables
from liteflow.providers.sql.server_micros import server_micros
from liteflow.providers.sql.servers import version_of

log = logging.getLogger("liteflow.sql")

DRIFT_SHARE = 0.01
DRIFT_LEAST = 0.002
"""The clocks of server and process run at slightly different speeds: a lease counts as so much shorter."""

FORGOTTEN = 3600
"""Seconds after its end when the row of a lease that nobody gave back is removed, by whoever opens."""

CONNECTIONS = {"pool_size": 2, "max_overflow": 6}
"""What a provider has at most, unless it is told otherwise."""

Row = dict[str, Any]


class SqlLockProvider(LockProvider):
    """Leases in SQLite 3.35, PostgreSQL 12, MySQL 8.0.17, MariaDB 10.6 or later.

    `url`, `prefix` and `options` are those of `SqlPersistenceProvider`. Leases end by the server's clock.
    They are not forced to the disk: those of a machine that went down are held by nobody any more.
    """

    def __init__(self, url: str, prefix: str = "liteflow", **options: Any) -> None:
        self._prefix = checked_prefix(prefix)
        self._url = url
        self._options = {**CONNECTIONS, **options}
        self._opening = threading.Lock()
        self._opened: _Leases | None = None

    def __repr__(self) -> str:
        # Without the URL: it may hold a password.
        return f"<SqlLockProvider {self._prefix}>"

    def open(self) -> None:
        """Connect, make the tables if need be, and remove leases that ended long ago."""
        with self._opening:
            if self._opened is None:
                with mapped(LockUnavailableError):
                    database = opened_database(self._url, self._prefix, self._options, durable=False)
                    opened = _Leases(database, tables(self._prefix).leases)
                    try:
                        opened.sweep()
                    except BaseException:
                        database.engine.dispose()
                        raise
                    self._opened = opened

    def close(self) -> None:
        """Give back the connections. Leases run out by themselves."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.database.engine.dispose()

    @mapped(LockUnavailableError)
    def describe(self) -> str:
        """The database and its version."""
        return " ".join(self._leases.database.read(version_of))

    @property
    def _leases(self) -> _Leases:
        opened = self._opened
        if opened is None:
            raise LockUnavailableError("the lock provider is not open")
        return opened

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        """See `LockProvider.acquire`."""
        outcomes: list[Lease | Taken] = []
        while rest := names[len(outcomes) :]:
            # A statement can't write one row twice: a name that comes again is left to the next one.
            repeat = next((n for n, name in enumerate(rest) if name in rest[:n]), len(rest))
            outcomes += self._acquire(rest[:repeat], ttl)
        return outcomes

    def _acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        began = time.monotonic()
        keys = [short_name(name) for name in names]
        tokens = {key: secrets.token_hex(16) for key in keys}
        with mapped(LockUnavailableError):
            found = self._leases.take(tokens, ttl)
        outcomes: list[Lease | Taken] = []
        for name, key in zip(names, keys, strict=True):
            token, left = found[key]
            if token == tokens[key]:
                outcomes.append(Lease(name, token, began + _lasting(ttl)))
            else:
                outcomes.append(Taken(max(0.001, left / 1_000_000)))
        return outcomes

    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """See `LockProvider.renew`."""
        if not leases:
            return []
        began = time.monotonic()
        try:
            with mapped(LockUnavailableError):
                ours = self._leases.extend([_key(lease) for lease in leases], ttl)
        except LockUnavailableError as exc:
            log.warning("%d leases could not be renewed: %s", len(leases), exc)
            ours = None
        for lease in leases:
            if ours is not None and lease.token in ours:
                lease.expires = began + _lasting(ttl)
            if time.monotonic() >= lease.expires or (ours is not None and lease.token not in ours):
                lease.held = False
        return [lease.held for lease in leases]

    def release(self, leases: Sequence[Lease]) -> list[bool]:
        """See `LockProvider.release`."""
        if not leases:
            return []
        for lease in leases:
            lease.held = False
        try:
            with mapped(LockUnavailableError):
                clean = self._leases.give_back([_key(lease) for lease in leases])
        except ProviderError as exc:
            log.warning("%d leases could not be given back: %s", len(leases), exc)
            return [False] * len(leases)
        return [lease.token in clean for lease in leases]


def _key(lease: Lease) -> tuple[str, str]:
    return short_name(lease.name), lease.token


def _lasting(ttl: float) -> float:
    return ttl - (ttl * DRIFT_SHARE + DRIFT_LEAST)


class _Leases:
    """The rows."""

    def __init__(self, database: Database, table: Table) -> None:
        self.database = database
        self._table = table
        self._now: Callable[[], Any] = lambda: server_micros(database.name)

    def sweep(self) -> None:
        old = delete(self._table).where(self._table.c.until < self._now() - FORGOTTEN * 1_000_000)
        self.database.write(lambda connection: connection.execute(old))

    def take(self, tokens: dict[str, str], ttl: float) -> dict[str, tuple[str, int]]:
        """By name: the token that has the lease now, and how many microseconds it is from its end.

        A lease of another's is marked in the same act. Doing it again with the same tokens does no harm.
        """
        rows = [{"name": name, "token": tokens[name]} for name in sorted(tokens)]
        return repeated(lambda: self.database.write(lambda connection: self._take(connection, rows, ttl)))

    def _take(self, connection: Connection, rows: list[Row], ttl: float) -> dict[str, tuple[str, int]]:
        table, now = self._table.c, self._now()
        until = now + int(ttl * 1_000_000)
        values = [{**row, "until": until, "mark": False} for row in rows]
        if self.database.name == "mysql":
            put = mysql.insert(self._table).values(values)
            free = table.until <= now
            ours = table.token == put.inserted.token
            # Each of these sees what the ones before have set.
            connection.execute(
                put.on_duplicate_key_update(
                    [
                        ("mark", case((free, False), (ours, table.mark), else_=True)),
                        ("token", case((free, put.inserted.token), else_=table.token)),
                        ("until", case((ours, put.inserted.until), else_=table.until)),
                    ]
                )
            )
            names = [row["name"] for row in rows]
            found = connection.execute(
                select(table.name, table.token, table.until - self._now()).where(table.name.in_(names))
            )
        else:
            kind = sqlite.insert if self.database.name == "sqlite" else postgresql.insert
            upsert = kind(self._table).values(values)
            free = table.until <= now
            ours = table.token == upsert.excluded.token
            found = connection.execute(
                upsert.on_conflict_do_update(
                    index_elements=[table.name],
                    set_={
                        "token": case((free, upsert.excluded.token), else_=table.token),
                        "until": case((free, upsert.excluded.until), else_=table.until),
                        "mark": case((free, False), (ours, table.mark), else_=True),
                    },
                ).returning(table.name, table.token, table.until - now)
            )
        return {name: (token, left) for name, token, left in found}

    def extend(self, leases: Sequence[tuple[str, str]], ttl: float) -> set[str]:
        """The tokens whose lease has not ended, and now ends later."""

        def act(connection: Connection) -> set[str]:
            ours = [row for row in self._locked(connection, leases) if row.runs]
            until = self._now() + int(ttl * 1_000_000)
            self._each(connection, update(self._table).values(until=until), ours)
            return {row.token for row in ours}

        return repeated(lambda: self.database.write(act))

    def give_back(self, leases: Sequence[tuple[str, str]]) -> set[str]:
        """The tokens whose lease had not ended and is not marked. All of them are gone."""

        def act(connection: Connection) -> set[str]:
            ours = self._locked(connection, leases)
            self._each(connection, delete(self._table), ours)
            return {row.token for row in ours if row.runs and not row.mark}

        # Not repeated: if a lost try has removed them, who was turned away by them is not known any more.
        return self.database.write(act)

    def _locked(self, connection: Connection, leases: Sequence[tuple[str, str]]) -> list[Any]:
        table = self._table.c
        query = (
            select(table.name, table.token, table.mark, (table.until > self._now()).label("runs"))
            .where(
                table.name.in_([name for name, _ in leases]), table.token.in_([token for _, token in leases])
            )
            .order_by(table.name)
            .with_for_update()
        )
        return list(connection.execute(query))

    def _each(self, connection: Connection, statement: Any, rows: Sequence[Any]) -> None:
        if rows:
            connection.execute(statement.where(self._table.c.name.in_([row.name for row in rows])))
