"""The queue provider for RabbitMQ."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Container, Sequence
from functools import partial

from pika import URLParameters
from pika.spec import BasicProperties

from liteflow.core.commands import Answer, Command, CommandServer, DeadLetters, Refusal
from liteflow.core.errors import SettingsError
from liteflow.core.findings import Finding
from liteflow.core.lifecycle import LifecycleMessage, LifecyclePublisher
from liteflow.core.providers import Consumer, Delivery, Message, QueueProvider, QueueState
from liteflow.providers.rabbitmq import inspecting
from liteflow.providers.rabbitmq.broadcasting import Broadcast
from liteflow.providers.rabbitmq.checking import check
from liteflow.providers.rabbitmq.commands import CommandConsumer
from liteflow.providers.rabbitmq.connection import Connection
from liteflow.providers.rabbitmq.consuming import EARLY, RabbitConsumer, RabbitDelivery
from liteflow.providers.rabbitmq.driver import Driver
from liteflow.providers.rabbitmq.listeners import Listeners, Unheard
from liteflow.providers.rabbitmq.management import Management
from liteflow.providers.rabbitmq.publishing import PERSISTENT, Letter, Publisher
from liteflow.providers.rabbitmq.topology import Topology, short

DEFAULT_URL = "amqp://guest:guest@localhost:5672/"


class RabbitMQQueueProvider(QueueProvider, CommandServer, LifecyclePublisher):
    """Durable queues, broadcasts and commands on a RabbitMQ server or cluster, over one connection.

    `url` goes to pika as it is, query options included; several, separated by commas, are nodes of one
    cluster and tried in turn. `prefix` begins the names of all exchanges and queues. `queue_type` is
    ``quorum`` or ``classic``; a server without quorum queues gets classic ones by itself. `open_timeout`
    is how many seconds `open` tries, `confirm_timeout` how many the server may take to answer or to
    confirm messages. `management` is the URL of the management plugin, for what `inspect` can't tell without
    it.
    """

    prompt = True

    def __init__(
        self,
        url: str = DEFAULT_URL,
        prefix: str = "liteflow",
        *,
        queue_type: str = "quorum",
        open_timeout: float = 30.0,
        confirm_timeout: float = 10.0,
        management: str | None = None,
    ) -> None:
        self._open_timeout = open_timeout
        self._timeout = confirm_timeout
        self._topology = Topology(prefix, queue_type)
        self._nodes = _nodes(url, prefix)
        self._management = None
        if management is not None:
            self._management = Management(management, self._nodes[0].virtual_host)
        self._connection = Connection(self._nodes)
        self._publisher = Publisher("messages", self._connection, self._topology)
        self._broadcast = Broadcast(self._connection, self._topology)
        self._listeners = Listeners()
        self._command_servers: list[CommandConsumer] = []
        self._connection.always = [self._publisher, self._broadcast]

    def open(self) -> None:
        """Connect and declare the topology.

        Tries for `open_timeout` seconds, then raises `QueueUnavailableError`. `ProviderError` at once if
        the server refuses the user or a declaration.
        """
        self._connection.open(self._open_timeout)

    def close(self) -> None:
        """Give the connection back. The server delivers what was not acknowledged to others."""
        self._connection.close()
        self._broadcast.clear()
        for server in self._command_servers:
            server.abandon()
        self._command_servers.clear()

    def describe(self) -> str:
        """Its version, as it told when the connection was made."""

        async def version(driver: Driver) -> str:
            told = (driver.server_properties or {}).get("version", "")
            return told.decode() if isinstance(told, bytes) else str(told)

        return f"RabbitMQ {self._connection.run(version, self._timeout)}"

    def send(self, messages: Sequence[Message]) -> None:
        """Publish to the queues, persistent; returns when all are confirmed.

        After a `QueueUnavailableError` some of them may have been stored all the same.
        """
        self.begin_send(messages)()

    def begin_send(self, messages: Sequence[Message]) -> Callable[[], None]:
        """Publish to the queues; what is returned waits for the confirms."""
        if not messages:
            return lambda: None
        letters = [
            Letter("", self._topology.queue(message.queue), message.body.encode(), _properties(message))
            for message in messages
        ]
        return partial(self._connection.wait, self._publisher.publish(letters), self._timeout)

    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """Push messages to `callback`, on the connection's thread: it must not wait for this provider."""
        consumer = RabbitConsumer(
            self._connection,
            self._topology,
            queues,
            prefetch,
            lambda received: callback(RabbitDelivery(received)),
        )
        consumer.begin(self._timeout)
        return consumer

    def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        name = self._topology.queue(queue)
        return self._connection.run(lambda driver: self._topology.depth(driver, name), self._timeout)

    def inspect(self, queues: Sequence[str]) -> list[QueueState]:
        """See `QueueProvider.inspect`."""
        states = self._connection.run(
            lambda driver: inspecting.inspect(driver, self._topology, queues), self._timeout
        )
        if self._management is None:
            return states
        return [self._management.complete(one, self._topology.queue(one.queue)) for one in states]

    def check(self) -> list[Finding]:
        """See `Provider.check`."""
        return check(self._nodes, self._topology, self._management)

    def notify(self, topic: str, body: str = "") -> None:
        """Broadcast, transient and unconfirmed; lost while there is no connection."""
        self._broadcast.publish(topic, body)

    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each broadcast on the topic, on the connection's thread."""
        return self._broadcast.subscribe(topic, callback, self._timeout)

    def serve_commands(self, handler: Callable[[Command], Answer | Refusal], concurrency: int) -> Consumer:
        """Serve the exchange named like the prefix; see `CommandServer`."""
        server = CommandConsumer(self._connection, self._topology, handler, concurrency, self._timeout)
        self._command_servers.append(server)
        server.begin()
        return server

    def dead_letters(self, limit: int) -> DeadLetters:
        """See `CommandServer.dead_letters`."""
        return self._connection.run(
            lambda driver: inspecting.dead_letters(driver, self._topology, limit), self._timeout
        )

    def publish_lifecycle(self, messages: Sequence[LifecycleMessage]) -> None:
        """Publish lifecycle events (JSON); returns when they are confirmed, whoever listens."""
        letters = [
            Letter(
                self._topology.lifecycle,
                short(message.routing_key),
                message.body,
                BasicProperties(
                    content_type="application/json", delivery_mode=PERSISTENT, message_id=message.message_id
                ),
                heard=partial(self._listeners.note, message.routing_key),
            )
            for message in messages
        ]
        self._connection.wait(self._publisher.publish(letters), self._timeout)

    def unheard(self, workflow_definition_id: str, version: int) -> Container[str]:
        """Kinds of lifecycle events that no queue was bound for a moment ago."""
        return Unheard(self._listeners, workflow_definition_id, version)


_PLAIN = BasicProperties(delivery_mode=PERSISTENT)
_EARLY = BasicProperties(delivery_mode=PERSISTENT, headers={EARLY: True})


def _properties(message: Message) -> BasicProperties:
    if message.traceparent is None:
        return _EARLY if message.early else _PLAIN
    headers: dict[str, object] = {"traceparent": message.traceparent}
    if message.early:
        headers[EARLY] = True
    return BasicProperties(delivery_mode=PERSISTENT, headers=headers)


def _nodes(url: str, prefix: str) -> list[URLParameters]:
    nodes = []
    for one in re.split(r",\s*(?=amqps?://)", url):
        try:
            node = URLParameters(one)
        except Exception:  # pika evaluates options as literals, opens certificates, and raises what comes
            # Neither the URL nor the driver's words about it are repeated: they may hold the password.
            raise SettingsError(
                "the URL of the queue server is not valid; it should be like amqp://user:password@host:5672/vhost"
            ) from None
        if node.client_properties is None:
            node.client_properties = {"connection_name": f"{prefix} {socket.gethostname()} {os.getpid()}"}
        nodes.append(node)
    return nodes
