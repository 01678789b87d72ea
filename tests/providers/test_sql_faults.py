"""Lost replies, busy files, servers that go away, and what is refused: said in one line."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from servers import LocalServer, MariaServer, PostgresServer, free_port
from sql_stores import drop, execute, opened
from sqlalchemy import event

from liteflow.core.errors import ProviderError, StoreUnavailableError
from liteflow.core.models import Activity, Event, Request
from liteflow.core.providers import RequestOutcome
from liteflow.core.testing.samples import T0, after, created, loaded, new_id, new_instance, step
from liteflow.core.transition import Outcome
from liteflow.providers.sql import SqlPersistenceProvider, connection, database, migrating, schema, servers
from liteflow.providers.sql.connection import create


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """Of each server."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def provider(url: str, prefix: str) -> Iterator[SqlPersistenceProvider]:
    yield from opened(url, prefix)


class Lost:
    """Breaks the connection after the server has committed, or before, before the reply arrives."""

    def __init__(self, provider: SqlPersistenceProvider, times: int = 1, committed: bool = True) -> None:
        self.left = times

        @event.listens_for(provider._store.database.engine, "commit")
        def commit(on: Any) -> None:
            if self.left:
                self.left -= 1
                if committed:
                    on.connection.dbapi_connection.commit()
                on.connection.dbapi_connection.close()


# ------------------------------------------------------------------------------------- lost replies


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_whose_reply_got_lost_is_settled(provider: SqlPersistenceProvider, committed: bool) -> None:
    one, two = created(provider, data={"n": 0}), created(provider)
    transitions = [step(one, data_set={"n": 1}), step(two)]
    lost = Lost(provider, committed=committed)
    assert provider.commit(transitions) == [Outcome.COMMITTED, Outcome.COMMITTED]
    assert lost.left == 0
    assert [loaded(provider, found.id).revision for found in (one, two)] == [1, 1]


def test_a_commit_whose_replies_get_lost_is_unknown_until_it_is_asked_again(
    provider: SqlPersistenceProvider,
) -> None:
    transition = step(created(provider))
    lost = Lost(provider, times=2)
    assert provider.commit([transition]) == [Outcome.UNKNOWN]
    assert lost.left == 0
    assert provider.commit([transition]) == [Outcome.COMMITTED]
    assert loaded(provider, transition.instance_id).revision == 1


@pytest.mark.parametrize("committed", [True, False])
def test_what_was_asked_is_done_once_after_a_lost_reply(
    provider: SqlPersistenceProvider, committed: bool
) -> None:
    instance = new_instance(token=new_id())
    Lost(provider, committed=committed)
    assert provider.create([instance]) == [True]

    Lost(provider, committed=committed)
    assert provider.request(instance.id, Request("suspend", "r", T0), T0) is RequestOutcome.STORED
    assert [request.sequence for request in loaded(provider, instance.id).inbox] == [1]

    Lost(provider, committed=committed)
    assert provider.add_event(Event("e", "paid", "k", T0))
    assert not provider.add_event(Event("e", "paid", "k", T0))

    provider.offer_activities([Activity(key, "paint", None, T0, "i") for key in "ab"])
    Lost(provider, committed=committed)
    taken = provider.take_activity("paint", "me", "t", T0, after(60))
    assert taken is not None
    assert (taken.id, taken.token) == ("a", "t")
    Lost(provider, committed=committed)
    assert provider.release_activity("t")
    assert provider.activity("t") is None


def test_what_can_not_be_repeated_says_that_the_store_is_unavailable(
    provider: SqlPersistenceProvider,
) -> None:
    instance = created(provider, wake_at=T0)
    for call in (
        lambda: provider.count_crash(instance.id, 0, 1),
        lambda: provider.hold_due(T0, lambda due: after(60), 10),
    ):
        lost = Lost(provider, committed=False)
        with pytest.raises(StoreUnavailableError):
            call()
        assert lost.left == 0
    assert loaded(provider, instance.id) == instance


def test_a_deadlock_is_tried_again(provider: SqlPersistenceProvider, prefix: str) -> None:
    one, two = (created(provider, id=f"{n}{new_id()}").id for n in range(2))
    both_have_one = threading.Barrier(2, timeout=20)
    tries: list[str] = []

    def count(first: str, second: str) -> None:
        def act(on: Any) -> None:
            tries.append(first)
            for key in (first, second):
                on.exec_driver_sql(f"UPDATE {prefix}_instances SET crashes = crashes + 1 WHERE id = '{key}'")
                if key == first and tries.count(first) == 1:
                    both_have_one.wait()

        provider._store.database.write(act)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(count, (one, two), (two, one)))
    assert len(tries) > 2
    assert [loaded(provider, key).crashes for key in (one, two)] == [2, 2]


