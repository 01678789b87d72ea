"""The broadcast: a direct exchange, and for each process one queue that is gone with it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

import pika.channel
from pika.exceptions import AMQPError
from pika.spec import BasicProperties

from liteflow.providers.rabbitmq.channels import Channel, ChannelUser
from liteflow.providers.rabbitmq.connection import Connection
from liteflow.providers.rabbitmq.driver import Driver
from liteflow.providers.rabbitmq.topology import Topology, declare_exclusive, short

log = logging.getLogger("liteflow.rabbitmq")

Callback = Callable[[str], None]


class _Topic:
    """The subscribers of a topic, and whether the server sends it to us."""

    def __init__(self) -> None:
        self.callbacks: list[Callback] = []
        self.bound = asyncio.Event()


class Broadcast(ChannelUser):
    """Publishes to topics and listens to those that have subscribers here."""

    def __init__(self, connection: Connection, topology: Topology) -> None:
        super().__init__("the broadcast")
        self._connection = connection
        self._exchange = topology.notify
        self._topics: dict[str, _Topic] = {}  # by routing key
        self._channel: Channel | None = None
        self._queue = ""

    def publish(self, topic: str, body: str) -> None:
        """Send from any thread, without waiting for anything."""
        key, encoded = short(topic), body.encode("utf-8", "replace")
        self._connection.call(lambda: self._publish(key, encoded))

    def subscribe(self, topic: str, callback: Callback, timeout: float) -> Callable[[], None]:
        """From any thread; returns when the server knows, and gives what ends it."""
        key = short(topic)
        subscription: list[Callback] = []  # empty before it is in force, and after its end

        async def begin(driver: Driver) -> None:
            subscription.append(callback)
            entry = self._topics.get(key)
            if entry is None:
                entry = self._topics[key] = _Topic()
                self._connection.spawn(self._bind(key, entry))
            entry.callbacks.append(callback)
            await entry.bound.wait()

        def end() -> None:
            if subscription:
                subscription.clear()
                self._forget(key, callback)

        def unsubscribe() -> None:
            self._connection.call(end)

        try:
            self._connection.run(begin, timeout)
        except BaseException:
            unsubscribe()
            raise
        return unsubscribe

    # -------------------------------------------------------------------- on the connection's thread

    async def attach(self, driver: Driver, channel: Channel) -> None:
        """Declare the queue of this process, bind what is subscribed, and listen."""
        raw = channel.raw
        self._queue = f"{self._exchange}.{uuid.uuid4().hex}"
        await channel.call(raw.exchange_declare, self._exchange, "direct", durable=True)
        await declare_exclusive(channel, self._queue)
        await channel.call(raw.basic_consume, self._queue, self._on_message, auto_ack=True)
        self._channel = channel
        for key, topic in list(self._topics.items()):
            await self._bind(key, topic)

    def detach(self) -> None:
        """Nothing is bound any more; the subscribers stay."""
        self._channel = None
        for topic in self._topics.values():
            topic.bound.clear()

    def clear(self) -> None:
        """Forget all subscribers."""
        self._topics.clear()

    async def _bind(self, key: str, topic: _Topic) -> None:
        channel = self._channel
        if channel is None or topic.bound.is_set():
            return  # `attach` binds it
        try:
            await channel.call(channel.raw.queue_bind, self._queue, self._exchange, key)
        except AMQPError:
            return
        if channel is self._channel:
            topic.bound.set()

    def _forget(self, key: str, callback: Callback) -> None:
        topic = self._topics.get(key)
        if topic is None:
            return
        topic.callbacks.remove(callback)
        if not topic.callbacks:
            del self._topics[key]
            if self._channel is not None and self._channel.is_open:
                self._channel.raw.queue_unbind(self._queue, self._exchange, key)

    def _publish(self, key: str, body: bytes) -> None:
        if self._channel is not None and self._channel.is_open and not self._connection.blocked:
            self._channel.raw.basic_publish(self._exchange, key, body, BasicProperties(delivery_mode=1))

    def _on_message(
        self, channel: pika.channel.Channel, method: Any, properties: BasicProperties, body: bytes
    ) -> None:
        topic = self._topics.get(method.routing_key)
        if topic is None:
            return
        text = body.decode("utf-8", "replace")
        for callback in list(topic.callbacks):
            try:
                callback(text)
            except Exception:
                log.exception("a subscriber of topic %s failed", method.routing_key)
