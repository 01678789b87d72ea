"""Where a database tells nobody anything: a look now and then, the less often the longer there was nothing.

Broadcasts are rows that everybody reads once, and that are removed after a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select

from liteflow.providers.sql.database import BATCH, Database
from liteflow.providers.sql.messages import Messages
from liteflow.providers.sql.server_micros import server_micros
from liteflow.providers.sql.signals import Bell, Broadcast, News, Signals

SHORTEST = 0.004
LONGEST = {"sqlite": 0.05, "mysql": 0.1}
"""Seconds between two looks; the longer one after a while without news."""

SLOWER = 1.3
"""By so much the pause grows with each look that finds nothing."""

KEPT = 60.0
"""Seconds for which a broadcast is kept. Who has not read it by then does without."""

LATE = {"sqlite": 0.0, "mysql": 1.0}
"""Seconds for which a broadcast with a lower number may still come: numbers are given before the commit, and
only SQLite has one writer at a time."""


class Polling(Signals):
    """Looks at the tables. For SQLite one number tells cheaply whether anybody has written to the file."""

    def __init__(self, database: Database, table: Table, messages: Messages) -> None:
        self._db = database
        self._table = table
        self._messages = messages
        self._pause = SHORTEST
        self._look_at = 0.0
        self._written_since = True
        self._read = 0  # all broadcasts up to this one were read, and none can come any more
        self._recent: dict[int, float] = {}  # later ones that were read, and when
        self._purge_at = 0.0
        self._watcher: Any = None  # a connection of the driver, for SQLite
        self._written = -1

    def start(self) -> None:
        if self._db.name == "sqlite":
            pooled = self._db.engine.raw_connection()
            self._watcher = pooled.dbapi_connection
            pooled.detach()
        newest = select(func.coalesce(func.max(self._table.c.id), 0))
        self._read = self._db.read(lambda connection: connection.scalars(newest).one())
        self._recent.clear()
        self.started = True

    def hold(self, session: int) -> None:
        """Its row has to do."""

    def sent(self, connection: Connection, queues: Iterable[str]) -> None:
        """Who looks finds it."""

    def broadcast(self, connection: Connection, broadcasts: Sequence[Broadcast]) -> None:
        now = server_micros(self._db.name)
        for one in broadcasts:
            row = {"time": now, "topic": one.topic, "origin": one.origin, "body": one.body}
            connection.execute(insert(self._table).values(row))
        self._pause, self._look_at = SHORTEST, 0.0  # who waits for it may be here

    def wait(self, bell: Bell, seconds: float, queues: Sequence[str]) -> News:
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            rung = bell.wait(min(self._look_at, until) - now)
            self._written_since = self._changed() or self._written_since
            now = time.monotonic()
            if now >= self._look_at:
                if self._written_since:
                    return self._looked(queues)
                self._look_later(now)
            if rung or now >= until:
                return News()

    def _looked(self, queues: Sequence[str]) -> News:
        self._written_since = False
        news = self._db.read(lambda connection: self._look(connection, queues))
        if news.queues or news.broadcasts:
            self._pause = SHORTEST
        self._look_later(time.monotonic())
        self._purge()
        return news

    def _look_later(self, now: float) -> None:
        self._look_at = now + self._pause
        self._pause = min(LONGEST[self._db.name], self._pause * SLOWER)

    def _changed(self) -> bool:
        """False if certainly nobody has written since the last time."""
        if self._watcher is None:
            return True
        written = self._watcher.execute("PRAGMA data_version").fetchone()[0]
        changed = written != self._written
        self._written = written
        return bool(changed)

    def _look(self, connection: Connection, queues: Sequence[str]) -> News:
        news = News(self._messages.ready(connection, queues))
        table = self._table.c
        later = (
            select(table.id, table.topic, table.body, table.origin)
            .where(table.id > self._read)
            .order_by(table.id)
        )
        now = time.monotonic()
        for number, topic, body, origin in connection.execute(later.limit(BATCH + len(self._recent))):
            if number not in self._recent:
                self._recent[number] = now
                news.broadcasts.append(Broadcast(topic, body, origin))
        late = LATE[self._db.name]
        for number in sorted(self._recent):
            if now - self._recent[number] < late:
                break
            del self._recent[number]
            self._read = number
        return news

    def _purge(self) -> None:
        if time.monotonic() < self._purge_at:
            return
        self._purge_at = time.monotonic() + KEPT / 2
        old = delete(self._table).where(
            self._table.c.time < server_micros(self._db.name) - int(KEPT * 1_000_000)
        )
        self._db.write(lambda connection: connection.execute(old))

    def close(self) -> None:
        watcher, self._watcher, self.started = self._watcher, None, False
        if watcher is not None:
            watcher.close()