# ------------------------------------------------------------------------------- servers that restart


@pytest.mark.parametrize("kind", [PostgresServer, MariaServer])
def test_a_server_that_is_killed_and_comes_back(kind: type[LocalServer]) -> None:
    server = kind()
    try:
        server.start()
        provider = SqlPersistenceProvider(server.url)
        provider.open()
        instance = created(provider)
        committed = step(instance, data_set={"a": 1})
        assert provider.commit([committed]) == [Outcome.COMMITTED]
        committed.apply(instance)
        server.kill()
        waiting = step(instance, data_set={"b": 2})
        assert provider.commit([waiting]) == [Outcome.UNKNOWN]
        for call in (provider.next_due, lambda: provider.load([instance.id])):
            with pytest.raises(StoreUnavailableError):
                call()
        with pytest.raises(StoreUnavailableError, match="server runs"):
            SqlPersistenceProvider(server.url).open()
        server.start()
        assert loaded(provider, instance.id).data == {"a": 1}
        assert provider.commit([waiting]) == [Outcome.COMMITTED]
        provider.close()
    finally:
        server.close()


# ------------------------------------------------------------------------------------- a busy file


def test_who_waits_too_long_for_a_file_tries_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.1)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    for provider in opened(f"sqlite:///{tmp_path}/store.db"):
        instance = created(provider)
        transition = step(instance)
        with sqlite3.connect(tmp_path / "store.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            assert provider.commit([transition]) == [Outcome.UNKNOWN]
            with pytest.raises(StoreUnavailableError, match="other processes"):
                provider.create([new_instance()])
            assert loaded(provider, instance.id) == instance  # readers wait for nobody
            other.execute("ROLLBACK")
        other.close()
        assert provider.commit([transition]) == [Outcome.COMMITTED]


def test_what_is_stored_is_on_the_disk(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    for more, level in (("", 2), ("?synchronous=EXTRA", 3), ("?synchronous=normal", 1)):
        for provider in opened(url + more):
            (row,) = execute(provider, "PRAGMA synchronous")
            assert row == {"synchronous": level}
            assert execute(provider, "PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    with pytest.raises(ProviderError, match="synchronous"):
        SqlPersistenceProvider(url + "?synchronous=off").open()


# -------------------------------------------------------------------------------------- refusals


def refusal(url: str, **arguments: Any) -> str:
    """Why a provider can't be opened: one line, which tells no password."""
    with pytest.raises(ProviderError) as raised:
        SqlPersistenceProvider(url, **arguments).open()
    told: BaseException | None = raised.value
    while told is not None:
        assert "pa55w0rd" not in f"{told} {told!r}"
        told = told.__cause__
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, StoreUnavailableError)
    return str(raised.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("oracle://me:pa55w0rd@host/x", "begins with none of sqlite, postgresql, mysql, mariadb"),
        ("", "begins with none of"),
        ("postgresql://me:pa55w0rd@host", "names no database"),
        ("postgresql://me:pa55/w0rd@host:x/d", "percent-encoded"),
        ("postgresql+asyncpg://me:pa55w0rd@host/d", "the driver is psycopg"),
        ("mysql://me:pa55w0rd@host/", "names no database"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://store.db", "names no file"),
        ("sqlite://folder/store.db", "three slashes"),
        ("sqlite:////proc/no/such/folder/store.db", "its folder exists"),
    ],
)
def test_a_wrong_url(url: str, reason: str) -> None:
    assert reason in refusal(url)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing that SQLite understands\n" * 100)
    assert "no SQLite database" in refusal(f"sqlite:///{tmp_path}/notes.txt")


def test_a_refused_login_and_a_database_that_is_not_there(postgres_url: str, mariadb_url: str) -> None:
    for url, user in ((postgres_url, "liteflow:liteflow"), (mariadb_url, "root")):
        assert "login was refused" in refusal(url.replace(user, "liteflow:pa55w0rd", 1))
        assert "login was refused" in refusal(url.replace(user, "stranger:pa55w0rd", 1))
        assert "create it first" in refusal(url.rpartition("/")[0] + "/missing")


def test_a_user_who_may_not_make_tables(postgres_url: str, mariadb_url: str, prefix: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE USER {prefix} PASSWORD 'pa55w0rd'")
        url = postgres_url.replace("liteflow:liteflow", f"{prefix}:pa55w0rd", 1)
        assert "grant it" in refusal(url, prefix=prefix)
        admin.execute(f"DROP USER {prefix}")
    host, port = mariadb_url.rpartition("@")[2].partition("/")[0].split(":")
    with pymysql.connect(host=host, port=int(port), user="root") as connected, connected.cursor() as cursor:
        cursor.execute(f"CREATE USER {prefix}@'%' IDENTIFIED BY 'pa55w0rd'")
        cursor.execute(f"GRANT SELECT ON liteflow.* TO {prefix}@'%'")
        assert "grant it" in refusal(mariadb_url.replace("root", f"{prefix}:pa55w0rd", 1), prefix=prefix)
        cursor.execute(f"DROP USER {prefix}@'%'")


def test_who_may_use_tables_need_not_make_them(postgres_url: str, prefix: str) -> None:
    user = f"u{prefix}"
    for provider in opened(postgres_url, prefix):
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute(f"CREATE USER {user} PASSWORD 'x'")
            for name in [*schema.tables(prefix).metadata.tables, migrating.version_table(prefix)]:
                admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {user}")
            url = postgres_url.replace("liteflow:liteflow", f"{user}:x", 1)
            other = SqlPersistenceProvider(url, prefix=prefix)
            other.open()
            instance = created(other)
            other.close()
            assert loaded(provider, instance.id) == instance
            admin.execute(f"DROP OWNED BY {user}")
            admin.execute(f"DROP USER {user}")


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_an_old_server_is_refused(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in servers.OLDEST:
        monkeypatch.setitem(servers.OLDEST, name, (99, 1))
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    told = refusal(url)
    assert "is too old: LiteFlow needs 99.1 or later; upgrade" in told
    names = {"sqlite": ("SQLite 3",), "postgres": ("PostgreSQL 1",), "mariadb": ("MariaDB 1", "MySQL ")}
    assert told.startswith(names[kind])


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("postgresql://h/d", "psycopg", "postgres"), ("mariadb://h/d", "pymysql", "mysql")],
)
def test_a_driver_that_is_not_installed(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install 'liteflow.core[{extra}]'" in refusal(url)


def test_a_server_that_is_away_may_come(prefix: str) -> None:
    for scheme in ("postgresql", "mysql"):
        provider = SqlPersistenceProvider(f"{scheme}://me:pa55w0rd@127.0.0.1:{free_port()}/x")
        with pytest.raises(StoreUnavailableError, match="host and port") as raised:
            provider.open()
        assert "pa55w0rd" not in f"{raised.value}"
        assert "pa55w0rd" not in repr(provider)


def test_an_impossible_option(tmp_path: Path, postgres_url: str) -> None:
    assert "option" in refusal(f"sqlite:///{tmp_path}/s.db", nonsense=1)
    assert refusal(f"{postgres_url}?nonsense=1")


# ------------------------------------------------------------------------------------- migrations


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


def test_the_migrations_make_what_the_code_expects(any_url: str, prefix: str) -> None:
    for provider in opened(any_url, prefix):
        with provider._store.database.engine.connect() as on:
            script = ScriptDirectory.from_config(migrating.config(prefix, on))
            assert script.get_current_head() == schema.SCHEMA_VERSION

            def ours(name: str | None, kind: str, *_: Any) -> bool:
                return kind != "table" or (name or "").startswith(f"{prefix}_")

            options = {"include_name": ours, "version_table": migrating.version_table(prefix)}
            context = MigrationContext.configure(on, opts=options)
            assert compare_metadata(context, schema.tables(prefix).metadata) == []


def test_who_opens_at_once_makes_the_tables_once(any_url: str, prefix: str) -> None:
    providers = [SqlPersistenceProvider(any_url, prefix=prefix) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda one: one.open(), providers))
    instance = created(providers[0])
    assert [one.load([instance.id]) for one in providers] == [{instance.id: instance}] * 6
    for one in providers:
        one.close()
    if not any_url.startswith("sqlite"):
        drop(any_url, prefix)


def test_tables_of_a_newer_release_are_left_alone(any_url: str, prefix: str) -> None:
    for provider in opened(any_url, prefix):
        execute(provider, "UPDATE {t}_schema_version SET version_num = '9999'")
        assert "9999" in refusal(any_url, prefix=prefix)


def test_a_table_that_is_gone(any_url: str, prefix: str) -> None:
    for provider in opened(any_url, prefix):
        instance = created(provider)
        execute(provider, "DROP TABLE {t}_parts")
        calls: list[Callable[[], object]] = [
            lambda: provider.load([instance.id]),  # noqa: B023
            lambda: provider.commit([step(instance, data_set={"a": 1})]),  # noqa: B023
        ]
        for call in calls:
            with pytest.raises(ProviderError, match="parts"):
                call()
        engine = create(any_url, {})
        schema.tables(prefix).parts.create(engine)
        engine.dispose()
