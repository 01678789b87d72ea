"""DBOS on PostgreSQL (fsync on) and on SQLite: workflows of ten steps, drained from its queue.

A quarter of the instances, since it takes longest; the rate is from the first step to the last end.
"""

from __future__ import annotations

import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import PostgresServer, ServerError
from sqlalchemy import make_url, text

from bench.harness import Env, Figures, rate
from bench.peers.environment import Peer, PeerError, processes, python, version
from bench.processes import kill, output, spawn
from liteflow.providers.sql.connection import create

APP = """
import sys, threading
from dbos import DBOS, DBOSClient

URL, ACT, ARGUMENT = sys.argv[1:]
if ACT == "submit":
    client = DBOSClient(system_database_url=URL)
    for _ in range(int(ARGUMENT)):
        client.enqueue({"queue_name": "chains", "workflow_name": "chain"})
    client.destroy()
    sys.exit()

config = {"name": "bench", "system_database_url": URL, "run_admin_server": False, "log_level": "ERROR"}
DBOS(config={**config, "executor_id": ARGUMENT})  # by which it counts what a process has in hand

@DBOS.step()
def nothing():
    return None

@DBOS.workflow(name="chain")
def chain():
    for _ in range(10):
        nothing()

DBOS.launch()
if ACT == "prepare":
    DBOS.register_queue("chains", worker_concurrency=int(ARGUMENT), polling_interval_sec=0.05)
    DBOS.destroy()
else:
    threading.Event().wait()
"""

IN_FLIGHT = {"postgresql": 16, "sqlite": 64}
"""Workflows that a process has in hand, by the scheme of a URL: which of the two was the faster one there."""


def rates(env: Env, count: int) -> Figures:
    """Chains a second by number of worker processes, on a PostgreSQL of its own."""
    interpreter = _interpreter(env)
    server = PostgresServer()
    try:
        url = server.start().url
        return {
            f"DBOS, {processes(number)}": _on_postgres(interpreter, url, number, max(count // 4, 1))
            for number in (1, 2)
        }
    except ServerError as exc:
        raise PeerError(str(exc)) from exc
    finally:
        server.close()


def on_postgres(env: Env, url: str, count: int) -> Figures:
    """Chains a second of one process, in a database of its own on this server."""
    return {"DBOS, PostgreSQL": _on_postgres(_interpreter(env), url, 1, count)}


def on_sqlite(env: Env, count: int) -> Figures:
    """Chains a second of one process: on a file as DBOS makes it, and on one with a write-ahead log."""
    interpreter, found = _interpreter(env), Figures()
    for label in ("as it comes", "WAL"):
        with tempfile.TemporaryDirectory(prefix="liteflow-bench-dbos-") as folder:
            path = f"{folder}/dbos.sqlite"
            if label == "WAL":
                made = sqlite3.connect(path)
                made.execute("PRAGMA journal_mode = WAL")  # which the file keeps
                made.close()
            found[f"DBOS, SQLite, {label}"] = _rate(interpreter, f"sqlite:///{path}", 1, count)
    return found


def _interpreter(env: Env) -> Path:
    return python(env, "dbos", "dbos", "psycopg[binary]")


@contextmanager
def _database(url: str) -> Iterator[str]:
    """The URL of a database of its own beside the one of this URL."""
    name = f"dbos{uuid.uuid4().hex[:8]}"
    engine = create(url, {}).execution_options(isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
            yield make_url(url).set(database=name).render_as_string(hide_password=False)
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


def _on_postgres(interpreter: Path, url: str, number: int, count: int) -> float:
    with _database(url) as its:
        return _rate(interpreter, its, number, count)


def _rate(interpreter: Path, url: str, number: int, count: int) -> float:
    schema = "dbos." if url.startswith("postgresql") else ""
    engine = create(url, {}).execution_options(isolation_level="AUTOCOMMIT")
    with tempfile.TemporaryDirectory(prefix="liteflow-bench-dbos-") as name:
        folder = Path(name)
        script, log = folder / "app.py", folder / "log"
        script.write_text(APP)
        command = [str(interpreter), str(script), url]
        output([*command, "prepare", str(IN_FLIGHT[url.partition(":")[0]])], folder=folder)
        output([*command, "submit", str(count)], folder=folder)
        running = []
        try:
            with engine.connect() as watching:

                def ask(what: str) -> Any:
                    return watching.scalar(text(f"SELECT {what}"))

                for place in range(number):
                    running.append(spawn([*command, "work", f"worker-{place}"], folder=folder, log=log))
                return rate(
                    lambda: bool(ask(f"EXISTS (SELECT 1 FROM {schema}operation_outputs)")),
                    lambda: int(ask(f"count(*) FROM {schema}workflow_status WHERE status = 'SUCCESS'")),
                    count,
                )
        except TimeoutError as exc:
            raise PeerError(f"{exc}: {log.read_text(errors='replace')[-1000:]}") from exc
        finally:
            kill(running)
            engine.dispose()


def _version(env: Env) -> str:
    return version(env, "dbos", "dbos", "psycopg")


PEER = Peer("DBOS", rates, _version)
