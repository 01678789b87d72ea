"""Connections that are lost again and again: however often, the provider works as if they never had been."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from chaos.proxy import Link, Proxy
from cloud_providers import lock_on, queue_on

from liteflow.core.errors import UnavailableError
from liteflow.core.providers import (
    Lease,
    ListFilter,
    LockProvider,
    Message,
    PersistenceProvider,
    Provider,
    QueueProvider,
)
from liteflow.core.testing.queue import Inbox, until
from liteflow.worker.discovery import make

LOSSES = 4
"""The first loss alone shows little: what is left over from one harms only after the next."""

PORT = {
    "queue": r"(?:QueueEndpoint=http://|^(?!AccountName)[^;]*)127\.0\.0\.1:(\d+)",
    "lock": r"127\.0\.0\.1:(\d+)",  # the connection string of Azure's emulator begins with its blobs
    "persistence": r"127\.0\.0\.1:(\d+)",
}


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


def linked(proxy: Proxy, kind: str, url: str) -> tuple[str, Link]:
    """A URL that leads to the same server by way of a link, and the link."""
    port = re.findall(PORT[kind], url)[0]
    link = proxy.link(int(port))
    return url.replace(f"127.0.0.1:{port}", f"127.0.0.1:{link.port}"), link


def lose(link: Link, answers: Callable[[], object]) -> None:
    """Cut all connections, `LOSSES` times, and each time wait until something gets through again."""

    def gets_through() -> bool:
        try:
            answers()
        except UnavailableError:
            return False
        return True

    for _ in range(LOSSES):
        link.cut()
        until(gets_through)


def provider_of(kind: str, fixture: str, url: str, prefix: str) -> Provider:
    """A provider, not open."""
    cloud = {"azure": "azure", "aws_endpoint": "aws"}.get(fixture)
    if cloud is not None:
        return (queue_on if kind == "queue" else lock_on)(cloud, url, prefix)
    made: Provider = make(kind, url, prefix)
    return made


@pytest.mark.parametrize(
    "fixture", ["amqp_url", "redis_url", "postgres_url", "mariadb_url", "azure", "aws_endpoint"]
)
def test_a_queue(fixture: str, request: pytest.FixtureRequest, proxy: Proxy, prefix: str) -> None:
    url = request.getfixturevalue(fixture)
    by_link, link = linked(proxy, "queue", url)
    direct = provider_of("queue", fixture, url, prefix)
    cut_off = provider_of("queue", fixture, by_link, prefix)
    assert isinstance(cut_off, QueueProvider)
    assert isinstance(direct, QueueProvider)
    inbox, heard = Inbox(ack=True), Inbox()
    with closing(direct), closing(cut_off):
        direct.open()
        cut_off.open()
        cut_off.consume(["one"], 10, inbox)
        cut_off.subscribe("topic", heard)
        lose(link, lambda: cut_off.send([Message("one", "probe")]))
        for number in range(30):
            cut_off.send([Message("one", f"here-{number}")])
            direct.send([Message("one", f"there-{number}")])
        wanted = {f"{place}-{number}" for place in ("here", "there") for number in range(30)}
        until(lambda: wanted <= set(inbox.bodies()))
        direct.notify("topic", "from there")
        cut_off.notify("topic", "from here")
        until(lambda: {"from there", "from here"} <= set(heard.bodies()))


@pytest.mark.parametrize("fixture", ["redis_url", "postgres_url", "mariadb_url", "azure", "aws_endpoint"])
def test_a_lock(fixture: str, request: pytest.FixtureRequest, proxy: Proxy, prefix: str) -> None:
    url, link = linked(proxy, "lock", request.getfixturevalue(fixture))
    lock = provider_of("lock", fixture, url, prefix)
    assert isinstance(lock, LockProvider)
    with closing(lock):
        lock.open()
        lose(link, lambda: lock.acquire(["probe"], 30))
        leases = [one for n in range(10) if isinstance(one := lock.acquire([f"name{n}"], 30)[0], Lease)]
        assert len(leases) == 10
        assert lock.renew(leases, 30) == [True] * 10
        assert lock.release(leases) == [True] * 10


@pytest.mark.parametrize("fixture", ["mongo_url", "postgres_url", "mariadb_url"])
def test_a_store(fixture: str, request: pytest.FixtureRequest, proxy: Proxy, prefix: str) -> None:
    url, link = linked(proxy, "persistence", request.getfixturevalue(fixture))
    store = provider_of("persistence", fixture, url, prefix)
    assert isinstance(store, PersistenceProvider)
    with closing(store):
        store.open()
        lose(link, lambda: store.list(ListFilter(limit=1)))
        for _ in range(20):
            assert store.list(ListFilter(limit=1)).items == []
            assert store.load(["unknown"]) == {}
