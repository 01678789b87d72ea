"""W1 by the store: chains of 10 durable steps on a SQL database alone, which is store, queue and lock.

SQLite (a file, write-ahead log, synchronous=FULL), PostgreSQL and MariaDB (as they come: each commit is on
the disk before it counts), each beside a hand-written loop on the same database (`sql_loop`) and, with
`--peers dbos`, DBOS on SQLite and on the same PostgreSQL. All instances are stored before the one process
that runs them starts; from the first step to the last one's end. The order of the databases is another one
in each run.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from servers import ServerError
from sql_stores import drop
from sqlalchemy import text

from bench import sql_loop
from bench.flows import Chain
from bench.harness import ROOT, Env, Figures, Servers, Target, Workload, rate
from bench.peers import dbos, had
from bench.processes import kill, spawn
from liteflow.core import Settings
from liteflow.core.models import DefinitionRecord
from liteflow.providers.sql.connection import create
from liteflow.worker.wiring import Servers as Wiring

SQLITE, POSTGRES, MARIADB = "SQLite", "PostgreSQL", "MariaDB"
DATABASES = (SQLITE, POSTGRES, MARIADB)


def run(env: Env, quick: bool) -> Figures:
    count = 30 if quick else 1000
    started = Servers()  # those that no other benchmark needs
    found = Figures()
    try:
        with tempfile.TemporaryDirectory(prefix="liteflow-bench-") as folder:
            urls: dict[str, Callable[[], str]] = {
                SQLITE: lambda: f"sqlite:///{folder}/{uuid.uuid4().hex}.db",
                POSTGRES: started.postgres,
                MARIADB: started.mariadb,
            }
            for name in random.sample(DATABASES, len(DATABASES)):
                try:
                    found |= _of_database(env, name, urls[name], count)
                except ServerError as exc:
                    print(f"  {name} is left out: {exc}", file=sys.stderr)
    finally:
        started.close()
    return dict(sorted(found.items(), key=lambda one: [name in one[0] for name in DATABASES], reverse=True))


def _of_database(env: Env, name: str, url: Callable[[], str], count: int) -> Figures:
    found = {f"LiteFlow, {name}": liteflow(url(), count)}
    for threads in sql_loop.THREADS[url().partition(":")[0]]:
        many = f"{threads} thread{'' if threads == 1 else 's'}"
        found[f"hand-written, {name}, {many}"] = sql_loop.chains(url(), threads, count)
    if "dbos" in env.peers:
        # It takes longest.
        fewer = max(count // 4, 1)
        if name == SQLITE:
            found |= had("dbos", lambda: dbos.on_sqlite(env, fewer))
        elif name == POSTGRES:
            found |= had("dbos", lambda: dbos.on_postgres(env, url(), fewer))
    return found


def liteflow(url: str, count: int) -> float:
    """Instances a second of one worker process that has nothing but this database."""
    urls = Wiring(url, prefix=f"b{uuid.uuid4().hex[:8]}")
    _submit(urls, count)
    engine = create(url, {}).execution_options(isolation_level="AUTOCOMMIT")
    command = [sys.executable, "-m", "liteflow.worker", "worker", "bench.flows:chains"]
    command += ["--store", url, "--prefix", urls.prefix, "--log-level", "error"]
    running = []
    try:
        with engine.connect() as watching:

            def ask(what: str) -> Any:
                return watching.scalar(text(f"SELECT {what.format(t=f'{urls.prefix}_instances')}"))

            running.append(spawn(command, folder=ROOT))
            return rate(
                lambda: bool(ask("EXISTS (SELECT 1 FROM {t} WHERE revision > 0)")),
                lambda: int(ask("count(*) FROM {t} WHERE status = 2")),
                count,
            )
    finally:
        kill(running)
        engine.dispose()
        drop(url, urls.prefix)


def _submit(urls: Wiring, count: int) -> None:
    client = urls.host(Settings()).open()
    try:
        known = Chain().definition()
        client.persistence.record_definitions([DefinitionRecord(known.id, known.version, known.fingerprint)])
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: client.start_workflow("chain"), range(count)))
    finally:
        client.stop()


def _to(name: str, reference: str) -> Callable[[Figures], float]:
    """LiteFlow on this database to the best series whose name begins so."""

    def ratio(figures: Figures) -> float:
        others = [value for series, value in figures.items() if series.startswith(reference)]
        return figures.get(f"LiteFlow, {name}", math.nan) / max(others, default=math.nan)

    return ratio


WORKLOAD = Workload(
    "stores",
    "chains of 10 steps on a SQL database alone",
    "workflows/s",
    run,
    [
        Target("SQLite to DBOS on SQLite as it comes", _to(SQLITE, f"DBOS, {SQLITE}, as it comes"), 5.0, 5.0),
        Target("SQLite to DBOS on SQLite with a WAL", _to(SQLITE, f"DBOS, {SQLITE}, WAL"), 5.0, 5.0),
        Target("PostgreSQL to DBOS on PostgreSQL", _to(POSTGRES, f"DBOS, {POSTGRES}"), 3.0, 3.0),
    ],
    references={
        f"{kind}, {name}": f"hand-written, {name}" for name in DATABASES for kind in ("LiteFlow", "DBOS")
    },
)
