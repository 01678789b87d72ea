"""Who has messages: one row for each process that consumes, which it keeps alive.

A session is dead when it has not been renewed for its time to live, by the server's clock. On PostgreSQL it
also holds an advisory lock on a connection that stays open: that is gone as soon as its process is, so a
death is seen at the next look and not after the time to live. Rows of the dead are removed by whoever finds
them, and then messages without a session are ready again. It is the absence of the row that makes them so: a
process that was paused for too long may still claim some after its row is gone, and they come back too.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, insert, or_, select, text, update

from liteflow.providers.sql.database import Database
from liteflow.providers.sql.messages import Messages
from liteflow.providers.sql.server_micros import server_micros

_UNLOCKED = text("""
NOT EXISTS (
    SELECT 1 FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ((CAST(CAST(classid AS bigint) AS bit(32)) || CAST(CAST(objid AS bigint) AS bit(32))))
        = CAST(id AS bit(64))
)""")
"""True of a session whose advisory lock nobody holds: a 64-bit key is shown there in two halves."""


def new_session() -> int:
    """A number that nobody else has."""
    return secrets.randbits(62) + 1


class Sessions:
    """The rows of a prefix."""

    def __init__(self, database: Database, table: Table, messages: Messages, ttl: float) -> None:
        self._db = database
        self._table = table
        self._messages = messages
        self._ttl = int(ttl * 1_000_000)

    def _now(self) -> ColumnElement[int]:
        return server_micros(self._db.name)

    def begin(self, session: int) -> None:
        """Store that it lives. On PostgreSQL its lock is held by then."""
        row: dict[str, Any] = {"id": session, "until": self._now() + self._ttl}
        self._db.write(lambda connection: connection.execute(insert(self._table).values(row)))

    def renew(self, session: int) -> bool:
        """Store that it still does. False if others have taken it for dead."""
        mine = update(self._table).where(self._table.c.id == session)
        renewed = mine.values(until=self._now() + self._ttl)
        return bool(self._db.write(lambda connection: connection.execute(renewed).rowcount))

    def end(self, session: int) -> None:
        """Give back all that it has, and forget it."""

        def act(connection: Connection) -> None:
            self._messages.give_back_all(connection, session)
            connection.execute(delete(self._table).where(self._table.c.id == session))

        self._db.write(act)

    def bury(self) -> tuple[int, set[str]]:
        """Make the messages of dead sessions ready again: how many, and in which queues.

        One who has begun a moment ago and one who has renewed meanwhile are left alone.
        """
        table = self._table.c
        over = table.until < self._now()
        dead = or_(over, _UNLOCKED) if self._db.name == "postgresql" else over

        def look(connection: Connection) -> tuple[list[int], set[str]]:
            found = list(connection.scalars(select(table.id).where(dead)))
            return found, self._messages.orphaned(connection, self._table)

        found, queues = self._db.read(look)
        if not found and not queues:
            return 0, queues

        def act(connection: Connection) -> tuple[int, set[str]]:
            if found:
                connection.execute(delete(self._table).where(table.id.in_(sorted(found)), dead))
            lost = self._messages.orphaned(connection, self._table)
            return self._messages.take_back(connection, self._table), lost

        return self._db.write(act)
