"""The MongoDB persistence provider passes the contract, on a standalone server and on a replica set."""

from __future__ import annotations

from collections.abc import Iterator

import pymongo
import pytest

from liteflow.core.providers import PersistenceProvider
from liteflow.core.testing.persistence import PersistenceContract
from liteflow.providers.mongo import MongoPersistenceProvider


def opened(url: str, prefix: str) -> Iterator[MongoPersistenceProvider]:
    """A provider with collections of its own, which are removed in the end."""
    provider = MongoPersistenceProvider(url, prefix=prefix)
    provider.open()
    yield provider
    provider.close()
    with pymongo.MongoClient(url) as client:
        database = client.get_default_database()
        for name in database.list_collection_names(filter={"name": {"$regex": f"^{prefix}\\."}}):
            database.drop_collection(name)


class TestStandalone(PersistenceContract):
    @pytest.fixture
    def provider(self, mongo_url: str, prefix: str) -> Iterator[PersistenceProvider]:
        yield from opened(mongo_url, prefix)


class TestReplicaSet(PersistenceContract):
    @pytest.fixture
    def provider(self, mongo_replica_url: str, prefix: str) -> Iterator[PersistenceProvider]:
        yield from opened(mongo_replica_url, prefix)
