"""The broadcast, over channels of Redis: one connection listens to the topics with subscribers here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from liteflow.core.errors import QueueUnavailableError
from liteflow.core.retry import backoff
from liteflow.providers.redis.client import Connection, Server, interrupt
from liteflow.providers.redis.session import MAX_PAUSE
from liteflow.providers.redis.streams import Keys
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

log = logging.getLogger("liteflow.redis")

Callback = Callable[[str], None]

QUIET = 5.0
"""Seconds of silence after which the server is asked whether it is there."""


class _Topic:
    """The subscribers of a topic, and whether the server sends it to us."""

    def __init__(self) -> None:
        self.callbacks: list[Callback] = []
        self.in_force = False


class Broadcast:
    """Listens on a thread of its own, which sets the subscriptions up again after an outage."""

    def __init__(self, server: Server, keys: Keys, timeout: float) -> None:
        self._server = server
        self._keys = keys
        self._timeout = timeout
        self._state = threading.Condition()
        self._topics: dict[str, _Topic] = {}  # by channel
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to listen."""
        with self._state:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="liteflow-redis-topics", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Forget the subscribers, and end."""
        with self._state:
            thread, self._thread = self._thread, None
            self._topics.clear()
            self._state.notify_all()
            connection = self._connection
        if connection is not None:
            interrupt(connection)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def subscribe(self, topic: str, callback: Callback) -> Callable[[], None]:
        """Returns when the server knows, and gives what ends it. `QueueUnavailableError` if it is away."""
        channel = self._keys.topic(topic)
        with self._state:
            entry = self._topics.get(channel)
            if entry is None:
                entry = self._topics[channel] = _Topic()
                self._tell("SUBSCRIBE", channel)
            entry.callbacks.append(callback)
            if not self._state.wait_for(lambda: entry.in_force, self._timeout):
                self._forget(channel, entry, callback)
                raise QueueUnavailableError(f"redis {self._server.name} does not answer to a subscription")

        def unsubscribe() -> None:
            with self._state:
                self._forget(channel, entry, callback)

        return unsubscribe

    def _forget(self, channel: str, entry: _Topic, callback: Callback) -> None:
        if callback in entry.callbacks:
            entry.callbacks.remove(callback)
        if not entry.callbacks and self._topics.get(channel) is entry:
            del self._topics[channel]
            self._tell("UNSUBSCRIBE", channel)

    def _tell(self, command: str, *channels: str) -> None:
        """Under the lock. If it fails, the thread notices, and tells all anew."""
        if self._connection is not None:
            with suppress(RedisError):
                self._connection.send_command(command, *channels)

    # ------------------------------------------------------------------------------- on its own thread

    def _run(self) -> None:
        pauses = backoff(limit=MAX_PAUSE)
        me = threading.current_thread()
        while self._thread is me:
            try:
                connection = self._connect()
                pauses = backoff(limit=MAX_PAUSE)
                while self._thread is me:
                    self._listen(connection)
            except (RedisError, OSError) as exc:
                log.debug("the broadcast of redis %s was interrupted: %r", self._server.name, exc)
            with self._state:
                left, self._connection = self._connection, None
                for topic in self._topics.values():
                    topic.in_force = False
                if left is not None:
                    left.disconnect()
                self._state.wait_for(lambda: self._thread is not me, next(pauses))

    def _connect(self) -> Connection:
        connection = self._server.connection()
        connection.connect()
        with self._state:
            self._connection = connection
            # One that nobody sends to, so that the connection is one that listens from the start.
            self._tell("SUBSCRIBE", self._keys.topic("") + "\0", *self._topics)
        return connection

    def _listen(self, connection: Connection) -> None:
        if not connection.can_read(timeout=QUIET):
            with self._state:
                self._tell("PING")
            if not connection.can_read(timeout=self._timeout):
                raise RedisConnectionError("no answer to a ping")
        kind, channel, *rest = connection.read_response()
        if kind == b"subscribe":
            with self._state:
                topic = self._topics.get(channel.decode())
                if topic is not None:
                    topic.in_force = True
                    self._state.notify_all()
        elif kind == b"message":
            self._hand_out(channel.decode(), rest[0].decode("utf-8", "replace"))

    def _hand_out(self, channel: str, body: str) -> None:
        with self._state:
            topic = self._topics.get(channel)
            callbacks = list(topic.callbacks) if topic is not None else []
        for callback in callbacks:
            try:
                callback(body)
            except Exception:
                # Whatever one subscriber raises is no matter of the others.
                log.exception("a subscriber of %s failed", channel)
