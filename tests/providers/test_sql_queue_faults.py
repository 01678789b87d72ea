"""The SQL queue and lock when processes die or hang, and when servers go away and come back."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic import command
from servers import LocalServer, MariaServer, PostgresServer, wait_for
from sql_stores import drop
from sqlalchemy import event, inspect

from liteflow.core.errors import LockUnavailableError, ProviderError, QueueUnavailableError
from liteflow.core.providers import Lease, Message
from liteflow.core.testing.queue import Inbox
from liteflow.providers.sql import SqlLockProvider, SqlQueueProvider, migrating, schema, serving
from liteflow.providers.sql.connection import create
from liteflow.providers.sql.database import Database


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def provider(url: str, prefix: str) -> Iterator[SqlQueueProvider]:
    """An opened provider; what is silent for two seconds is dead to it."""
    provider = SqlQueueProvider(url, prefix=prefix, session_ttl=2)
    provider.open()
    yield provider
    provider.close()
    if not url.startswith("sqlite"):
        drop(url, prefix)


class Taker:
    """A process that has taken three messages of the queue ``one``."""

    def __init__(self, url: str, prefix: str, ttl: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sql_queue_process", url, prefix, "one", str(ttl)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdout is not None
        self.bodies = [self.process.stdout.readline().strip() for _ in range(3)]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def send(provider: SqlQueueProvider, count: int, queue: str = "one") -> None:
    provider.send([Message(queue, str(number)) for number in range(count)])


# -------------------------------------------------------------------------------------------- deaths


def test_messages_of_a_dead_process_come_back(provider: SqlQueueProvider, url: str, prefix: str) -> None:
    send(provider, 3)
    taker = Taker(url, prefix, 2)
    inbox = Inbox(ack=True)
    provider.consume(["one"], 10, inbox)
    taker.end()
    back = inbox.wait(3)
    assert sorted(one.message.body for one in back) == sorted(taker.bodies)
    assert all(one.redelivered for one in back)
    inbox.stays(3)


def test_postgresql_sees_a_death_by_the_connection(postgres_url: str, prefix: str) -> None:
    """Long before the session's time to live is over, which is longer than the test waits."""
    provider = SqlQueueProvider(postgres_url, prefix=prefix, session_ttl=3600)
    provider.open()
    send(provider, 3)
    taker = Taker(postgres_url, prefix, 3600)
    inbox = Inbox(ack=True)
    provider.consume(["one"], 10, inbox)
    inbox.stays(0)
    taker.end()
    assert all(one.redelivered for one in inbox.wait(3))
    provider.close()
    drop(postgres_url, prefix)


def hangs_without_a_lock(taker: Taker, url: str) -> bool:
    """Stop the process. Within a transaction on SQLite it would keep everybody out, so it goes on then."""
    taker.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, taker.process.pid, os.WSTOPPED)  # until then a thread may still begin a transaction
    if not url.startswith("sqlite"):
        return True
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.1)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        except sqlite3.OperationalError:
            taker.process.send_signal(signal.SIGCONT)
            return False
    return True


def test_what_a_hung_process_had_is_others(provider: SqlQueueProvider, url: str, prefix: str) -> None:
    send(provider, 3)
    taker = Taker(url, prefix, 1)
    inbox = Inbox(ack=True)
    try:
        wait_for("it hangs between two transactions", lambda: hangs_without_a_lock(taker, url))
        provider.consume(["one"], 10, inbox)
        inbox.wait(3)
        # When it goes on it begins anew, and takes what there is then.
        taker.process.send_signal(signal.SIGCONT)
        provider.consume(["two"], 1, Inbox())
        provider.close()
        provider.open()
        send(provider, 1)
        assert taker.process.stdout is not None
        assert taker.process.stdout.readline().strip() == "0"
    finally:
        taker.end()


def test_who_was_taken_for_dead_goes_on(provider: SqlQueueProvider, url: str, prefix: str) -> None:
    """What it had is delivered once more, and settling it counts for nothing."""
    inbox = Inbox()
    provider.consume(["one"], 2, inbox)
    send(provider, 2)
    first = inbox.wait(2)
    database = provider._open.sending
    database.write(lambda connection: connection.exec_driver_sql(f"DELETE FROM {prefix}_sessions"))
    again = inbox.wait(4)[2:]
    assert sorted(one.message.body for one in again) == ["0", "1"]
    for one in first:
        one.ack()
    inbox.stays(4)
    assert provider.depth("one") == 0
    for one in again:
        one.ack()
    send(provider, 1)
    assert inbox.wait(5)[4].message.body == "0"


