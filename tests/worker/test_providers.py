"""`liteflow providers`: what is installed, and what it says of servers that work and of those that don't."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, PackageNotFoundError
from typing import Any

import pymongo
import pymysql
import pytest
import redis
from click.testing import CliRunner
from servers import MongoServer, RabbitServer, free_port

from liteflow.core import Settings
from liteflow.core.errors import SettingsError
from liteflow.worker import discovery
from liteflow.worker.cli import main
from liteflow.worker.wiring import Servers

SECRET = "s3cret-word"


def providers(*arguments: str) -> tuple[int, str]:
    """The exit code, and all that is printed."""
    result = CliRunner().invoke(main, ["providers", *arguments])
    assert SECRET not in result.output
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def refusal(*arguments: str) -> str:
    """The one line for a URL that can't be used. Of a database the store is asked."""
    sql = arguments[0].startswith(("sqlite", "postgresql", "mysql", "mariadb"))
    code, output = providers(*arguments, *(("--kind", "persistence") if sql else ()))
    assert code == 1
    (line,) = output.splitlines()
    assert line.startswith("Error: ")
    return line


# ------------------------------------------------------------------------------------------ the list


def test_the_list_says_what_each_needs_and_what_is_there() -> None:
    code, output = providers()
    assert code == 0
    rows = {tuple(line.split()[:3]) for line in output.splitlines()}
    assert ("persistence", "postgresql://", "liteflow.core[postgres]") in rows
    assert ("queue", "redis://", "liteflow.core[redis]") in rows
    assert ("lock", "redis://", "liteflow.core[redis]") in rows
    assert f"redis {redis.__version__}" in output
    items = json.loads(providers("--json", "--kind", "queue")[1])["items"]
    assert {item["kind"] for item in items} == {"queue"}
    amqp = next(item for item in items if item["scheme"] == "amqp")
    assert amqp["installed"] is True
    assert list(amqp["needs"]) == ["pika"]


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = discovery.version

    def without_redis(name: str) -> str:
        if name == "redis":
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(discovery, "version", without_redis)
    rows = [line.split() for line in providers()[1].splitlines()]
    assert ["queue", "redis://", "liteflow.core[redis]", "pip", "install", "'liteflow.core[redis]'"] in rows
    told = refusal("redis://localhost:6379/0", "--kind", "queue")
    assert "is not installed (redis is missing); pip install 'liteflow.core[redis]'" in told
    with pytest.raises(SettingsError, match=r"--queue: the driver for redis:// is not installed"):
        Servers(queue="redis://localhost:6379/0").host(Settings())


@pytest.mark.parametrize(
    ("value", "reason"),
    [("liteflow.nowhere:Provider", "can't be imported"), ("liteflow.core:Nothing", "which is not there")],
)
def test_a_broken_entry_point_is_told(monkeypatch: pytest.MonkeyPatch, value: str, reason: str) -> None:
    points = (EntryPoint("odd", value, "liteflow.queue"),)
    monkeypatch.setattr(discovery, "_points", lambda kind: points if kind == "queue" else ())
    assert reason in refusal("odd://x")


# ---------------------------------------------------------------------------------- servers that work


@pytest.mark.parametrize(
    ("fixture", "begins"),
    [
        ("mongo_url", ["persistence mongodb://: MongoDB "]),
        ("mongo_replica_url", ["persistence mongodb://: MongoDB "]),
        (
            "postgres_url",
            [f"{kind} postgresql://: PostgreSQL 1" for kind in ("persistence", "queue", "lock")],
        ),
        ("mariadb_url", [f"{kind} mariadb://: MariaDB 1" for kind in ("persistence", "queue", "lock")]),
        ("amqp_url", ["queue amqp://: RabbitMQ "]),
        ("redis_url", ["queue redis://: Redis ", "lock redis://: Redis "]),
    ],
)
def test_a_server_that_works_is_named_with_its_version(
    fixture: str, begins: list[str], request: pytest.FixtureRequest, prefix: str
) -> None:
    code, output = providers(request.getfixturevalue(fixture), "--prefix", prefix)
    assert code == 0, output
    lines = output.splitlines()
    assert len(lines) == len(begins)
    assert all(line.startswith(begin) for line, begin in zip(lines, begins, strict=True))


