"""Is a broker fit for LiteFlow? Asked over a connection of its own, which leaves nothing behind."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from pika import URLParameters
from pika.exceptions import AMQPError
from pika.spec import BasicProperties

from liteflow.core.errors import ProviderError, UnavailableError
from liteflow.core.findings import Finding, problem, warning, well
from liteflow.providers.rabbitmq.channels import Channel, scratch
from liteflow.providers.rabbitmq.driver import Driver, address, connect, describe, into
from liteflow.providers.rabbitmq.management import Management
from liteflow.providers.rabbitmq.topology import Topology

AREA = "queue"

TIMEOUT = 10.0
"""Seconds for all questions to one node."""

QUORUM_SINCE = (3, 8)
"""Release from when there are replicated queues."""


def check(nodes: Sequence[URLParameters], topology: Topology, management: Management | None) -> list[Finding]:
    """See `Provider.check`. Of several nodes each is asked, since each may have to do alone."""
    found = asyncio.run(_check(nodes, topology))
    return found if management is None else [*found, _management(management)]


def _management(management: Management) -> Finding:
    try:
        management.overview()
    except ProviderError as exc:
        return problem(AREA, str(exc), "check --management; its user needs the tag 'monitoring'")
    return well(AREA, f"the management plugin at {management.address} answers")


async def _check(nodes: Sequence[URLParameters], topology: Topology) -> list[Finding]:
    return [finding for node in nodes for finding in await _check_node(node, topology)]


async def _check_node(node: URLParameters, topology: Topology) -> list[Finding]:
    where = f"RabbitMQ at {address(node)}"
    try:
        driver = await asyncio.wait_for(connect(node), TIMEOUT)
    except asyncio.TimeoutError:
        return [_unreachable(f"{where} does not answer within {TIMEOUT:g} s")]
    except UnavailableError as exc:
        return [_unreachable(str(exc))]
    except ProviderError as exc:
        return [problem(AREA, str(exc), "check user, password and virtual host in --queue")]
    closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    driver.add_on_close_callback(into(closed))
    try:
        return [_version(where, driver), await _may_use(where, driver, topology)]
    finally:
        if driver.is_open:
            driver.close()
        await asyncio.wait({closed}, timeout=TIMEOUT)


def _unreachable(message: str) -> Finding:
    return problem(AREA, message, "start the server, or check host and port in --queue")


def _version(where: str, driver: Driver) -> Finding:
    properties = driver.server_properties or {}
    version = str(properties.get("version", "unknown"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < QUORUM_SINCE:
        return warning(
            AREA,
            f"{where} is version {version}, which has no quorum queues",
            "messages are lost with their node; use RabbitMQ 3.8 or later",
        )
    return well(AREA, f"{where} answers, version {version}")


async def _may_use(where: str, driver: Driver, topology: Topology) -> Finding:
    """Do with a queue for this moment what is done with the others."""
    blocked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    driver.add_on_connection_blocked_callback(into(blocked))
    name = topology.queue(f"check.{uuid.uuid4().hex}")
    done = asyncio.ensure_future(_use(driver, topology, name))
    try:
        await asyncio.wait({done, blocked}, timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            done.result()
            return well(AREA, f"{where} lets this user declare, publish and consume")
    except AMQPError as exc:
        return problem(
            AREA,
            f"{where} refuses this user: {describe(exc)}",
            f"give it configure, write and read permission for '^{topology.commands}(\\..*)?$', and write"
            " for 'amq.default'",
        )
    finally:
        done.cancel()
    if blocked.done():
        why = blocked.result().method.reason
        return problem(
            AREA, f"{where} takes no messages: {why}", "free memory or disk of the broker; publishers wait"
        )
    return problem(AREA, f"{where} did not confirm a message within {TIMEOUT:g} s", "look into its log")


async def _use(driver: Driver, topology: Topology, name: str) -> None:
    async with scratch(driver) as channel:
        await channel.call(channel.raw.queue_declare, name, exclusive=True, auto_delete=True)
        await _publish(channel, name)
        await channel.call(channel.raw.queue_purge, name)
        await channel.call(channel.raw.queue_delete, name)


async def _publish(channel: Channel, name: str) -> None:
    confirmed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    await channel.call(channel.raw.confirm_delivery, into(confirmed))
    channel.raw.basic_publish("", name, b"check", BasicProperties())
    await asyncio.wait({confirmed, channel.closed}, return_when=asyncio.FIRST_COMPLETED)
    if not confirmed.done():
        raise channel.closed.result()
