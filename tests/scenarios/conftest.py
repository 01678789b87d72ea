from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from liteflow.core import Workflow, WorkflowHost, configure_workflow_host

Hosts = Callable[..., WorkflowHost]


@pytest.fixture(params=["memory", "mongo+rabbitmq+redis"])
def make_host(request: pytest.FixtureRequest, prefix: str) -> Iterator[Hosts]:
    """Makes started hosts on the same servers. On memory there can be one only."""
    hosts: list[WorkflowHost] = []

    def make(*workflows: type[Workflow] | Workflow, **options: Any) -> WorkflowHost:
        if request.param == "memory":
            host = configure_workflow_host(**options)
        else:
            from liteflow.providers.mongo import MongoPersistenceProvider
            from liteflow.providers.rabbitmq import RabbitMQQueueProvider
            from liteflow.providers.redis import RedisLockProvider

            host = configure_workflow_host(
                MongoPersistenceProvider(request.getfixturevalue("mongo_url"), prefix=prefix),
                RabbitMQQueueProvider(request.getfixturevalue("amqp_url"), prefix=prefix),
                RedisLockProvider(request.getfixturevalue("redis_url"), prefix=prefix),
                **options,
            )
        for workflow in workflows:
            host.register_workflow(workflow)
        hosts.append(host)
        host.start()
        return host

    yield make
    for host in hosts:
        host.stop(timeout=5)
