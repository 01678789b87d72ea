"""Transactions on one database: reads, snapshots and writes, repeated where others were in the way."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from liteflow.core.errors import StoreUnavailableError
from liteflow.providers.sql.connection import BEGIN, BUSY_SECONDS
from liteflow.providers.sql.errors import is_undone, repeated

T = TypeVar("T")

UNDONE_TRIES = 10
"""So often a transaction is tried that the server undoes because of others."""

BATCH = 500
"""Rows in one transaction, and ids in one query."""


_writers: dict[str, threading.Lock] = {}
"""By SQLite file: one lock for all that this process writes to it, through whichever engine."""


def _writer_of(engine: Engine) -> threading.Lock:
    return _writers.setdefault(os.path.realpath(engine.url.database or ""), threading.Lock())


class Database:
    """Runs functions that are given a connection. Any thread may use it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.dialect.name
        self._one_writer = _writer_of(engine) if self.name == "sqlite" else None
        self._reads: Engine
        self._snapshots: Engine
        self._writes: Engine
        if self.name == "sqlite":
            self._reads = engine
            self._snapshots = engine.execution_options(**{BEGIN: "BEGIN"})
            # A transaction that begins with a read can't always go on to write.
            self._writes = engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
        else:
            self._reads = engine.execution_options(isolation_level="AUTOCOMMIT")
            self._snapshots = engine.execution_options(isolation_level="REPEATABLE READ")
            self._writes = engine

    def read(self, act: Callable[[Connection], T]) -> T:
        """Run queries, each of which sees what is committed when it begins."""
        return self._query(self._reads, act)

    def snapshot(self, act: Callable[[Connection], T]) -> T:
        """Run queries that all see the same state."""
        return self._query(self._snapshots, act)

    def _query(self, engine: Engine, act: Callable[[Connection], T]) -> T:
        def query() -> T:
            with self._connected(engine) as connection:
                return act(connection)

        return repeated(query)

    def _connected(self, engine: Engine) -> Connection:
        """A connection. Its mode is set by the driver alone, whose own error tells then that it is dead."""
        driver = engine.dialect.loaded_dbapi
        try:
            return engine.connect()
        except driver.Error as exc:
            self.engine.dispose()  # the others in the pool are no younger
            raise DBAPIError.instance(
                None, None, exc, driver.Error, connection_invalidated=True, dialect=engine.dialect
            ) from exc

    def write(self, act: Callable[[Connection], T]) -> T:
        """Run a transaction, which is durable when this returns.

        It is run again if the server undoes it because of another one, and only then: see `repeated`.
        """
        tries = 0
        while True:
            try:
                with self._turn(), self._writes.begin() as connection:
                    return act(connection)
            except DBAPIError as exc:
                tries += 1
                if tries == UNDONE_TRIES or not is_undone(exc):
                    raise
            time.sleep(random.uniform(0, 0.002 * 2**tries))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """SQLite has one writer at a time. Threads of this process queue here, which is fair and quick."""
        if self._one_writer is None:
            yield
        elif self._one_writer.acquire(timeout=BUSY_SECONDS):
            try:
                yield
            finally:
                self._one_writer.release()
        else:
            raise StoreUnavailableError(f"SQLite: others have been writing for {BUSY_SECONDS:.0f} s")


def batches(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts that one statement takes."""
    for first in range(0, len(rows), BATCH):
        yield rows[first : first + BATCH]


def execute_many(connection: Connection, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Run a statement once for each row, in one go."""
    if rows:
        connection.execute(statement, rows)
