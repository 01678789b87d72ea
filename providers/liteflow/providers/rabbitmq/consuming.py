"""Subscriptions to queues: what is pushed, handed out, settled and given back."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pika.channel
from pika.spec import BasicProperties

from liteflow.core.errors import ProviderError, UnavailableError
from liteflow.core.providers import Consumer, Delivery, Message
from liteflow.providers.rabbitmq.channels import Channel, ChannelUser
from liteflow.providers.rabbitmq.connection import Connection
from liteflow.providers.rabbitmq.driver import Driver
from liteflow.providers.rabbitmq.topology import Topology

log = logging.getLogger("liteflow.rabbitmq")

MAX_PREFETCH = 65_535

EARLY = "early"
"""The header for `Message.early`."""

FAILED_PAUSE = 1.0
"""Seconds after which a message whose callback failed goes back: it would fail again at once."""


class _Feed:
    """One queue of a consumer on one channel."""

    def __init__(self, logical: str, name: str, channel: Channel) -> None:
        self.logical = logical
        self.name = name
        self.channel = channel
        self.declared = False
        self.tag: str | None = None  # of the subscription
        self.prefetch = 0  # of the subscription
        self.held: set[Received] = set()
        self.waiting: deque[Received] = deque()


@dataclass(slots=True, eq=False)
class Received:
    """A message as it came, and the only channel on which it can be settled (in `feed`)."""

    consumer: RabbitConsumer
    feed: _Feed
    tag: int
    routing_key: str
    redelivered: bool
    properties: BasicProperties
    body: bytes

    def ack(self) -> None:
        """Done with it. From any thread; only the first `ack` or `nack` counts."""
        self.consumer.settle(self, back=False)

    def nack(self) -> None:
        """Give it back."""
        self.consumer.settle(self, back=True)


class RabbitDelivery(Delivery):
    """A received message as core sees it."""

    def __init__(self, received: Received) -> None:
        headers = received.properties.headers or {}
        traceparent = headers.get("traceparent")
        self.message = Message(
            received.feed.logical,
            received.body.decode("utf-8", "replace"),
            traceparent if isinstance(traceparent, str) else None,
            headers.get(EARLY) is True,
        )
        self.redelivered = received.redelivered
        self._received = received

    def ack(self) -> None:
        self._received.ack()

    def nack(self) -> None:
        self._received.nack()


class RabbitConsumer(ChannelUser, Consumer):
    """A consumer of some queues over one channel.

    A subscription's prefetch can't be changed on the server, so a new limit means a new subscription,
    and what is held from the old one does not count there. What the server pushes beyond the limit
    therefore waits here, until something is settled; that is seldom and short.
    """

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        queues: Sequence[str],
        prefetch: int,
        callback: Callable[[Received], None],
    ) -> None:
        super().__init__(f"the consumer of {', '.join(queues[:3])}{' ...' if len(queues) > 3 else ''}")
        self._connection = connection
        self._topology = topology
        self._queues = list(dict.fromkeys(queues))
        self._limit = min(prefetch, MAX_PREFETCH)
        self._callback = callback
        self._feeds: list[_Feed] = []
        self._changed = asyncio.Event()
        self._cancelled = False

    # ------------------------------------------------------------------------------- from any thread

    def begin(self, timeout: float) -> None:
        """Subscribe. Returns when that is done, or when the connection has to come back first."""

        async def subscribed(driver: Driver) -> None:
            await self.tried.wait()
            if isinstance(self.error, ProviderError) and not isinstance(self.error, UnavailableError):
                raise self.error

        if not self._connection.call(lambda: self._connection.add(self)):
            raise self._connection.closed_error()
        try:
            self._connection.run(subscribed, timeout)
        except UnavailableError as exc:
            log.warning("%s waits for RabbitMQ: %s", self.what, exc)
        except ProviderError:
            self.cancel()
            raise

    def limit(self, prefetch: int) -> None:
        """See `Consumer`."""
        if not self._cancelled:
            self._limit = max(0, min(prefetch, MAX_PREFETCH))
            self._connection.call(self._changed.set)

    def cancel(self) -> None:
        """See `Consumer`."""
        self._cancelled = True
        self._limit = 0
        # Callbacks run on the connection's thread: none runs while this does, and none after it.
        between: Future[None] = Future()

        def follow() -> None:
            self._changed.set()
            between.set_result(None)

        if self._connection.call(follow) and not self._connection.is_current_thread():
            between.result()

    def settle(self, received: Received, *, back: bool) -> None:
        """Acknowledge or give back."""
        self._connection.call(lambda: self._settle(received, back))

    # -------------------------------------------------------------------- on the connection's thread

    async def attach(self, driver: Driver, channel: Channel) -> None:
        """Subscribe on a new channel."""
        self._driver = driver
        channel.raw.add_on_cancel_callback(self._on_cancel)
        self._feeds = [_Feed(name, self._topology.queue(name), channel) for name in self._queues]
        channel.closed.add_done_callback(lambda _: self._changed.set())
        await self._apply(channel)

    async def serve(self, channel: Channel) -> Exception | None:
        """Follow the limit, until the channel is closed or a cancelled consumer holds nothing."""
        while not channel.closed.done():
            if self._cancelled and not any(feed.held for feed in self._feeds):
                return None
            await self._changed.wait()
            self._changed.clear()
            if not channel.closed.done():
                await self._apply(channel)
        return channel.closed.result()

    def detach(self) -> None:
        """The server gives all of it to others; settling it does nothing any more."""
        for feed in self._feeds:
            feed.held.clear()
            feed.waiting.clear()
        self._feeds = []

    async def _apply(self, channel: Channel) -> None:
        """Bring the subscriptions in line with the limit."""
        for feed in self._feeds:
            self._hand_out(feed)
        for feed in self._feeds:
            while feed.prefetch != self._limit:
                limit = self._limit
                if feed.tag is not None:
                    await channel.call(channel.raw.basic_cancel, feed.tag)
                    feed.tag = None
                if limit:
                    await self._subscribe(channel, feed, limit)
                feed.prefetch = limit

    async def _subscribe(self, channel: Channel, feed: _Feed, prefetch: int) -> None:
        if not feed.declared:
            await self._topology.declare_queue(self._driver, feed.name)
            feed.declared = True
        await channel.call(channel.raw.basic_qos, prefetch_count=prefetch)

        def on_message(
            _: pika.channel.Channel, method: Any, properties: BasicProperties, body: bytes
        ) -> None:
            feed.waiting.append(
                Received(
                    self, feed, method.delivery_tag, method.routing_key, method.redelivered, properties, body
                )
            )
            self._hand_out(feed)

        reply = await channel.call(channel.raw.basic_consume, feed.name, on_message)
        feed.tag = reply.method.consumer_tag

    def _hand_out(self, feed: _Feed) -> None:
        while feed.waiting and len(feed.held) < self._limit:
            received = feed.waiting.popleft()
            feed.held.add(received)
            try:
                self._callback(received)
            except Exception:
                log.exception("the callback for a message of %s failed; it goes back", feed.name)
                self._connection.later(FAILED_PAUSE, received.nack)
        if not self._limit:
            while feed.waiting:
                feed.channel.raw.basic_nack(feed.waiting.popleft().tag)

    def _settle(self, received: Received, back: bool) -> None:
        feed = received.feed
        if received not in feed.held:
            return
        feed.held.discard(received)
        if feed.channel.is_open:
            if back:
                feed.channel.raw.basic_nack(received.tag)
            else:
                feed.channel.raw.basic_ack(received.tag)
            self._hand_out(feed)
        if self._cancelled:
            self._changed.set()

    def _on_cancel(self, frame: Any) -> None:
        """The server ended a subscription, as it does when the queue is deleted: declare and subscribe."""
        tag = frame.method.consumer_tag
        for feed in self._feeds:
            if feed.tag == tag:
                log.warning("RabbitMQ has ended the subscription to queue %s; subscribing again", feed.name)
                feed.tag = None
                feed.prefetch = 0
                feed.declared = False
                self._changed.set()
