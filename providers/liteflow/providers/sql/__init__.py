"""Workflows stored in SQLite, PostgreSQL, MySQL or MariaDB, and a queue and leases on the same servers."""

from liteflow.providers.sql.lock import SqlLockProvider
from liteflow.providers.sql.persistence import SqlPersistenceProvider
from liteflow.providers.sql.queue import SqlQueueProvider

__all__ = ["SqlLockProvider", "SqlPersistenceProvider", "SqlQueueProvider"]
