"""The queue provider on a SQL database, for teams without a broker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from liteflow.core.errors import QueueUnavailableError
from liteflow.core.providers import Consumer, Delivery, Message, QueueProvider
from liteflow.providers.sql.columns import short_name
from liteflow.providers.sql.connection import create
from liteflow.providers.sql.consuming import Holdings, SqlConsumer
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.errors import mapped, repeated
from liteflow.providers.sql.opening import checked_prefix, opened_database
from liteflow.providers.sql.schema import tables
from liteflow.providers.sql.servers import version_of
from liteflow.providers.sql.serving import Backend, Server
from liteflow.providers.sql.signals import Bell
from liteflow.providers.sql.subscribing import Subscriptions

log = logging.getLogger("liteflow.sql")

SENDING = {"pool_size": 2, "max_overflow": 6}
SERVING = {"pool_size": 1, "max_overflow": 1}
"""Connections that a provider has at most: those that send, and those of its thread, unless told otherwise.
On PostgreSQL it has one more, on which it listens."""

HEARD_WITHIN = 10.0
"""Seconds that a subscription waits for the database."""


@dataclass(frozen=True, slots=True)
class _Open:
    """What there is while the provider is open."""

    sending: Database
    backend: Backend
    server: Server
    bell: Bell


class SqlQueueProvider(QueueProvider):
    """Durable queues and broadcasts in SQLite 3.35, PostgreSQL 12, MySQL 8.0.17, MariaDB 10.6 or later.

    `url`, `prefix` and `options` are those of `SqlPersistenceProvider`. `session_ttl`: seconds of silence
    after which a process counts as dead, and others get its messages; where PostgreSQL sees the process's
    connection end, they get them within a second or two.
    """

    def __init__(
        self, url: str, prefix: str = "liteflow", *, session_ttl: float = 10.0, **options: Any
    ) -> None:
        self._prefix = checked_prefix(prefix)
        self._url = url
        self._ttl = session_ttl
        self._options = options
        self._opening = threading.Lock()
        self._opened: _Open | None = None
        self._holdings = Holdings(self._ring)
        self._subscriptions = Subscriptions(self._ring)

    def __repr__(self) -> str:
        # Without the URL: it may hold a password.
        return f"<SqlQueueProvider {self._prefix}>"

    def open(self) -> None:
        """Connect, and make the tables if need be."""
        with self._opening:
            if self._opened is None:
                with mapped(QueueUnavailableError):
                    self._opened = self._connected()
                self._opened.server.start()

    def _connected(self) -> _Open:
        sending = opened_database(self._url, self._prefix, {**SENDING, **self._options})
        serving = Database(create(self._url, {**SERVING, **self._options}, durable=False))
        bell = Bell()
        backend = Backend.of(serving, tables(self._prefix), self._prefix, self._ttl, bell)
        return _Open(
            sending, backend, Server(backend, self._holdings, self._subscriptions, self._ttl, bell), bell
        )

    def close(self) -> None:
        """Give back what was not acknowledged, and the connections."""
        with self._opening:
            opened, self._opened = self._opened, None
            if opened is not None:
                opened.server.stop()
                self._holdings.clear()
                self._subscriptions.clear()
                opened.bell.close()
                opened.backend.database.engine.dispose()
                opened.sending.engine.dispose()

    @mapped(QueueUnavailableError)
    def describe(self) -> str:
        """The database and its version."""
        return " ".join(self._open.sending.read(version_of))

    def _ring(self) -> None:
        opened = self._opened
        if opened is not None:
            opened.bell.ring()

    @property
    def _open(self) -> _Open:
        opened = self._opened
        if opened is None:
            raise QueueUnavailableError("the queue provider is not open")
        return opened

    @mapped(QueueUnavailableError)
    def send(self, messages: Sequence[Message]) -> None:
        """Store messages; returns when they are durable.

        After a `QueueUnavailableError` some of them may have been stored all the same.
        """
        opened = self._open
        if not messages:
            return
        queues = list(dict.fromkeys(short_name(message.queue) for message in messages))

        def act(connection: Connection) -> None:
            opened.backend.messages.put(connection, messages)
            opened.backend.signals.sent(connection, queues)

        repeated(lambda: opened.sending.write(act))
        self._holdings.look_into(queues)

    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """Hand messages to `callback`, on this provider's thread: it must not wait for this provider."""
        opened = self._open
        consumer = SqlConsumer(self._holdings, queues, prefetch, callback)
        self._holdings.add(consumer)
        opened.bell.ring()
        return consumer

    @mapped(QueueUnavailableError)
    def depth(self, queue: str) -> int:
        """Messages ready in a queue, counted up to 10,000."""
        opened = self._open
        return opened.backend.messages.depth(opened.sending, queue)

    def notify(self, topic: str, body: str = "") -> None:
        """Broadcast; sent within moments, lost if the database stays away or the process ends before."""
        if self._opened is not None:
            self._subscriptions.send(topic, body)

    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each broadcast on the topic, on this provider's thread."""
        opened = self._open
        unsubscribe = self._subscriptions.add(topic, callback)
        opened.bell.ring()
        if not opened.server.is_current_thread() and not opened.server.heard.wait(HEARD_WITHIN):
            log.warning("broadcasts are heard when the database answers")
        return unsubscribe
