"""What the locks of both clouds have to do beyond the contract: loss, outages, nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from azure.storage.blob import BlobLeaseClient
from cloud_providers import opened_lock
from servers import AzuriteServer, LocalServer, MotoServer

from liteflow.core import configure_workflow_host
from liteflow.core.errors import LockUnavailableError, SettingsError
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.providers import Lease, LockProvider, Taken
from liteflow.core.testing.lock import got, until
from liteflow.providers.azure import AzureLockProvider


@pytest.fixture(params=["azure", "aws"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connection(kind: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("azure" if kind == "azure" else "aws_endpoint"))


@pytest.fixture
def provider(kind: str, connection: str, prefix: str) -> Iterator[LockProvider]:
    with opened_lock(kind, connection, prefix) as provider:
        yield provider


@pytest.fixture
def second(kind: str, connection: str, prefix: str) -> Iterator[LockProvider]:
    with opened_lock(kind, connection, prefix) as provider:
        yield provider


@pytest.fixture
def own(kind: str) -> Iterator[LocalServer]:
    server: LocalServer = AzuriteServer() if kind == "azure" else MotoServer()
    server.start()
    yield server
    server.close()


def left_behind(provider: Any) -> list[str]:
    """What the server holds of leases and marks."""
    if isinstance(provider, AzureLockProvider):
        return [blob.name for blob in provider._container().list_blobs()]
    items = provider._client.scan(TableName=provider._table)["Items"]
    return [item["name"]["S"] for item in items]


def take_away(provider: Any, lease: Lease) -> None:
    """End a lease behind its holder's back."""
    if isinstance(provider, AzureLockProvider):
        BlobLeaseClient(provider._blob(lease.name), lease.token).break_lease(0)
    else:
        provider._client.delete_item(TableName=provider._table, Key={"name": {"S": lease.name}})


def test_prefixes_are_apart(kind: str, connection: str, provider: LockProvider, prefix: str) -> None:
    got(provider.acquire(["a"], 5)[0])
    with opened_lock(kind, connection, prefix + "x") as other:
        assert other.release([got(other.acquire(["a"], 5)[0])]) == [True]


def test_released_leases_leave_nothing_behind(provider: LockProvider, second: LockProvider) -> None:
    leases = [got(one) for one in provider.acquire(["a", "b", "c"], 20)]
    assert isinstance(second.acquire(["a"], 20)[0], Taken)
    assert left_behind(provider)
    provider.release(leases)
    assert left_behind(provider) == []


def test_a_lease_that_was_taken_away_is_reported_as_lost(
    provider: LockProvider, second: LockProvider
) -> None:
    renewed, released = (got(one) for one in provider.acquire(["a", "b"], 20))
    for lease in (renewed, released):
        take_away(provider, lease)
        got(second.acquire([lease.name], 20)[0])
    assert provider.renew([renewed], 20) == [False]
    assert not renewed.held
    assert provider.release([released]) == [False]


def test_the_lock_server_is_away_and_comes_back(kind: str, own: LocalServer, prefix: str) -> None:
    with opened_lock(kind, own.url, prefix) as provider:
        held = got(provider.acquire(["held"], 20)[0])
        own.kill()
        with pytest.raises(LockUnavailableError, match="does not answer"):
            provider.acquire(["a", "b"], 20)
        assert provider.renew([held], 20) == [True], "nobody can have taken it before it ends"
        assert provider.release([held]) == [False]
        own.start()

        def works() -> bool:
            try:
                return isinstance(provider.acquire(["a"], 20)[0], Lease)
            except LockUnavailableError:
                return False

        until("it works again", works)


def test_a_lock_server_that_is_away_at_first_is_waited_for(kind: str, own: LocalServer, prefix: str) -> None:
    own.kill()
    with opened_lock(kind, own.url, prefix) as provider:
        with pytest.raises(LockUnavailableError):
            provider.acquire(["a"], 20)
        own.start()

        def works() -> bool:
            try:
                return isinstance(provider.acquire(["a"], 20)[0], Lease)
            except LockUnavailableError:
                return False

        until("it works", works)