def test_nothing_is_lost_by_a_close(provider: SqlQueueProvider, url: str, prefix: str) -> None:
    inbox = Inbox()
    provider.consume(["one"], 2, inbox)
    send(provider, 2)
    inbox.wait(2)
    provider.close()
    provider.open()
    assert provider.depth("one") == 2


# ------------------------------------------------------------------------------------ servers that restart


@pytest.mark.parametrize("kind", [PostgresServer, MariaServer])
def test_a_queue_goes_on_when_its_server_is_back(kind: type[LocalServer]) -> None:
    server = kind()
    try:
        server.start()
        provider = SqlQueueProvider(server.url, session_ttl=2)
        provider.open()
        inbox, heard = Inbox(ack=True), Inbox()
        provider.consume(["one"], 10, inbox)
        provider.subscribe("topic", heard)
        send(provider, 1)
        inbox.wait(1)
        server.kill()
        with pytest.raises(QueueUnavailableError):
            send(provider, 1)
        with pytest.raises(QueueUnavailableError):
            SqlQueueProvider(server.url).open()
        server.start()
        send(provider, 1)
        inbox.wait(2)

        def told() -> bool:
            provider.notify("topic", "x")
            return bool(heard.items)

        wait_for("broadcasts are heard again", told, 20)
        provider.close()
    finally:
        server.close()


@pytest.mark.parametrize("kind", [PostgresServer, MariaServer])
def test_leases_when_their_server_goes(kind: type[LocalServer]) -> None:
    server = kind()
    try:
        server.start()
        provider = SqlLockProvider(server.url)
        provider.open()
        found = provider.acquire(["a", "b", "a"], 600)
        leases = [one for one in found if isinstance(one, Lease)]
        assert [lease.name for lease in leases] == ["a", "b"]
        server.kill()
        with pytest.raises(LockUnavailableError):
            provider.acquire(["c"], 5)
        assert provider.renew(leases, 600) == [True, True], "nobody can have taken them yet"
        assert provider.release([leases[1]]) == [False], "somebody may have been turned away"
        server.start()
        assert isinstance(provider.acquire(["c"], 5)[0], Lease)
        # PostgreSQL forgets leases in a crash, with their marks; then none counts as held, or as unmarked.
        kept = kind is MariaServer
        assert provider.renew([leases[0]], 600) == [kept]
        assert provider.release([leases[0]]) == [False]
        provider.close()
    finally:
        server.close()


def test_a_lease_that_can_not_be_renewed_ends(postgres_url: str, prefix: str) -> None:
    provider = SqlLockProvider(postgres_url, prefix=prefix)
    provider.open()
    lease = provider.acquire(["a"], 0.2)[0]
    assert isinstance(lease, Lease)
    broken = provider._leases.database.engine

    @event.listens_for(broken, "do_connect")
    def refuse(*_: object) -> None:
        raise psycopg.OperationalError("on purpose")

    broken.dispose()
    assert provider.renew([lease], 5) == [True]
    wait_for("its time is over", lambda: time.monotonic() > lease.expires, 5)
    assert provider.renew([lease], 5) == [False]
    provider.close()
    drop(postgres_url, prefix)


# ------------------------------------------------------------------------------------- limits and costs


def test_connections_are_bounded(postgres_url: str, prefix: str) -> None:
    url = f"{postgres_url}?application_name={prefix}"
    queue, lock = SqlQueueProvider(url, prefix=prefix), SqlLockProvider(url, prefix=prefix)
    queue.open()
    lock.open()
    inbox = Inbox(ack=True)
    queue.consume(["one"], 50, inbox)
    most = 0
    with ThreadPoolExecutor(40) as pool, psycopg.connect(postgres_url, autocommit=True) as admin:
        calls = [pool.submit(send, queue, 1) for _ in range(300)]
        calls += [pool.submit(lock.acquire, [str(n)], 5) for n in range(300)]
        while not all(call.done() for call in calls):
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            row = admin.execute(query, (prefix,)).fetchone()
            assert row is not None
            most = max(most, row[0])
        assert [call.exception() for call in calls] == [None] * 600
    inbox.wait(300)
    assert 1 < most <= 8 + 2 + 1 + 8
    queue.close()
    lock.close()
    drop(postgres_url, prefix)


