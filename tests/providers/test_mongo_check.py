"""What a check of the store finds, on servers that are well and on some that are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from servers import MongoServer, free_port

from liteflow.core.findings import Finding, Severity
from liteflow.providers.mongo import MongoPersistenceProvider


def checked(url: str, prefix: str, **options: Any) -> list[Finding]:
    return MongoPersistenceProvider(url, prefix=prefix, **options).check()


def of(findings: list[Finding], words: str) -> Finding:
    """The finding that says this."""
    (found,) = [finding for finding in findings if words in finding.message]
    return found


@pytest.fixture
def with_indexes(mongo_url: str, prefix: str) -> Iterator[str]:
    """A prefix in which a process has worked."""
    provider = MongoPersistenceProvider(mongo_url, prefix=prefix)
    provider.open()
    yield prefix
    provider.close()


def test_a_standalone_server(mongo_url: str, with_indexes: str) -> None:
    found = checked(mongo_url, with_indexes)
    assert of(found, "answers").severity is Severity.OK
    assert of(found, "standalone").severity is Severity.WARNING
    assert of(found, "majority and the journal").severity is Severity.OK
    assert of(found, "indexes").message == "all indexes are there"


def test_a_replica_set_too_small(mongo_replica_url: str, prefix: str) -> None:
    found = of(checked(mongo_replica_url, prefix), "replica set 'rs0' has 1 data-bearing members")
    assert found.severity is Severity.WARNING
    assert "three" in found.advice


@pytest.mark.parametrize("query", ["w=1", "journal=false"])
def test_writes_that_are_not_durable(mongo_url: str, prefix: str, query: str) -> None:
    found = of(checked(f"{mongo_url}?{query}", prefix), "can be lost in a crash")
    assert found.severity is Severity.WARNING


def test_missing_indexes_are_named_and_not_created(mongo_url: str, with_indexes: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        database = client.get_default_database()
        database[f"{with_indexes}.instances"].drop_index("due")
        database[f"{with_indexes}.events"].drop()
        for _ in range(2):
            found = of(checked(mongo_url, with_indexes), "indexes are missing")
            assert f"{with_indexes}.instances.due" in found.message
            assert f"{with_indexes}.events.time" in found.message
            assert f"{with_indexes}.instances.waits" not in found.message
        assert f"{with_indexes}.events" not in database.list_collection_names()


def test_a_server_that_is_not_there(prefix: str) -> None:
    url = f"mongodb://user:s3cret@127.0.0.1:{free_port()}/liteflow"
    (found,) = checked(url, prefix, serverSelectionTimeoutMS=200)
    assert found.severity is Severity.PROBLEM
    assert "start the server" in found.advice
    assert "s3cret" not in f"{found}"


def test_a_url_that_is_none(prefix: str) -> None:
    (found,) = checked("mongodb://localhost:27017/liteflow?w=0&journal=false", prefix)
    assert (found.severity, "w=0" in found.message) == (Severity.PROBLEM, True)


class LockedServer(MongoServer):
    """One that asks who its users are, once there is one."""

    def commands(self) -> list[list[str]]:
        return [[*super().commands()[0], "--auth"]]


def test_what_the_user_may_not_do_is_told(prefix: str) -> None:
    server = LockedServer()
    server.start()
    try:
        with pymongo.MongoClient[dict[str, Any]](server.url) as client:
            client.admin.command("createUser", "root", pwd="root", roles=["root"])
        as_root = server.url.replace("mongodb://", "mongodb://root:root@") + "?authSource=admin"
        with pymongo.MongoClient[dict[str, Any]](as_root) as client:
            for name, role in (("reader", "read"), ("writer", "readWrite")):
                client.get_default_database().command("createUser", name, pwd="s3cret", roles=[role])
        limited = server.url.replace("mongodb://", "mongodb://reader:s3cret@")
        found = of(checked(limited, prefix), "the user may not")
        assert found.severity is Severity.PROBLEM
        assert "insert" in found.message
        assert "find" not in found.message
        enough = server.url.replace("mongodb://", "mongodb://writer:s3cret@")
        assert not any("may not" in one.message for one in checked(enough, prefix))
        (found,) = checked(enough.replace("s3cret", "wr0ng"), prefix)
        assert (found.severity, "password" in found.advice) == (Severity.PROBLEM, True)
        assert "wr0ng" not in f"{found}"
    finally:
        server.close()
