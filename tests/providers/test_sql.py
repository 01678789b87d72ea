"""The SQL persistence provider passes the contract, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from liteflow.core.providers import PersistenceProvider
from liteflow.core.testing.persistence import PersistenceContract
from liteflow.providers.sql import SqlPersistenceProvider


class TestSqlite(PersistenceContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[PersistenceProvider]:
        provider = SqlPersistenceProvider(f"sqlite:///{tmp_path}/store.db")
        provider.open()
        yield provider
        provider.close()