def test_one_json_document_has_the_good_and_the_bad(redis_url: str, prefix: str) -> None:
    code, output = providers(redis_url, "--prefix", prefix, "--json")
    assert code == 0
    assert [(item["kind"], item["ok"], item["error"]) for item in json.loads(output)["items"]] == [
        ("queue", True, None),
        ("lock", True, None),
    ]
    code, output = providers(f"redis://127.0.0.1:{free_port()}/0", "--kind", "lock", "--json")
    assert code == 1
    (item,) = json.loads(output)["items"]
    assert (item["ok"], item["server"]) == (False, None)
    assert "0 of 1 lock servers answer" in item["error"]


def test_trying_a_store_leaves_no_activity_behind(mongo_url: str, prefix: str) -> None:
    assert providers(mongo_url, "--prefix", prefix)[0] == 0
    with pymongo.MongoClient(mongo_url) as client:  # type: ignore[var-annotated]
        assert client.get_default_database()[f"{prefix}.activities"].count_documents({}) == 0


def test_trying_redis_leaves_no_key_behind(redis_url: str, prefix: str) -> None:
    assert providers(redis_url, "--prefix", prefix)[0] == 0
    with redis.Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(f"{prefix}:*")) == []


# --------------------------------------------------------------------------------- and those that don't


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("kafka://x", "no provider for kafka:// is installed; known are amqp://"),
        (SECRET, "this is no URL"),
        (f"amqp://guest:{SECRET}@ho st:x/", "it should be like amqp://user:password@host:5672/vhost"),
        (f"mongodb://u:{SECRET}/@x", "are user name and password percent-encoded?"),
        (f"redis://:{SECRET}@x:y --kind queue", "it should be like redis://user:password@host:6379/0"),
        (f"redis://:{SECRET}@x:y --kind lock", "it is like redis://host:6379/0"),
        (f"postgresql://u:{SECRET}@:x/y", "are user name and password percent-encoded?"),
        ("sqlite:////nowhere/x.db", "check that its folder exists and can be written to"),
    ],
)
def test_a_wrong_url_is_told(url: str, reason: str) -> None:
    url, _, more = url.partition(" --kind ")
    assert reason in refusal(url, *(["--kind", more] if more else []))


@pytest.mark.parametrize("kind", ["mongodb", "amqp", "redis queue", "redis lock", "postgresql", "mariadb"])
def test_a_server_that_is_not_there_is_told(kind: str) -> None:
    scheme, _, more = kind.partition(" ")
    port = free_port()
    url = f"{scheme}://u:{SECRET}@127.0.0.1:{port}/1"
    told = refusal(url, *(["--kind", more] if more else []))
    assert "check host and port in the URL" in told
    assert str(port) in told or scheme == "mariadb"  # whose driver does not say it


@pytest.mark.parametrize("kind", ["mongo", "amqp", "redis queue", "redis lock", "postgres", "mariadb"])
def test_a_refused_login_is_told(kind: str, request: pytest.FixtureRequest, prefix: str) -> None:
    server, _, more = kind.partition(" ")
    url = request.getfixturevalue(f"{server}_url")
    address = url.partition("://")[2].rpartition("@")[2]
    told = refusal(
        f"{url.partition('://')[0]}://stranger:{SECRET}@{address}",
        *("--prefix", prefix),
        *(["--kind", more] if more else []),
    )
    assert "check user name" in told


def test_a_database_or_virtual_host_that_is_not_there_is_told(
    mariadb_url: str, amqp_url: str, redis_url: str
) -> None:
    assert "create it first" in refusal(mariadb_url.rpartition("/")[0] + "/missing")
    assert "the path of the URL names the virtual host" in refusal(amqp_url + "missing")
    for kind in ("queue", "lock"):
        told = refusal(redis_url.rpartition("/")[0] + "/99", "--kind", kind)
        assert "has no database of that number" in told


