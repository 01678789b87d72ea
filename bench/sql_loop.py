"""The reference on a SQL database: ten durable steps as an engineer writes them without an engine.

Claim a job (with SKIP LOCKED where there is that), ten times an `UPDATE` with a compare-and-set on the
version, each committed by itself; the last one marks the job as ended. The raw drivers, in autocommit, so
that a commit costs no trip of its own.

    python -m bench.sql_loop URL TABLE THREADS
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import uuid
from typing import Any

import psycopg
import pymysql
from sqlalchemy import URL, make_url, text

from bench.harness import ROOT, rate
from bench.processes import kill, spawn
from liteflow.providers.sql.connection import create

THREADS = {"sqlite": (1,), "postgresql": (1, 8), "mariadb": (1, 8)}
"""How many threads of one process are tried, by the scheme of a URL. SQLite has one writer at a time."""


class Loop:
    """Jobs in one table, and one connection to it."""

    def __init__(self, url: str, table: str) -> None:
        parsed = make_url(url)
        self._scheme = parsed.get_backend_name()
        self._connection = _connect(parsed)
        self._mark = "?" if self._scheme == "sqlite" else "%s"
        self._table = table

    def _execute(self, statement: str, *values: object) -> Any:
        cursor: Any = self._connection.cursor()
        cursor.execute(statement.format(t=self._table).replace("%s", self._mark), values)
        return cursor

    def make(self, count: int) -> None:
        """The table with this many jobs."""
        if self._scheme == "sqlite":
            self._execute("PRAGMA journal_mode = WAL")
        self._execute(
            "CREATE TABLE {t} (id INTEGER PRIMARY KEY, owner VARCHAR(32), version INTEGER NOT NULL,"
            " step INTEGER NOT NULL, status INTEGER NOT NULL, data TEXT NOT NULL)"
        )
        if self._scheme == "mariadb":  # which has no partial index
            self._execute("CREATE INDEX {t}_free ON {t} (owner, id)")
        else:
            self._execute("CREATE INDEX {t}_free ON {t} (id) WHERE owner IS NULL")
        self._execute("BEGIN")
        for number in range(count):
            self._execute("INSERT INTO {t} VALUES (%s, NULL, 0, 0, 0, '{{}}')", number)
        self._execute("COMMIT")

    def work(self) -> None:
        """Run jobs until none is free."""
        owner = uuid.uuid4().hex
        change = "UPDATE {t} SET version = %s, step = %s, status = %s WHERE id = %s AND version = %s"
        while (claimed := self._claim(owner)) is not None:
            key, version = claimed
            for step in range(10):
                done = self._execute(change, version + 1, step + 1, 2 if step == 9 else 0, key, version)
                assert done.rowcount == 1
                version += 1

    def _claim(self, owner: str) -> Any:
        free = "SELECT id, version FROM {t} WHERE owner IS NULL ORDER BY id LIMIT 1"
        if self._scheme == "mariadb":  # an UPDATE can't tell what it has changed
            self._execute("BEGIN")
            claimed = self._execute(f"{free} FOR UPDATE SKIP LOCKED").fetchone()
            if claimed is not None:
                self._execute("UPDATE {t} SET owner = %s WHERE id = %s", owner, claimed[0])
            self._execute("COMMIT")
            return claimed
        free = free.replace("id, version", "id")
        if self._scheme == "postgresql":
            free += " FOR UPDATE SKIP LOCKED"
        return self._execute(
            f"UPDATE {{t}} SET owner = %s WHERE id = ({free}) RETURNING id, version", owner
        ).fetchone()

    def drop(self) -> None:
        """Remove the table."""
        self._execute("DROP TABLE {t}")

    def close(self) -> None:
        """Give back the connection."""
        self._connection.close()


def _connect(url: URL) -> Any:
    if url.get_backend_name() == "sqlite":
        connection = sqlite3.connect(str(url.database), timeout=30, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection
    if url.get_backend_name() == "postgresql":
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
    return pymysql.connect(
        host=url.host, port=url.port or 3306, user=url.username, password=url.password or "",
        database=url.database, autocommit=True,
    )  # fmt: skip


def chains(url: str, threads: int, count: int) -> float:
    """Jobs a second of one process with this many threads, from the first step to the last job's end."""
    table = f"hand{uuid.uuid4().hex[:8]}"
    loop = Loop(url, table)
    loop.make(count)
    engine = create(url, {}).execution_options(isolation_level="AUTOCOMMIT")
    running = []
    try:
        with engine.connect() as watching:

            def ask(what: str) -> Any:
                return watching.scalar(text(f"SELECT {what.format(t=table)}"))

            command = [sys.executable, "-m", "bench.sql_loop", url, table, str(threads)]
            running.append(spawn(command, folder=ROOT))
            return rate(
                lambda: bool(ask("EXISTS (SELECT 1 FROM {t} WHERE version > 0)")),
                lambda: int(ask("count(*) FROM {t} WHERE status = 2")),
                count,
            )
    finally:
        kill(running)
        engine.dispose()
        loop.drop()
        loop.close()


def _work(url: str, table: str) -> None:
    loop = Loop(url, table)
    loop.work()
    loop.close()


if __name__ == "__main__":
    url, table, number = sys.argv[1:]
    consumers = [threading.Thread(target=_work, args=(url, table), daemon=True) for _ in range(int(number))]
    for consumer in consumers:
        consumer.start()
    for consumer in consumers:
        consumer.join()
