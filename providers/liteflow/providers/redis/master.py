"""One Redis master: scripts for many keys in one round trip, and a short memory of being away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import redis
from liteflow.core.errors import LockUnavailableError, ProviderError, SettingsError
from liteflow.providers.redis.errors import explained, is_passing
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError
from redis.retry import Retry

log = logging.getLogger("liteflow.redis")

RETRY_AFTER = 0.5
"""Seconds for which a master that did not answer is not asked again, so that it costs its time-out once."""


class Master:
    """Calls to one master, and its `client`. Safe for use by several threads."""

    def __init__(self, url: str, timeout: float, prefix: str = "liteflow", **options: Any) -> None:
        try:
            # One retry: a connection that the server closed while it was idle is not an outage. The
            # scripts may be repeated without harm.
            self.client = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 1),
                retry_on_error=[redis.ConnectionError],
                **options,
            )
        except ValueError as exc:
            raise SettingsError("the lock server's URL is not valid; it is like redis://host:6379/0") from exc
        arguments = self.client.connection_pool.connection_kwargs
        self.name = f"{arguments.get('host', arguments.get('path', '?'))}:{arguments.get('port', '')}"
        self._prefix = prefix
        self.trouble = ""  # why it did not answer, the last time that it did not
        self._guard = threading.Lock()
        self._away_until = 0.0

    def ping(self) -> None:
        """Raises `ProviderError` if it refuses us, `LockUnavailableError` if it does not answer."""
        try:
            self.client.ping()
        except RedisError as exc:
            kind = LockUnavailableError if is_passing(exc) else ProviderError
            raise kind(explained(self.name, exc, self._prefix)) from exc

    def version(self) -> str:
        """What it says of itself; nothing if it does not answer, or the user may not ask."""
        try:
            return str(self.client.info("server").get("redis_version", ""))
        except RedisError:
            return ""

    def check(self, script: str, key: str, *arguments: Any) -> None:
        """Run a script to see whether we may: `ProviderError` if not. Silent if nobody answers."""
        try:
            self.client.eval(script, 1, key, *arguments)
        except RedisError as exc:
            # What a script itself may not do is no error of a kind of its own.
            if isinstance(exc, NoPermissionError) or "user executing the script" in str(exc):
                told = explained(self.name, NoPermissionError(str(exc)), self._prefix)
                raise ProviderError(f"{told}; leases need it on {key}") from exc
            self._away(exc)

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[int | None]:
        """Run a script for all keys: a number for each, or None for each if there is no answer."""
        if time.monotonic() < self._away_until:
            return [None] * len(keys)
        try:
            # EVAL, not EVALSHA: the scripts are a few hundred bytes, and a restarted server knows no digests.
            answers = cast("list[int]", self.client.eval(script, len(keys), *keys, *arguments))
        except RedisError as exc:
            self._away(exc)
            return [None] * len(keys)
        self._back()
        return list(answers)

    def _away(self, exc: RedisError) -> None:
        with self._guard:
            self.trouble = explained(self.name, exc, self._prefix)
            if not self._away_until:
                log.warning("%s", self.trouble)
            self._away_until = time.monotonic() + RETRY_AFTER

    def _back(self) -> None:
        if self._away_until:
            with self._guard:
                self._away_until = 0.0
            log.info("redis %s answers again", self.name)

    def close(self) -> None:
        """Give back the connections."""
        self.client.close()