class GuardedMongo(MongoServer):
    """One that asks who you are."""

    def commands(self) -> list[list[str]]:
        return [[*command, "--auth"] for command in super().commands()]


@pytest.fixture
def guarded_mongo() -> Iterator[MongoServer]:
    server = GuardedMongo()
    server.start()
    yield server
    server.close()


def test_a_missing_permission_is_told_by_mongodb(guarded_mongo: MongoServer) -> None:
    with pymongo.MongoClient(port=guarded_mongo.port) as client:  # type: ignore[var-annotated]
        roles = [{"role": "root", "db": "admin"}]
        client.admin.command("createUser", "root", pwd="root", roles=roles)
    with pymongo.MongoClient(port=guarded_mongo.port, username="root", password="root") as client:
        roles = [{"role": "read", "db": "liteflow"}]
        client.liteflow.command("createUser", "reader", pwd=SECRET, roles=roles)
    url = guarded_mongo.url.replace("mongodb://", f"mongodb://reader:{SECRET}@")
    assert "grant it the role readWrite on the database" in refusal(url)


def test_a_missing_permission_is_told_by_rabbitmq(own_rabbitmq: RabbitServer) -> None:
    for arguments in (("add_user", "shop", SECRET), ("set_permissions", "shop", "^$", ".*", ".*")):
        subprocess.run(
            ["/usr/lib/rabbitmq/bin/rabbitmqctl", *arguments],
            env={**os.environ, **own_rabbitmq.environment()},
            check=True,
            capture_output=True,
            timeout=60,
        )
    told = refusal(own_rabbitmq.url.replace("guest:guest", f"shop:{SECRET}"))
    assert "grant the user configure, write and read on all names that begin with the prefix" in told


@pytest.mark.parametrize("kind", ["queue", "lock"])
def test_a_missing_permission_is_told_by_redis(redis_url: str, prefix: str, kind: str) -> None:
    with redis.Redis.from_url(redis_url) as admin:
        admin.acl_setuser(prefix, enabled=True, passwords=[f"+{SECRET}"], categories=["+@all"], keys=["x:*"])
        told = refusal(
            redis_url.replace("redis://", f"redis://{prefix}:{SECRET}@"), "--prefix", prefix, "--kind", kind
        )
        admin.acl_deluser(prefix)
    assert f"ACL SETUSER ... ~{prefix}:* &{prefix}:* +@all -@admin" in told


def test_a_missing_permission_is_told_by_mariadb(mariadb_url: str, prefix: str) -> None:
    address = mariadb_url.rpartition("@")[2]
    host, port = address.partition("/")[0].split(":")
    with pymysql.connect(host=host, port=int(port), user="root") as connected, connected.cursor() as cursor:
        cursor.execute(f"CREATE USER {prefix}@'%' IDENTIFIED BY '{SECRET}'")
        cursor.execute(f"GRANT SELECT ON liteflow.* TO {prefix}@'%'")
        told = refusal(f"mariadb://{prefix}:{SECRET}@{address}", "--prefix", prefix)
        cursor.execute(f"DROP USER {prefix}@'%'")
    assert "the user may not do this: grant it SELECT, INSERT, UPDATE and DELETE" in told


@pytest.mark.parametrize(
    ("fixture", "module", "name", "value"),
    [
        ("redis_url", "liteflow.providers.redis.client", "OLDEST", (99, 0)),
        ("postgres_url", "liteflow.providers.sql.servers", "OLDEST", {"PostgreSQL": (99, 0)}),
        ("mongo_url", "liteflow.providers.mongo.connection", "OLDEST", (99, 0)),
    ],
)
def test_an_old_server_is_told(
    fixture: str,
    module: str,
    name: str,
    value: Any,
    request: pytest.FixtureRequest,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = request.getfixturevalue(fixture)
    monkeypatch.setattr(f"{module}.{name}", value)
    kind: Callable[[str], list[str]] = lambda url: ["--kind", "queue"] if "redis" in url else []  # noqa: E731
    told = refusal(url, "--prefix", prefix, *kind(url))
    assert "is too old" in told
    assert "99.0 or later; upgrade the server or name another one" in told
