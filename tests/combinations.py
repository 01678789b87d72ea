"""Stores, queues and locks that scenarios run over together. To add one, add it to its table and to the list.

`COMBINATIONS` is chosen so that each two providers that may meet do so in one of them: each store with each
queue, each store with each lock, each queue with each lock. `tests/scenarios/test_combinations.py` says which
pair is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from cloud_providers import lock_on, queue_on
from sql_stores import drop

from liteflow.core import LocalLockProvider, MemoryPersistenceProvider, SingleNodeQueueProvider
from liteflow.worker.discovery import make

UrlOf = Callable[[str], str]
"""The URL of a server by the name of its fixture, as `pytest.FixtureRequest.getfixturevalue` gives it."""

STORES = {
    "memory": "",
    "sqlite": "sqlite:///{folder}/store.db",
    "postgres": "postgres_url",
    "mariadb": "mariadb_url",
    "mongo": "mongo_url",
}
CLOUDS = {"azure": "azure", "aws": "aws_endpoint"}
"""By name: the fixture that gives the emulator's connection string or endpoint."""

QUEUES = {"local": "", "rabbitmq": "amqp_url", "redis": "redis_url", "store": "store", **CLOUDS}
LOCKS = {"local": "", "redis": "redis_url", "store": "store", **CLOUDS}
"""By name: the fixture that gives the URL, a URL, or nothing for what lives in the process; ``store`` is the
database of the store, if that is a SQL database."""

SQL = {"sqlite", "postgres", "mariadb"}

COMBINATIONS = [
    "memory+local+local",
    "mongo+rabbitmq+redis",
    "mongo+redis+local",
    "mongo+local+redis",
    "sqlite+local+local",
    "sqlite+rabbitmq+redis",
    "sqlite+redis+redis",
    "postgres+rabbitmq+local",
    "postgres+redis+redis",
    "postgres+local+redis",
    "mariadb+rabbitmq+redis",
    "mariadb+redis+local",
    "mariadb+local+local",
    "sqlite+store+store",
    "postgres+store+store",
    "mariadb+store+store",
    "sqlite+store+local",
    "postgres+store+redis",
    "postgres+rabbitmq+store",
    "mariadb+redis+store",
    "mariadb+local+store",
    "sqlite+azure+azure",
    "postgres+azure+redis",
    "mariadb+azure+store",
    "mongo+azure+local",
    "sqlite+aws+aws",
    "postgres+aws+store",
    "mariadb+aws+redis",
    "mongo+aws+local",
    "postgres+rabbitmq+azure",
    "mariadb+redis+azure",
    "mongo+rabbitmq+aws",
    "postgres+redis+aws",
    "mongo+local+azure",
    "mariadb+local+aws",
    "sqlite+store+azure",
    "postgres+store+aws",
    "mongo+azure+aws",
    "sqlite+aws+azure",
]
"""Store, queue and lock."""

ALWAYS = {"memory+local+local", "mongo+rabbitmq+redis"}
"""Over these every scenario runs each time; over the others a share of them, unless all are asked for."""


def may_meet(store: str, queue: str, lock: str) -> bool:
    """A store in memory goes with nothing that other processes can reach."""
    if "store" in (queue, lock) and store not in SQL:
        return False
    return store != "memory" or (queue, lock) == ("local", "local")


def missing() -> set[tuple[str, str]]:
    """Pairs of providers that may meet and never do, each like ``("store mongo", "queue redis")``."""
    wanted = {pair for one in product(STORES, QUEUES, LOCKS) if may_meet(*one) for pair in _pairs(*one)}
    return wanted - {pair for one in COMBINATIONS for pair in _pairs(*one.split("+"))}


def _pairs(store: str, queue: str, lock: str) -> list[tuple[str, str]]:
    named = f"store {store}", f"queue {queue}", f"lock {lock}"
    return [(named[0], named[1]), (named[0], named[2]), (named[1], named[2])]


class Providers:
    """Makes the providers of one combination, as often as a test wants hosts.

    What lives in the process is one object for all hosts; the others are made anew, as in several processes.
    """

    def __init__(self, combination: str, url_of: UrlOf, folder: Path, prefix: str) -> None:
        self.store, self.queue, self.lock = combination.split("+")
        self._url_of = url_of
        self._folder = folder
        self._prefix = prefix
        self._local_queue = SingleNodeQueueProvider()
        self._local_lock = LocalLockProvider()

    @property
    def options(self) -> dict[str, Any]:
        """For a host on them: a scenario has one at a time, so a lock of this process will do."""
        shared = self.store != "memory"
        options: dict[str, Any] = {}
        if shared and "local" in (self.queue, self.lock):
            options["allow_local_lock"] = True
        if self.lock == "azure":
            options["lease_ttl"] = 15.0  # the shortest there is
        return options

    def make(self) -> tuple[Any, Any, Any]:
        """Store, queue and lock, not open."""
        if self.store == "memory":
            return MemoryPersistenceProvider(), SingleNodeQueueProvider(), LocalLockProvider()
        store = make("persistence", self._url(STORES[self.store]), self._prefix)
        queue = self._local_queue if self.queue == "local" else self._shared("queue", QUEUES[self.queue])
        lock = self._local_lock if self.lock == "local" else self._shared("lock", LOCKS[self.lock])
        return store, queue, lock

    def drop(self) -> None:
        """Remove the tables, of which a server else gets many thousands."""
        if self.store in SQL - {"sqlite"}:
            drop(self._url(STORES[self.store]), self._prefix)

    def _shared(self, kind: str, where: str) -> Any:
        for cloud, fixture in CLOUDS.items():
            if where == fixture:
                on = queue_on if kind == "queue" else lock_on
                return on(cloud, self._url_of(fixture), self._prefix)
        return make(kind, self._url(where), self._prefix)

    def _url(self, where: str) -> str:
        if where == "store":
            where = STORES[self.store]
        return where.format(folder=self._folder) if "://" in where else self._url_of(where)
