"""Leases on Redis, by the Redlock algorithm."""

from liteflow.providers.redis.lock import RedisLockProvider

__all__ = ["RedisLockProvider"]
