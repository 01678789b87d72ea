"""One SQLite file and several processes, some of which are killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from servers import wait_for
from sql_process import STEPS
from sql_stores import execute

from liteflow.core.models import Instance, WorkflowStatus
from liteflow.core.poller import LONGEST_HOLD
from liteflow.core.providers import ListFilter
from liteflow.providers.sql import SqlPersistenceProvider

ROUNDS = int(os.environ.get("LITEFLOW_TEST_ROUNDS", "6"))
"""So often a process is killed in the middle of its commits."""

WORKFLOWS = int(os.environ.get("LITEFLOW_TEST_ORDERS", "200"))
"""So many workflows run in four processes on one file."""

Step = tuple[str, str]


def run(folder: Path, count: int, mode: str) -> subprocess.Popen[str]:
    """A process whose log lines go to a file: a pipe that nobody reads would stop it when it is full."""
    url = f"sqlite:///{folder}/store.db"
    with (folder / "errors").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "sql_process", url, f"{folder}/log", str(count), mode],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )


def runs(folder: Path) -> Counter[Step]:
    """How often each step of each workflow has begun."""
    lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    return Counter((line.split()[0], line.split()[1]) for line in lines)


def committed(store: SqlPersistenceProvider, ids: list[str]) -> set[Step]:
    """The steps whose end is stored."""
    found: set[Step] = set()
    for instance in store.load(ids).values():
        assert isinstance(instance, Instance), instance
        found |= {(instance.id, pointer.id) for pointer in instance.pointers.values() if pointer.ended}
    return found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["alone", "killed"])
def test_no_committed_step_is_lost_or_run_again_by_kills(tmp_path: Path, mode: str) -> None:
    store = SqlPersistenceProvider(f"sqlite:///{tmp_path}/store.db")
    store.open()
    accepted: list[str] = []
    stored: dict[Step, int] = {}
    for _ in range(ROUNDS):
        process = run(tmp_path, 20, mode)
        assert process.stdout is not None
        accepted.append(process.stdout.readline().strip())
        begun = runs(tmp_path).total() + random.randint(1, 8 * STEPS)
        wait_for("it is in the middle of its work", lambda: runs(tmp_path).total() >= begun, 30)  # noqa: B023
        process.kill()
        accepted += process.stdout.read().split("\n")[:-1]
        process.wait()
        assert "Error" not in (tmp_path / "errors").read_text()
        assert store.load(accepted).keys() == set(accepted)
        count = runs(tmp_path)
        now = committed(store, accepted)
        assert stored.keys() <= now
        # One that was stored before has not run since.
        assert {key: count[key] for key in stored} == stored
        stored = {key: count[key] for key in now}
        assert all(stored.values())
    process = run(tmp_path, 0, mode)
    try:
        all_of = [row.id for row in store.list(ListFilter(limit=100_000)).items]
        going_on = ListFilter(limit=1, status=WorkflowStatus.RUNNABLE)
        # A start whose process died before its message was sent, again and again taken to be in a deep
        # backlog, is sent after that time at the latest.
        wait_for("all have ended", lambda: not store.list(going_on).items, 100 + LONGEST_HOLD)
        assert {row.status for row in store.list(ListFilter(limit=100_000)).items} == {
            WorkflowStatus.COMPLETE
        }
    finally:
        process.kill()
        process.communicate()
    count = runs(tmp_path)
    assert {key: count[key] for key in stored} == stored
    assert len(committed(store, all_of)) == STEPS * len(all_of) == len(count)
    # What was not stored yet may have run once more for each death, and for no other reason.
    assert max(count.values()) <= 1 + ROUNDS
    assert execute(store, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    store.close()


@pytest.mark.timeout(600)
def test_four_processes_on_one_file(tmp_path: Path) -> None:
    processes = [run(tmp_path, WORKFLOWS // 4, "shared") for _ in range(4)]
    for process in processes:
        process.communicate(timeout=500)
        assert process.returncode == 0
    assert (tmp_path / "errors").read_text() == ""
    store = SqlPersistenceProvider(f"sqlite:///{tmp_path}/store.db")
    store.open()
    complete = store.list(ListFilter(limit=100_000, status=WorkflowStatus.COMPLETE)).items
    assert len(complete) == WORKFLOWS // 4 * 4
    count = runs(tmp_path)
    assert len(count) == STEPS * len(complete)
    assert set(count.values()) == {1}
    assert execute(store, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    store.close()
