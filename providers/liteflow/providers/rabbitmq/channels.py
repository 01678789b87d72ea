"""Channels whose replies can be awaited, and what lives on one. For the connection's thread only."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pika.channel
from pika.exceptions import AMQPError

from liteflow.core.errors import ProviderError
from liteflow.core.retry import backoff
from liteflow.providers.rabbitmq.driver import Driver, describe, into

log = logging.getLogger("liteflow.rabbitmq")


class Channel:
    """An open channel. `raw` is pika's; `closed` gets the reason as its result."""

    raw: pika.channel.Channel

    def __init__(self) -> None:
        self.closed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, driver: Driver) -> Channel:
        """Open a channel on a connection."""
        channel = cls()
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel.raw = driver.channel(on_open_callback=into(opened))
        channel.raw.add_on_close_callback(into(channel.closed))
        await channel._reply(opened)
        return channel

    @property
    def is_open(self) -> bool:
        """True as long as something may be sent on it."""
        return self.raw.is_open

    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of `raw` that takes a `callback`, and return the server's reply."""
        replied: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        method(*args, callback=into(replied), **kwargs)
        return await self._reply(replied)

    def close(self) -> None:
        """Close it, unless the server did. Does not wait for the server's farewell."""
        if self.raw.is_open:
            self.raw.close()

    async def _reply(self, reply: asyncio.Future[Any]) -> Any:
        await asyncio.wait({reply, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        if reply.done():
            return reply.result()
        raise self.closed.result()


@asynccontextmanager
async def scratch(driver: Driver) -> AsyncIterator[Channel]:
    """A channel for a moment: an error of AMQP closes the channel on which it happens."""
    channel = await Channel.open(driver)
    try:
        yield channel
    finally:
        channel.close()


class ChannelUser(abc.ABC):
    """Something that lives on a channel of its own, and on the next one when that is closed."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.tried = asyncio.Event()  # set when it has been attached, or could not be
        self.error: Exception | None = None  # why it could not

    def prepare(self) -> None:
        """Called before `keep`: nothing has been tried yet."""
        self.tried = asyncio.Event()
        self.error = None

    @abc.abstractmethod
    async def attach(self, driver: Driver, channel: Channel) -> None:
        """Set everything up on a new channel."""

    async def serve(self, channel: Channel) -> Exception | None:
        """Stay until the channel is closed, and return the reason; None ends the use of channels."""
        await asyncio.wait({channel.closed})
        return channel.closed.result()

    @abc.abstractmethod
    def detach(self) -> None:
        """The channel is gone: forget all that it held."""

    async def keep(self, driver: Driver) -> None:
        """Live on one channel after another; cancelled when the connection is lost."""
        pauses = backoff()
        while True:
            reason: Exception | None
            try:
                channel = await Channel.open(driver)
                await self.attach(driver, channel)
                self.error = None
                self.tried.set()
                pauses = backoff()
                reason = await self.serve(channel)
            except (AMQPError, ProviderError) as exc:
                reason = exc
            finally:
                self.detach()
            if reason is None:
                channel.close()
                return
            self.error = reason
            self.tried.set()
            if driver.is_open:
                log.warning("the channel of %s was closed: %s; opening another", self.what, describe(reason))
            await asyncio.sleep(next(pauses))