def test_a_deep_queue_is_counted_so_far(provider: SqlQueueProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liteflow.providers.sql.messages.COUNTED", 20)
    send(provider, 30)
    assert provider.depth("one") == 20


def test_an_idle_process_writes_next_to_nothing(
    provider: SqlQueueProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that finds nothing writes nothing; only the session is renewed."""
    monkeypatch.setattr(serving, "SWEEP", 0.2)
    inbox = Inbox(ack=True)
    provider.consume(["one", "two"], 5, inbox)
    send(provider, 1)
    inbox.wait(1)
    written: list[str] = []

    @event.listens_for(provider._open.backend.database.engine, "before_cursor_execute")
    def executed(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().split()[0] in ("INSERT", "UPDATE", "DELETE"):
            written.append(statement)

    wait_for("it was renewed twice", lambda: sum("sessions" in one for one in written) >= 2, 10)
    messages = [one for one in written if "_messages" in one]
    assert len(messages) <= 1, "no more than the acknowledgement"


def test_a_broadcast_that_is_too_long_for_postgresql_is_dropped(postgres_url: str, prefix: str) -> None:
    provider = SqlQueueProvider(postgres_url, prefix=prefix)
    provider.open()
    inbox = Inbox()
    provider.subscribe("topic", inbox)
    provider.notify("topic", "x" * 10_000)
    provider.notify("topic", "short")
    inbox.wait(1)
    assert inbox.bodies() == ["short"]
    provider.close()
    drop(postgres_url, prefix)


def test_who_may_use_the_tables_needs_no_other_right(postgres_url: str, prefix: str) -> None:
    user = f"u{prefix}"
    owner = SqlQueueProvider(postgres_url, prefix=prefix)
    owner.open()
    url = postgres_url.replace("liteflow:liteflow", f"{user}:x", 1)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE USER {user} PASSWORD 'x'")
        for name in [*schema.tables(prefix).metadata.tables, migrating.version_table(prefix)]:
            admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {user}")
        queue, lock = SqlQueueProvider(url, prefix=prefix), SqlLockProvider(url, prefix=prefix)
        queue.open()
        lock.open()
        inbox = Inbox(ack=True)
        queue.consume(["one"], 1, inbox)
        send(queue, 1)
        owner.send([Message("one", "x")])
        inbox.wait(2)
        assert lock.release([one for one in lock.acquire(["a"], 5) if isinstance(one, Lease)]) == [True]
        queue.close()
        lock.close()
        admin.execute(f"DROP OWNED BY {user}")
        admin.execute(f"DROP USER {user}")
    owner.close()
    drop(postgres_url, prefix)


def test_tables_of_an_older_release_get_those_of_the_queue(url: str, prefix: str) -> None:
    engine = create(url, {})
    Database(engine).write(lambda on: command.upgrade(migrating.config(prefix, on), "0001"))
    assert f"{prefix}_instances" in inspect(engine).get_table_names()
    assert f"{prefix}_messages" not in inspect(engine).get_table_names()
    engine.dispose()
    provider = SqlQueueProvider(url, prefix=prefix)
    provider.open()
    send(provider, 1)
    assert provider.depth("one") == 1
    provider.close()
    if not url.startswith("sqlite"):
        drop(url, prefix)


@pytest.mark.parametrize("kind", [SqlQueueProvider, SqlLockProvider])
def test_what_is_refused_is_refused_in_one_line(
    kind: type[SqlQueueProvider] | type[SqlLockProvider], postgres_url: str, tmp_path: Path
) -> None:
    with pytest.raises(ProviderError, match="prefix 'a b' can't begin"):
        kind(postgres_url, prefix="a b")
    for url, reason in (
        ("oracle://me:pa55w0rd@host/x", "begins with none of"),
        (postgres_url.replace("liteflow:liteflow", "liteflow:pa55w0rd", 1), "login was refused"),
        (f"sqlite:////{tmp_path}/no/such/folder.db", "its folder exists"),
    ):
        provider = kind(url)
        with pytest.raises(ProviderError, match=reason) as raised:
            provider.open()
        assert "pa55w0rd" not in f"{raised.value}{provider!r}"
        assert "\n" not in str(raised.value)
