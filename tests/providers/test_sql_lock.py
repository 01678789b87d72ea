"""The SQL lock provider passes the contract, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sql_stores import drop

from liteflow.core.providers import LockProvider
from liteflow.core.testing.lock import LockContract
from liteflow.providers.sql import SqlLockProvider


class SqlLockContract(LockContract):
    @pytest.fixture
    def provider(self, url: str, prefix: str) -> Iterator[LockProvider]:
        provider = SqlLockProvider(url, prefix=prefix)
        provider.open()
        yield provider
        provider.close()
        if not url.startswith("sqlite"):
            drop(url, prefix)

    @pytest.fixture
    def second(self, provider: LockProvider, url: str, prefix: str) -> Iterator[LockProvider]:
        second = SqlLockProvider(url, prefix=prefix)
        second.open()
        yield second
        second.close()


class TestSqlite(SqlLockContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/store.db"


class TestPostgres(SqlLockContract):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url


class TestMariaDB(SqlLockContract):
    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        return mariadb_url
