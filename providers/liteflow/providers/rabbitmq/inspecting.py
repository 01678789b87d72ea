"""Looking at queues and dead letters without changing them. For the connection's thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pika.exceptions import ChannelClosedByBroker
from pika.spec import Basic, BasicProperties

from liteflow.core.commands import DeadLetter, DeadLetters
from liteflow.core.providers import QueueState
from liteflow.providers.rabbitmq.channels import Channel, scratch
from liteflow.providers.rabbitmq.driver import Driver
from liteflow.providers.rabbitmq.topology import NOT_FOUND, PRECONDITION_FAILED, QUORUM, Topology


async def inspect(driver: Driver, topology: Topology, queues: Sequence[str]) -> list[QueueState]:
    """See `QueueProvider.inspect`. AMQP does not tell how many messages are unacknowledged."""
    return [await _inspect(driver, queue, topology.queue(queue)) for queue in queues]


async def _inspect(driver: Driver, queue: str, name: str) -> QueueState:
    try:
        async with scratch(driver) as channel:
            reply = await channel.call(channel.raw.queue_declare, name, passive=True)
    except ChannelClosedByBroker as exc:
        if exc.reply_code == NOT_FOUND:
            return QueueState(queue, False, 0, 0, 0)
        raise
    kind = await _kind(driver, name)
    return QueueState(
        queue, True, reply.method.message_count, consumers=reply.method.consumer_count, kind=kind
    )


async def _kind(driver: Driver, name: str) -> str:
    """The kind of a queue that exists: the server tells by whether a declaration is equivalent."""
    try:
        async with scratch(driver) as channel:
            await channel.call(channel.raw.queue_declare, name, durable=True, arguments=QUORUM)
        return "quorum"
    except ChannelClosedByBroker as exc:
        if exc.reply_code != PRECONDITION_FAILED:
            raise
        return "quorum, with other arguments" if "x-queue-type" not in exc.reply_text else "classic"


async def dead_letters(driver: Driver, topology: Topology, limit: int) -> DeadLetters:
    """See `CommandServer.dead_letters`. The messages are taken and, with the channel, given back."""
    found: list[DeadLetter] = []
    try:
        async with scratch(driver) as channel:
            reply = await channel.call(channel.raw.queue_declare, topology.dead, passive=True)
            while len(found) < limit:
                properties = await _get(channel, topology.dead)
                if properties is None:
                    break
                found.append(_dead_letter(properties))
    except ChannelClosedByBroker as exc:
        if exc.reply_code == NOT_FOUND:
            return DeadLetters(0, [])
        raise
    return DeadLetters(reply.method.message_count, found)


async def _get(channel: Channel, queue: str) -> BasicProperties | None:
    """The properties of the next message, unacknowledged; None if the queue is empty."""
    got: asyncio.Future[BasicProperties | None] = asyncio.get_running_loop().create_future()

    def empty(_: Any) -> None:
        if not got.done():
            got.set_result(None)

    def arrived(channel: Any, method: Any, properties: BasicProperties, body: bytes) -> None:
        if not got.done():
            got.set_result(properties)

    channel.raw.add_callback(empty, [Basic.GetEmpty])
    channel.raw.basic_get(queue, arrived)
    either: set[asyncio.Future[Any]] = {got, channel.closed}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not got.done():
        raise channel.closed.result()
    return got.result()


def _dead_letter(properties: BasicProperties) -> DeadLetter:
    headers = properties.headers or {}
    return DeadLetter(
        str(headers.get("x-liteflow-routing-key", "")),
        str(headers.get("x-liteflow-error", "")),
        str(headers.get("x-liteflow-reason", "")),
    )
