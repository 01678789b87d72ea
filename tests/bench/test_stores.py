"""The workload `stores`: its hand-written loop does what it says, and its ratios are of the right series."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from bench.report import verdicts
from bench.sql_loop import THREADS, Loop
from bench.stores import WORKLOAD
from liteflow.providers.sql.connection import create

FIGURES = {
    "LiteFlow, SQLite": 60.0,
    "DBOS, SQLite, as it comes": 10.0,
    "DBOS, SQLite, WAL": 20.0,
    "LiteFlow, PostgreSQL": 40.0,
    "DBOS, PostgreSQL": 10.0,
}


@pytest.mark.parametrize("database", THREADS)
def test_the_loop_runs_each_job_once_and_to_its_end(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixtures = {"postgresql": "postgres_url", "mariadb": "mariadb_url"}
    url = f"sqlite:///{tmp_path}/jobs.db"
    if database in fixtures:
        url = request.getfixturevalue(fixtures[database])
    name = f"loop_{database}"
    loop = Loop(url, name)
    loop.make(20)
    try:
        # A job that two have claimed makes one of them miss its version, which ends that thread.
        others = [threading.Thread(target=_work, args=(url, name)) for _ in range(THREADS[database][-1])]
        for other in others:
            other.start()
        for other in others:
            other.join(60)
        engine = create(url, {})
        with engine.connect() as connection:
            rows = connection.execute(text(f"SELECT version, step, status, owner FROM {name}")).all()
        engine.dispose()
        assert [row[:3] for row in rows] == [(10, 10, 2)] * 20
        assert all(row.owner for row in rows)
    finally:
        loop.drop()
        loop.close()


def _work(url: str, table: str) -> None:
    loop = Loop(url, table)
    loop.work()
    loop.close()


def test_each_database_is_compared_with_dbos_on_the_same_one() -> None:
    values = [target.of(FIGURES) for target in WORKLOAD.targets]
    assert values == [6.0, 3.0, 4.0]


def test_without_dbos_its_targets_were_not_measured() -> None:
    found = verdicts(WORKLOAD, [{"LiteFlow, SQLite": 60.0, "LiteFlow, PostgreSQL": 40.0}])
    assert [row["reached"] for row in found] == [None, None, None]
    assert all(math.isnan(target.of({})) for target in WORKLOAD.targets)
