"""Queues and leases on Redis: streams with consumer groups, and the Redlock algorithm."""

from liteflow.providers.redis.lock import RedisLockProvider
from liteflow.providers.redis.queue import RedisQueueProvider

__all__ = ["RedisLockProvider", "RedisQueueProvider"]
