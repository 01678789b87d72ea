"""Messages on their way to the server, until it confirms that it has stored them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pika.channel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from liteflow.core.errors import ProviderError, QueueUnavailableError
from liteflow.providers.rabbitmq.channels import Channel, ChannelUser
from liteflow.providers.rabbitmq.connection import Connection
from liteflow.providers.rabbitmq.driver import Driver, describe
from liteflow.providers.rabbitmq.topology import Topology

PERSISTENT = 2

REFUSED_PAUSES = (0.05, 0.1, 0.2, 0.4)
"""Seconds before a message that the server could not store is sent to it again."""


class _Batch:
    """Letters that are confirmed together."""

    def __init__(self, size: int) -> None:
        self.future: Future[None] = Future()
        self._missing = size

    def one_confirmed(self) -> None:
        self._missing -= 1
        if self._missing == 0 and not self.future.done():
            self.future.set_result(None)

    def fail(self, error: ProviderError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class Letter:
    """One message to publish. A mandatory one that reaches no queue is sent again when that exists.

    Unless there is `heard`: that is told whether it has reached one, and that is that.
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: BasicProperties
    mandatory: bool = True
    heard: Callable[[bool], None] | None = None
    returned: bool = False
    refused: int = 0
    batch: _Batch = field(init=False)


class Publisher(ChannelUser):
    """Publishes with confirms, for all threads over one channel."""

    def __init__(self, what: str, connection: Connection, topology: Topology) -> None:
        super().__init__(what)
        self._connection = connection
        self._topology = topology
        self._channel: Channel | None = None
        self._last_tag = 0
        self._held: list[Letter] = []  # until there is a channel
        self._unconfirmed: dict[int, Letter] = {}  # by delivery tag, in order
        self._unroutable: dict[tuple[str, str], list[Letter]] = {}

    def publish(self, letters: Sequence[Letter], timeout: float | None = None) -> Future[None]:
        """Send from any thread. The future is done when all are stored, or one can't be.

        With a `timeout`, it fails when that many seconds are over.
        """
        batch = _Batch(len(letters))
        for letter in letters:
            letter.batch = batch

        def send() -> None:
            try:
                self._connection.require()
            except QueueUnavailableError as exc:
                batch.fail(exc)
                return
            if self._connection.blocked:
                batch.fail(QueueUnavailableError(f"RabbitMQ takes no messages: {self._connection.blocked}"))
                return
            for letter in letters:
                self._send(letter)
            if timeout is not None:
                late = QueueUnavailableError(f"RabbitMQ did not confirm within {timeout:g} s")
                self._connection.later(timeout, lambda: batch.fail(late))

        if not self._connection.call(send):
            batch.fail(self._connection.closed_error())
        return batch.future

    # -------------------------------------------------------------------- on the connection's thread

    async def attach(self, driver: Driver, channel: Channel) -> None:
        """Declare the topology, and switch confirms on."""
        await self._topology.declare(driver)
        channel.raw.add_on_return_callback(self._on_return)
        await channel.call(channel.raw.confirm_delivery, self._on_confirm)
        self._last_tag = 0
        self._channel = channel
        held, self._held = self._held, []
        for letter in held:
            self._send(letter)

    def detach(self) -> None:
        """What was not confirmed may be lost: its senders have to know."""
        self._channel = None
        lost = [*self._held, *self._unconfirmed.values()]
        lost += [letter for letters in self._unroutable.values() for letter in letters]
        self._held.clear()
        self._unconfirmed.clear()
        self._unroutable.clear()
        for letter in lost:
            letter.batch.fail(
                QueueUnavailableError("the connection to RabbitMQ was lost before it confirmed")
            )

    def _send(self, letter: Letter) -> None:
        if letter.batch.future.done():
            return  # nobody waits for it any more
        if self._channel is None or not self._channel.is_open:
            self._held.append(letter)
            return
        try:
            self._channel.raw.basic_publish(
                letter.exchange, letter.routing_key, letter.body, letter.properties, letter.mandatory
            )
        except AMQPError as exc:
            letter.batch.fail(QueueUnavailableError(describe(exc)))
            return
        except Exception as exc:  # pika raises all sorts of things for what AMQP can't express
            letter.batch.fail(ProviderError(f"a message can't be sent over AMQP: {exc!r}"))
            return
        self._last_tag += 1
        self._unconfirmed[self._last_tag] = letter

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        confirmed = isinstance(method, Basic.Ack)
        for tag in self._tags(method.delivery_tag, method.multiple):
            letter = self._unconfirmed.pop(tag)
            if not confirmed:
                self._refused(letter)
            elif letter.returned and letter.heard is None:
                self._send_again(letter)
            else:
                if letter.heard is not None:
                    letter.heard(not letter.returned)
                letter.batch.one_confirmed()

    def _refused(self, letter: Letter) -> None:
        """A quorum queue refuses what comes before it has elected its leader, which takes a moment."""
        if letter.refused == len(REFUSED_PAUSES):
            where = letter.routing_key or letter.exchange
            letter.batch.fail(QueueUnavailableError(f"RabbitMQ could not store a message for {where}"))
            return
        self._connection.later(REFUSED_PAUSES[letter.refused], partial(self._send, letter))
        letter.refused += 1

    def _tags(self, tag: int, multiple: bool) -> list[int]:
        if not multiple:
            return [tag] if tag in self._unconfirmed else []
        tags = []
        for one in self._unconfirmed:
            if one > tag:
                break
            tags.append(one)
        return tags

    def _on_return(
        self, channel: pika.channel.Channel, method: Basic.Return, properties: BasicProperties, body: bytes
    ) -> None:
        """No queue took it. The server says so before it confirms, but without a tag: equals are equal."""
        for letter in self._unconfirmed.values():
            if (
                not letter.returned
                and letter.body == body
                and letter.routing_key == method.routing_key
                and letter.exchange == method.exchange
            ):
                letter.returned = True
                return

    def _send_again(self, letter: Letter) -> None:
        where = (letter.exchange, letter.routing_key if not letter.exchange else "")
        letters = self._unroutable.setdefault(where, [])
        letters.append(letter)
        if len(letters) == 1:
            self._connection.spawn(self._restore(*where))

    async def _restore(self, exchange: str, routing_key: str) -> None:
        error: ProviderError | None = None
        try:
            await self._topology.restore(self._connection.require(), exchange, routing_key)
        except AMQPError as exc:
            error = QueueUnavailableError(f"queue {routing_key} can't be declared: {describe(exc)}")
        except ProviderError as exc:
            error = exc
        for letter in self._unroutable.pop((exchange, routing_key), []):
            if error is not None:
                letter.batch.fail(error)
            else:
                letter.returned = False
                self._send(letter)
