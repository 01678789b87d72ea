"""From a URL to clients: one that is shared by all threads, and connections that wait for something."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import Any

import redis
from liteflow.core.errors import ProviderError, SettingsError
from liteflow.providers.redis.errors import told
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import NoPermissionError, RedisError
from redis.retry import Retry

log = logging.getLogger("liteflow.redis")

Connection = Any
"""A `redis.connection.Connection`, whose methods have no types."""

OLDEST = (6, 2)
"""Streams are older, but appending only to one that is there came with this version."""


class Server:
    """One Redis server by its URL. Any thread may use it; nothing is connected before it is used."""

    def __init__(self, url: str, timeout: float, prefix: str, options: dict[str, Any]) -> None:
        self._prefix = prefix
        self._timeout = timeout
        try:
            self._pool = ConnectionPool.from_url(
                url,
                **{
                    "socket_timeout": timeout,
                    "socket_connect_timeout": timeout,
                    # What is read here is in the older form of answers, as bytes.
                    "protocol": 2,
                    **options,
                    "decode_responses": False,
                },
            )
        except (ValueError, TypeError):
            # Neither the URL nor the driver's words about it are repeated: they may hold the password.
            raise SettingsError(
                "the URL of the queue server is not valid; it should be like redis://user:password@host:6379/0"
            ) from None
        arguments = self._pool.connection_kwargs
        if int(arguments.get("protocol", 2)) != 2 or arguments.get("decode_responses"):
            raise SettingsError(
                "the URL of the queue server sets protocol or decode_responses: leave them out"
            )
        # One more try: a connection that was idle for long may have been closed by somebody on the way.
        arguments.update(retry=Retry(NoBackoff(), 1), retry_on_error=[redis.ConnectionError])
        self.name = f"{arguments.get('host', arguments.get('path', 'localhost'))}:{arguments.get('port', '')}"
        self.client: redis.Redis = redis.Redis(connection_pool=self._pool)

    def connection(self) -> Connection:
        """A connection of the caller's own, not connected yet, that tries nothing twice."""
        return self._pool.connection_class(
            **{**self._pool.connection_kwargs, "retry": Retry(NoBackoff(), 0), "retry_on_error": []}
        )

    def check(self) -> None:
        """See that the server will do, and warn of settings that lose messages.

        `ProviderError` if it is too old. Raises what the driver raises.
        """
        facts = self.facts()
        if facts and (version := facts["version"].split("."))[0].isdigit():
            if tuple(int(part) for part in version[:2]) < OLDEST:
                raise ProviderError(
                    f"redis {self.name} is version {facts['version']}, which is too old: the queue needs"
                    f" {OLDEST[0]}.{OLDEST[1]} or later; upgrade the server or name another one"
                )
        if facts.get("appendonly") == "off":
            log.warning(
                "redis %s keeps no append-only file: messages are lost when it restarts, and then sent again"
                " by the scheduler only when they are overdue; set appendonly to yes",
                self.name,
            )
        if facts.get("evicts"):
            log.warning(
                "redis %s may evict queues when its memory is full (%s); set maxmemory-policy to noeviction",
                self.name,
                facts["evicts"],
            )

    def facts(self) -> dict[str, str]:
        """Version, and settings that matter; nothing if the user may not ask. Raises what the driver does."""
        try:
            info: dict[str, Any] = self.client.info()
        except NoPermissionError:
            self.client.ping()
            return {}
        policy = str(info.get("maxmemory_policy", "noeviction"))
        return {
            "version": str(info.get("redis_version", "")),
            "appendonly": "on" if info.get("aof_enabled") else "off",
            "evicts": policy if info.get("maxmemory") and policy != "noeviction" else "",
        }

    def error(self, exc: RedisError) -> ProviderError:
        """The error of ours for one of the driver's."""
        return told(self.name, exc, self._prefix)

    def close(self) -> None:
        """Give back the connections of the shared client."""
        self._pool.disconnect()


def answers_of(pipe: Any) -> list[Any]:
    """What the server says to each command of a pipeline; raises the first error as the server put it.

    The driver would quote the command, with the user's data.
    """
    answers: list[Any] = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, RedisError):
            raise answer
    return answers


def interrupt(connection: Connection) -> None:
    """End a read that another thread is waiting in: it meets the end of the stream.

    The driver's own `disconnect` would take away the parser that the other thread is using.
    """
    if (own := connection._sock) is not None:
        with suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)
