"""The queue provider for Redis: streams with consumer groups, and channels for the broadcast."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from liteflow.core.commands import Answer, Command, CommandServer, DeadLetter, DeadLetters, Refusal
from liteflow.core.errors import QueueUnavailableError, SettingsError
from liteflow.core.providers import Consumer, Delivery, Message, QueueProvider
from liteflow.providers.redis.broadcasting import Broadcast
from liteflow.providers.redis.client import Server, answers_of
from liteflow.providers.redis.commands import CommandConsumer
from liteflow.providers.redis.consuming import Received, StreamConsumer, delivery_of
from liteflow.providers.redis.session import Sessions
from liteflow.providers.redis.streams import BODY, GROUP, TRACEPARENT, Keys
from redis.exceptions import RedisError, ResponseError

DEFAULT_URL = "redis://localhost:6379/0"


class RedisQueueProvider(QueueProvider, CommandServer):
    """Queues, broadcasts and commands on one Redis server, 5.0 or later.

    `url` and `options` go to redis-py. `prefix` begins the names of all keys and channels. `session_ttl` is
    after how many seconds without a sign of life a process counts as dead, and its messages are delivered
    again. `open_timeout` is how many seconds `open` tries, `timeout` how many the server may take to answer.

    A message is as durable as the server keeps it: with an append-only file it survives the death of the
    server, with ``appendfsync always`` also a power failure.
    """

    prompt = True

    def __init__(
        self,
        url: str = DEFAULT_URL,
        prefix: str = "liteflow",
        *,
        session_ttl: float = 5.0,
        open_timeout: float = 30.0,
        timeout: float = 3.0,
        **options: Any,
    ) -> None:
        if not prefix:
            raise SettingsError("the prefix is empty; it begins the names of all keys")
        if session_ttl < 0.2:
            raise SettingsError("session_ttl must be at least 0.2 seconds")
        self._open_timeout = open_timeout
        self._keys = Keys(prefix)
        self._server = Server(url, timeout, prefix, options)
        self._sessions = Sessions(self._server, self._keys, session_ttl)
        self._broadcast = Broadcast(self._server, self._keys, timeout)
        self._guard = threading.Lock()
        self._consumers: list[StreamConsumer] = []
        self._command_servers: list[CommandConsumer] = []

    def __repr__(self) -> str:
        return f"RedisQueueProvider({self._server.name})"

    def open(self) -> None:
        """Connect and begin a session.

        Tries for `open_timeout` seconds, then raises `QueueUnavailableError`. `ProviderError` at once if
        the server refuses the user or a command, or is too old.
        """
        self._sessions.open(self._open_timeout)
        self._broadcast.open()

    def close(self) -> None:
        """End the consumers; what was not acknowledged is delivered to others at once."""
        self._broadcast.close()
        with self._guard:
            consumers, self._consumers = self._consumers, []
            servers, self._command_servers = self._command_servers, []
        for consumer in consumers:
            consumer.cancel()
        for server in servers:
            server.abandon()
        for consumer in consumers:
            consumer.join()
        self._sessions.close()

    def describe(self) -> str:
        """Its version, if the user may ask, and whether it keeps an append-only file."""
        try:
            facts = self._server.facts()
        except RedisError as exc:
            raise self._server.error(exc) from exc
        if not facts:
            return "Redis"
        evicts = f", which may evict queues ({facts['evicts']})" if facts["evicts"] else ""
        return f"Redis {facts['version']}, append-only file {facts['appendonly']}{evicts}"

    def send(self, messages: Sequence[Message]) -> None:
        """Append to the streams; returns when the server has them.

        After a `QueueUnavailableError` some of them may have been stored all the same.
        """
        self._check_open()
        if not messages:
            return
        try:
            with self._server.client.pipeline(transaction=False) as pipe:
                for message in messages:
                    pipe.xadd(self._keys.queue(message.queue), _fields(message))
                answers_of(pipe)
        except RedisError as exc:
            raise self._server.error(exc) from exc

    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """Push messages to `callback`, on a thread for this consumer.

        What is in a stream and no message (no field ``body``) goes to the dead letters.
        """
        self._check_open()
        logical = {self._keys.queue(queue): queue for queue in queues}

        def received(one: Received) -> None:
            delivery = delivery_of(one, logical[one.stream])
            if delivery is not None:
                callback(delivery)

        return self._begin(StreamConsumer(self._sessions, list(logical), prefetch, received))

    def _begin(self, consumer: StreamConsumer) -> StreamConsumer:
        consumer.begin()
        with self._guard:
            self._consumers = [one for one in self._consumers if one.is_running]
            self._consumers.append(consumer)
        return consumer

    def depth(self, queue: str) -> int:
        """Messages in the stream that nobody has."""
        self._check_open()
        stream = self._keys.queue(queue)
        try:
            with self._server.client.pipeline(transaction=False) as pipe:
                pipe.xlen(stream)
                pipe.xpending(stream, GROUP)
                length, pending = pipe.execute(raise_on_error=False)
        except RedisError as exc:
            raise self._server.error(exc) from exc
        if isinstance(length, RedisError):
            raise self._server.error(length) from length
        if isinstance(pending, ResponseError):  # no group, so nobody has read here
            return int(length)
        return max(0, int(length) - int(pending["pending"]))

    def notify(self, topic: str, body: str = "") -> None:
        """Broadcast; lost while there is no connection."""
        channel, encoded = self._keys.topic(topic), body.encode("utf-8", "replace")
        self._sessions.write(lambda pipe: pipe.publish(channel, encoded), lasting=False)

    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each broadcast on the topic, on a thread that all topics share."""
        self._check_open()
        return self._broadcast.subscribe(topic, callback)

    def dead_letters(self, limit: int) -> DeadLetters:
        """See `CommandServer.dead_letters`. For a command, its name stands for where it was sent."""
        self._check_open()
        try:
            with self._server.client.pipeline(transaction=False) as pipe:
                pipe.xlen(self._keys.dead)
                pipe.xrange(self._keys.dead, count=max(limit, 1))
                count, entries = answers_of(pipe)
        except RedisError as exc:
            raise self._server.error(exc) from exc
        return DeadLetters(int(count), [_dead_letter(fields) for _, fields in entries[:limit]])

    def serve_commands(self, handler: Callable[[Command], Answer | Refusal], concurrency: int) -> Consumer:
        """Serve the stream ``<prefix>:commands``; see `CommandServer`."""
        self._check_open()
        server = CommandConsumer(self._sessions, self._keys, handler, concurrency)
        self._begin(server.consumer)
        with self._guard:
            self._command_servers.append(server)
        return server

    def _check_open(self) -> None:
        if not self._sessions.is_open:
            raise QueueUnavailableError("the queue provider is not open")


def _fields(message: Message) -> dict[Any, Any]:
    fields: dict[Any, Any] = {BODY: message.body.encode("utf-8", "replace")}
    if message.traceparent is not None:
        fields[TRACEPARENT] = message.traceparent
    return fields


def _dead_letter(fields: Mapping[bytes, bytes]) -> DeadLetter:
    texts = {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in fields.items()
    }
    where = texts.get("command") or texts.get("x-liteflow-queue", "")
    return DeadLetter(where, texts.get("x-liteflow-error", ""), texts.get("x-liteflow-reason", ""))
