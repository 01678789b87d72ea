from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import pytest
from servers import (
    MariaServer,
    MongoServer,
    PostgresServer,
    RabbitServer,
    RedisServer,
    Servers,
)

# pika reports every failed attempt to connect with a traceback; the providers log a line of their own.
logging.getLogger("pika").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    shared = Servers()
    try:
        yield shared
    finally:
        shared.close()


@pytest.fixture(scope="session")
def mongo_url(servers: Servers) -> str:
    return servers.mongo()


@pytest.fixture(scope="session")
def mongo_replica_url(servers: Servers) -> str:
    return servers.mongo_replica()


@pytest.fixture(scope="session")
def amqp_url(servers: Servers) -> str:
    return servers.amqp()


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    return servers.redis()


@pytest.fixture(scope="session")
def redis_urls(servers: Servers) -> list[str]:
    return servers.redis_masters()


@pytest.fixture(scope="session")
def postgres_url(servers: Servers) -> str:
    return servers.postgres()


@pytest.fixture(scope="session")
def mariadb_url(servers: Servers) -> str:
    return servers.mariadb()


@pytest.fixture(scope="session")
def azure(servers: Servers) -> str:
    """A connection string."""
    return servers.azure()


@pytest.fixture(scope="session")
def aws_endpoint(servers: Servers) -> str:
    return servers.aws()


@pytest.fixture
def prefix() -> str:
    """A prefix of its own for each test, so that tests share servers and nothing else."""
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def own_mongo() -> Iterator[MongoServer]:
    server = MongoServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitServer]:
    server = RabbitServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_mariadb() -> Iterator[MariaServer]:
    server = MariaServer()
    server.start()
    yield server
    server.close()