def test_a_batch_of_which_one_fails_keeps_none(
    provider: Any, second: LockProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = provider._acquire

    def acquire(name: str, *rest: Any) -> Any:
        if name == "bad":
            raise LockUnavailableError("on purpose")
        return real(name, *rest)

    monkeypatch.setattr(provider, "_acquire", acquire)
    with pytest.raises(LockUnavailableError, match="on purpose"):
        provider.acquire(["a", "bad", "b"], 20)
    assert all(isinstance(one, Lease) for one in second.acquire(["a", "b"], 20))


def test_a_closed_lock_provider_decides_nothing(provider: LockProvider) -> None:
    lease = got(provider.acquire(["a"], 20)[0])
    provider.close()
    with pytest.raises(LockUnavailableError):
        provider.acquire(["b"], 20)
    assert provider.release([lease]) == [False]


# ------------------------------------------------------------------------------------------------- Azure


def test_a_lease_on_azure_lasts_fifteen_seconds_at_least(azure: str, prefix: str) -> None:
    with opened_lock("azure", azure, prefix) as provider:
        lease = got(provider.acquire(["a"], 1)[0])
        assert lease.expires - time.monotonic() > 13


def test_a_lease_on_azure_of_more_than_a_minute_is_refused(azure: str, prefix: str) -> None:
    lock = AzureLockProvider(azure, prefix)
    with pytest.raises(
        SettingsError, match="lease_ttl is 90 s, but the leases of AzureLockProvider last 60 s"
    ):
        configure_workflow_host(MemoryPersistenceProvider(), None, lock, lease_ttl=90)
    with opened_lock("azure", azure, prefix) as provider:
        with pytest.raises(SettingsError, match="60 s at most, not 61"):
            provider.acquire(["a"], 61)


def test_who_is_refused_on_azure_just_before_the_release_gets_the_lease(
    azure: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release was clean, so nobody else would look again."""
    with opened_lock("azure", azure, prefix) as first, opened_lock("azure", azure, prefix) as late:
        holds = got(first.acquire(["a"], 20)[0])
        real = late._mark  # type: ignore[attr-defined]

        def mark(name: str) -> Any:
            if holds.held:
                assert first.release([holds]) == [True], "it was not marked yet"
            return real(name)

        monkeypatch.setattr(late, "_mark", mark)
        got(late.acquire(["a"], 20)[0])


def test_a_mark_on_azure_that_came_after_the_first_refusal_is_seen(
    azure: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, then the holder gives it back and somebody else gets it: the mark is that one's to find."""
    with (
        opened_lock("azure", azure, prefix) as first,
        opened_lock("azure", azure, prefix) as third,
        opened_lock("azure", azure, prefix) as late,
    ):
        holds = got(first.acquire(["a"], 20)[0])
        real = late._mark  # type: ignore[attr-defined]
        after: list[Lease] = []

        def mark(name: str) -> Any:
            assert first.release([holds]) == [True], "it was not marked yet"
            after.append(got(third.acquire(["a"], 20)[0]))
            return real(name)

        monkeypatch.setattr(late, "_mark", mark)
        assert isinstance(late.acquire(["a"], 20)[0], Taken)
        assert third.release(after) == [False]


def test_a_lost_answer_about_a_mark_on_azure_makes_the_release_unclean(
    azure: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is deleted, the answer gets lost: to ask again would find no mark."""
    with opened_lock("azure", azure, prefix) as provider, opened_lock("azure", azure, prefix) as second:
        lease = got(provider.acquire(["a"], 20)[0])
        assert isinstance(second.acquire(["a"], 20)[0], Taken)
        session = provider._service._pipeline._transport.session  # type: ignore[attr-defined]
        real, deleted = session.request, []

        def request(method: str, url: str, **more: Any) -> Any:
            answer = real(method, url, **more)
            if method == "DELETE" and "/mark-" in url:
                deleted.append(answer.status_code)
                raise requests.ConnectionError("the answer is lost")
            return answer

        monkeypatch.setattr(session, "request", request)
        assert provider.release([lease]) == [False]
        assert deleted == [202]


# --------------------------------------------------------------------------------------------------- AWS


def test_a_write_to_dynamodb_that_is_repeated_keeps_the_mark(
    aws_endpoint: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver repeats a request whose answer got lost; somebody may have been turned away meanwhile."""
    with (
        opened_lock("aws", aws_endpoint, prefix) as provider,
        opened_lock("aws", aws_endpoint, prefix) as other,
    ):
        client: Any = provider._client  # type: ignore[attr-defined]
        real = client.put_item

        def put_item(**request: Any) -> Any:
            real(**request)
            assert isinstance(other.acquire(["a"], 20)[0], Taken)
            return real(**request)

        monkeypatch.setattr(client, "put_item", put_item)
        lease = got(provider.acquire(["a"], 20)[0])
        assert provider.release([lease]) == [False]


def test_a_deleted_table_is_made_anew(aws_endpoint: str, prefix: str) -> None:
    with opened_lock("aws", aws_endpoint, prefix) as provider:
        client: Any = provider._client  # type: ignore[attr-defined]
        client.delete_table(TableName=provider._table)  # type: ignore[attr-defined]
        with pytest.raises(LockUnavailableError, match="made anew"):
            provider.acquire(["a"], 20)
        got(provider.acquire(["a"], 20)[0])


def test_when_a_lease_on_dynamodb_ends_does_not_depend_on_the_machines_clock(
    aws_endpoint: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's clock is a day ahead: it gets nothing before its time."""
    with opened_lock("aws", aws_endpoint, prefix) as provider:
        got(provider.acquire(["a"], 20)[0])
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        with opened_lock("aws", aws_endpoint, prefix) as ahead:
            taken = ahead.acquire(["a"], 20)[0]
        assert isinstance(taken, Taken)
        assert taken.expires_in > 10
