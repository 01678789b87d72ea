"""The SQL queue provider passes the contract, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sql_stores import drop

from liteflow.core.providers import QueueProvider
from liteflow.core.testing.queue import QueueContract
from liteflow.providers.sql import SqlQueueProvider


def queue(url: str, prefix: str) -> Iterator[SqlQueueProvider]:
    """An opened provider with tables of its own, which are removed in the end."""
    provider = SqlQueueProvider(url, prefix=prefix)
    provider.open()
    yield provider
    provider.close()
    if not url.startswith("sqlite"):
        drop(url, prefix)


class SqlQueueContract(QueueContract):
    @pytest.fixture
    def provider(self, url: str, prefix: str) -> Iterator[QueueProvider]:
        yield from queue(url, prefix)

    @pytest.fixture
    def second(self, provider: QueueProvider, url: str, prefix: str) -> Iterator[QueueProvider]:
        second = SqlQueueProvider(url, prefix=prefix)
        second.open()
        yield second
        second.close()

    @pytest.fixture
    def elsewhere(self, url: str, prefix: str) -> Iterator[QueueProvider]:
        yield from queue(url, f"{prefix}x")


class TestSqlite(SqlQueueContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/store.db"


class TestPostgres(SqlQueueContract):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url


class TestMariaDB(SqlQueueContract):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url
