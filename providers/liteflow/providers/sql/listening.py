"""PostgreSQL's LISTEN and NOTIFY: news come by themselves, over one connection that stays open."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from liteflow.providers.sql.database import Database
from liteflow.providers.sql.signals import Bell, Broadcast, News, Signals

log = logging.getLogger("liteflow.sql")

MOST_BYTES = 7_900
"""In one notification; PostgreSQL takes less than 8,000."""


class Listening(Signals):
    """Notifications on the channel ``<prefix>_news``: ``{"q": queue}``, or a broadcast's parts."""

    def __init__(self, database: Database, prefix: str, bell: Bell) -> None:
        self._db = database
        self._channel = f"{prefix}_news"
        self._bell = bell
        self._connection: Any = None  # psycopg's own
        self._file = -1
        self._heard: list[str] = []

    def start(self) -> None:
        pooled = self._db.engine.raw_connection()
        connection: Any = pooled.dbapi_connection
        pooled.detach()  # it is kept, so the pool must not hand it out
        self._connection, self._heard = connection, []
        with _driver_errors(self._db):
            connection.autocommit = True
            connection.add_notify_handler(lambda notify: self._heard.append(notify.payload))
            quoted = self._db.engine.dialect.identifier_preparer.quote(self._channel)
            connection.execute(f"LISTEN {quoted}")
        self._file = connection.fileno()
        self._bell.watch(self._file)
        self.started = True

    def hold(self, session: int) -> None:
        with _driver_errors(self._db):
            self._connection.execute("SELECT pg_advisory_lock(%s)", (session,))

    def sent(self, connection: Connection, queues: Iterable[str]) -> None:
        self._notify(connection, [json.dumps({"q": queue}) for queue in queues])

    def broadcast(self, connection: Connection, broadcasts: Sequence[Broadcast]) -> None:
        payloads = [json.dumps({"t": one.topic, "b": one.body, "o": one.origin}) for one in broadcasts]
        short = [payload for payload in payloads if len(payload) <= MOST_BYTES]
        if len(short) < len(payloads):
            log.warning(
                "%d broadcasts are too long for PostgreSQL and were dropped", len(payloads) - len(short)
            )
        self._notify(connection, short)

    def _notify(self, connection: Connection, payloads: Sequence[str]) -> None:
        for payload in payloads:
            connection.execute(select(func.pg_notify(self._channel, payload)))

    def wait(self, bell: Bell, seconds: float, queues: Sequence[str]) -> News:
        bell.wait(seconds)
        with _driver_errors(self._db):
            raw = self._connection.pgconn
            raw.consume_input()
            while notify := raw.notifies():
                self._heard.append(notify.extra.decode())
        heard, self._heard = self._heard, []
        news = News()
        for payload in heard:
            told = json.loads(payload)
            if "q" in told:
                news.queues.add(told["q"])
            else:
                news.broadcasts.append(Broadcast(told["t"], told["b"], told["o"]))
        return news

    def close(self) -> None:
        connection, self._connection, self.started = self._connection, None, False
        if connection is not None:
            self._bell.unwatch(self._file)
            connection.close()


@contextmanager
def _driver_errors(database: Database) -> Iterator[None]:
    """Makes a driver's own error one of SQLAlchemy's, so that there is one way to judge them."""
    error: type[BaseException] = database.engine.dialect.loaded_dbapi.Error
    try:
        yield
    except error as exc:
        raise OperationalError(None, None, exc, connection_invalidated=True) from exc
