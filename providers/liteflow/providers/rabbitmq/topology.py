"""Names on the server, and how exchanges and queues come to be there."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any

from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker

from liteflow.core.errors import ProviderError, SettingsError
from liteflow.providers.rabbitmq.channels import Channel, scratch
from liteflow.providers.rabbitmq.driver import ACCESS_REFUSED, Driver

log = logging.getLogger("liteflow.rabbitmq")

NOT_FOUND = 404
PRECONDITION_FAILED = 406
NOT_IMPLEMENTED = 540

SHORT_STRING = 255
"""Bytes of a name in AMQP."""

QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": 2_000_000_000}
"""Arguments of a replicated queue.

From version 4 on the server drops a message that came back 20 times, unless the queue says otherwise. Its
word for "never", -1, means "at once" to 3.x; a huge number means the same to all.
"""


DELETION_PAUSE = 0.5
"""Seconds between a queue's deletion by somebody and its new declaration.

A channel learns of the deletion of a quorum queue a moment later (70 ms were seen). What it sends to a new
queue of the same name before that is confirmed and lost (RabbitMQ 3.10).
"""


def short(name: str) -> str:
    """A name that fits AMQP: the tail of an overlong one is replaced by a hash of all of it."""
    encoded = name.encode("utf-8", "backslashreplace")
    if len(encoded) > SHORT_STRING:
        tail = hashlib.sha256(encoded).hexdigest()[:40].encode()
        encoded = encoded[: SHORT_STRING - len(tail) - 1] + b"~" + tail
    return encoded.decode("utf-8", "ignore")


class Topology:
    """Everything of one prefix."""

    def __init__(self, prefix: str, queue_type: str) -> None:
        if not prefix or prefix.startswith("amq.") or len(prefix.encode()) > 100:
            raise SettingsError(f"prefix {prefix!r}: 1 to 100 bytes, not beginning with 'amq.'")
        if queue_type not in ("quorum", "classic"):
            raise SettingsError(f"queue_type {queue_type!r}: must be 'quorum' or 'classic'")
        self._prefix = prefix
        self._quorum = queue_type == "quorum"
        self._declared: set[str] = set()
        self._used_as_is: set[str] = set()
        self.commands = prefix
        self.commands_queue = f"{prefix}.commands"
        self.dead = f"{prefix}.dead"
        self.lifecycle = f"{prefix}.lifecycle"
        self.notify = f"{prefix}.notify"

    def queue(self, logical: str) -> str:
        """Name of the queue that core calls `logical`."""
        return short(f"{self._prefix}.{logical}")

    async def declare(self, driver: Driver) -> None:
        """Declare all that is there from the start, so that a producer finds it.

        `ProviderError` if something of another kind has the name, or the user must not do it.
        """
        try:
            async with scratch(driver) as channel:
                for exchange, kind in (
                    (self.commands, "topic"),
                    (self.dead, "fanout"),
                    (self.lifecycle, "topic"),
                    (self.notify, "direct"),
                ):
                    await channel.call(channel.raw.exchange_declare, exchange, kind, durable=True)
            await self.declare_queue(driver, self.commands_queue)
            await self.declare_queue(driver, self.dead)
            async with scratch(driver) as channel:
                # Any key: a command that nobody understands is refused with a reason, not lost.
                await channel.call(channel.raw.queue_bind, self.commands_queue, self.commands, "#")
                await channel.call(channel.raw.queue_bind, self.dead, self.dead, "")
        except ChannelClosedByBroker as exc:
            raise ProviderError(_refusal(exc)) from exc

    async def declare_queue(self, driver: Driver, name: str) -> None:
        """Make sure that a durable queue exists: a quorum queue where the server has them."""
        await self._declare_queue(driver, name)
        self._declared.add(name)

    async def _declare_queue(self, driver: Driver, name: str) -> None:
        if self._quorum:
            try:
                await _declare(driver, name, QUORUM)
                return
            except (ChannelClosedByBroker, ConnectionClosedByBroker) as exc:
                if exc.reply_code not in (PRECONDITION_FAILED, NOT_IMPLEMENTED):
                    raise _known(exc) from exc
                if "inequivalent" in exc.reply_text:
                    await self._use_as_is(driver, name, exc.reply_text)
                    return
                log.warning("RabbitMQ has no quorum queues (%s); classic ones are used", exc.reply_text)
                self._quorum = False
                if not driver.is_open:
                    raise
        try:
            await _declare(driver, name, {})
        except ChannelClosedByBroker as exc:
            if exc.reply_code != PRECONDITION_FAILED:
                raise _known(exc) from exc
            await self._use_as_is(driver, name, exc.reply_text)

    async def restore(self, driver: Driver, exchange: str, routing_key: str) -> None:
        """Declare again what a message could not be routed to: somebody has deleted it."""
        if exchange:
            await self.declare(driver)
            return
        if routing_key in self._declared:
            await asyncio.sleep(DELETION_PAUSE)
        await self.declare_queue(driver, routing_key)

    async def depth(self, driver: Driver, name: str) -> int:
        """Messages ready in a queue; 0 if there is no such queue."""
        try:
            async with scratch(driver) as channel:
                reply = await channel.call(channel.raw.queue_declare, name, passive=True)
                return int(reply.method.message_count)
        except ChannelClosedByBroker as exc:
            if exc.reply_code == NOT_FOUND:
                return 0
            raise

    async def _use_as_is(self, driver: Driver, name: str, why: str) -> None:
        async with scratch(driver) as channel:
            await channel.call(channel.raw.queue_declare, name, passive=True)
        if name not in self._used_as_is:
            self._used_as_is.add(name)
            log.warning("queue %s was declared with other arguments, and is used as it is: %s", name, why)


async def _declare(driver: Driver, name: str, arguments: dict[str, Any]) -> None:
    async with scratch(driver) as channel:
        await channel.call(channel.raw.queue_declare, name, durable=True, arguments=arguments)


async def declare_exclusive(channel: Channel, name: str) -> None:
    """A queue for this connection alone, gone with it."""
    await channel.call(channel.raw.queue_declare, name, exclusive=True, auto_delete=True)


def _known(error: ChannelClosedByBroker | ConnectionClosedByBroker) -> AMQPError | ProviderError:
    """What is not cured by trying again is an error of ours."""
    if error.reply_code == ACCESS_REFUSED:
        return ProviderError(_refusal(error))
    return error


def _refusal(error: ChannelClosedByBroker | ConnectionClosedByBroker) -> str:
    advice = ""
    if error.reply_code == ACCESS_REFUSED:
        advice = " (grant the user configure, write and read on all names that begin with the prefix)"
    return f"RabbitMQ refuses a declaration: {error.reply_text}{advice}"
