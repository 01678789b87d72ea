"""Workflows stored in SQLite, PostgreSQL, MySQL or MariaDB."""

from liteflow.providers.sql.persistence import SqlPersistenceProvider

__all__ = ["SqlPersistenceProvider"]
