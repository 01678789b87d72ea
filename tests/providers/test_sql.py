"""The SQL persistence provider passes the contract, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table

from liteflow.core.providers import PersistenceProvider
from liteflow.core.testing.persistence import PersistenceContract
from liteflow.providers.sql import SqlPersistenceProvider
from liteflow.providers.sql.connection import create
from liteflow.providers.sql.migrating import version_table
from liteflow.providers.sql.schema import tables


def opened(url: str, prefix: str = "liteflow", **options: Any) -> Iterator[SqlPersistenceProvider]:
    """A provider with tables of its own, which are removed in the end."""
    provider = SqlPersistenceProvider(url, prefix=prefix, **options)
    provider.open()
    yield provider
    provider.close()
    if not url.startswith("sqlite"):
        engine = create(url, {})
        made = tables(prefix).metadata
        Table(version_table(prefix), made)
        made.drop_all(engine)
        engine.dispose()


class TestSqlite(PersistenceContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[PersistenceProvider]:
        yield from opened(f"sqlite:///{tmp_path}/store.db")


class TestPostgres(PersistenceContract):
    @pytest.fixture
    def provider(self, postgres_url: str, prefix: str) -> Iterator[PersistenceProvider]:
        yield from opened(postgres_url, prefix)


class TestMariaDB(PersistenceContract):
    @pytest.fixture
    def provider(self, mariadb_url: str, prefix: str) -> Iterator[PersistenceProvider]:
        yield from opened(mariadb_url, prefix)
