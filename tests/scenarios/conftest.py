from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest
from sql_stores import drop

from liteflow.core import Workflow, WorkflowHost, configure_workflow_host
from liteflow.core.providers import LockProvider, PersistenceProvider, QueueProvider

Hosts = Callable[..., WorkflowHost]
Trio = tuple[PersistenceProvider | None, QueueProvider | None, LockProvider | None]

SERVERS = ["memory", "mongo+rabbitmq+redis", "sqlite", "postgres", "mariadb"]
"""Where scenarios run: the last three are store, queue and lock at once."""

A_CENTURY = 100 * 365 * 24 * 3600.0

SHARE = {"sqlite": 10, "postgres": 10, "mariadb": 30}
"""Of so many scenarios one runs there, since all of them take minutes. ``LITEFLOW_TEST_SCENARIOS="sqlite
postgres mariadb"`` runs every one over those that it names, and none over the others."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not this time's: which scenarios run over SQL is always the same by their name."""
    named = os.environ.get("LITEFLOW_TEST_SCENARIOS", "").split()
    kept, left = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        over = callspec.params.get("make_host") if callspec is not None else None
        mine = Path(item.path).parent == Path(__file__).parent and over is not None
        if not mine:
            wanted = True
        elif named:
            wanted = over in named
        else:
            name = item.nodeid.replace(str(over), "")
            wanted = crc32(name.encode()) % SHARE.get(str(over), 1) == 0
        (kept if wanted else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.fixture(params=SERVERS)
def make_host(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> Iterator[Hosts]:
    """Makes started hosts on the same servers. On memory there can be one only."""
    hosts: list[WorkflowHost] = []
    url = ""
    if request.param in ("postgres", "mariadb"):
        url = request.getfixturevalue(f"{request.param}_url")
    elif request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/store.db"

    def providers() -> Trio:
        if request.param == "memory":
            return None, None, None
        if url:
            from liteflow.providers.sql import SqlLockProvider, SqlPersistenceProvider, SqlQueueProvider

            return (
                SqlPersistenceProvider(url, prefix=prefix),
                SqlQueueProvider(url, prefix=prefix),
                SqlLockProvider(url, prefix=prefix),
            )
        from liteflow.providers.mongo import MongoPersistenceProvider
        from liteflow.providers.rabbitmq import RabbitMQQueueProvider
        from liteflow.providers.redis import RedisLockProvider

        return (
            MongoPersistenceProvider(request.getfixturevalue("mongo_url"), prefix=prefix),
            RabbitMQQueueProvider(request.getfixturevalue("amqp_url"), prefix=prefix),
            RedisLockProvider(request.getfixturevalue("redis_url"), prefix=prefix),
        )

    def make(*workflows: type[Workflow] | Workflow, **options: object) -> WorkflowHost:
        # Scenarios publish events of years ago, which a scheduler deletes as too old when it gets to it.
        options.setdefault("event_retention", A_CENTURY)
        host = configure_workflow_host(*providers(), **options)
        for workflow in workflows:
            host.register_workflow(workflow)
        hosts.append(host)
        host.start()
        return host

    yield make
    for host in hosts:
        host.stop(timeout=5)
    if url and request.param != "sqlite":
        drop(url, prefix)
