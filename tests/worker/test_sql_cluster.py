"""A cluster over nothing but a SQL database, as processes: kills, the command line, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from servers import free_port, wait_for
from sql_stores import drop
from worker.logged_workflows import STEPS

from liteflow.core import Settings, SettingsError, WorkflowHost, WorkflowStatus
from liteflow.providers.sql import SqlLockProvider, SqlPersistenceProvider, SqlQueueProvider
from liteflow.worker.cli import main
from liteflow.worker.wiring import Servers as Wiring

HERE = Path(__file__).parent
ORDERS = int(os.environ.get("LITEFLOW_TEST_ORDERS", "60"))
"""So many workflows run while a worker is killed."""

Process = subprocess.Popen[bytes]


class Cluster:
    """Processes that are told of the store and of nothing else."""

    def __init__(self, url: str, prefix: str, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LITEFLOW_")},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "LITEFLOW_PREFIX": prefix,
            "LITEFLOW_LEASE_TTL": "2",
            "LITEFLOW_POLL_INTERVAL": "1",
            "LITEFLOW_HEALTH_FILE": str(folder / "health"),
            "STEP_LOG": str(folder / "steps"),
        }
        self.url = url
        self.processes: list[Process] = []
        self.client: WorkflowHost = Wiring(url, prefix=prefix).host(Settings())

    def run(self, *arguments: str, store: bool = True) -> Process:
        log = self.folder / f"{len(self.processes)}.log"
        more = ["--store", self.url] if store else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "liteflow.worker", *arguments, *more],
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.folder if not store else HERE,
            )
        self.processes.append(process)
        return process

    def log(self, process: Process) -> str:
        return (self.folder / f"{self.processes.index(process)}.log").read_text()

    def ready(self, *processes: Process) -> None:
        for process in processes:
            wait_for("it is ready", lambda process=process: "ready" in self.log(process), 60)

    def steps(self) -> list[list[str]]:
        """The lines of the steps that have begun: instance, pointer, process."""
        path = self.folder / "steps"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def start(self, count: int) -> list[str]:
        since = datetime(2020, 1, 1, tzinfo=timezone.utc)
        return [
            self.client.start_workflow("logged", data={"key": f"k{number}", "since": since})
            for number in range(count)
        ]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.client.stop()


@pytest.fixture
def cluster(url: str, prefix: str, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(url, prefix, tmp_path)
    yield made
    made.close()
    if not url.startswith("sqlite"):
        drop(url, prefix)


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("url", ["postgres", "mariadb", "sqlite"], indirect=True)
def test_a_store_alone_is_a_cluster_that_survives_a_kill(cluster: Cluster) -> None:
    workers = [cluster.run("worker", "logged_workflows") for _ in range(2)]
    scheduler = cluster.run("scheduler")
    cluster.ready(*workers, scheduler)
    ids = cluster.start(ORDERS)
    wait_for("work is under way", lambda: len(cluster.steps()) > ORDERS * STEPS // 4, 60)
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    for number in range(ORDERS):
        cluster.client.publish_event("go", f"k{number}")
    for one in ids:
        assert cluster.client.wait_for_workflow(one, timeout=100).status is WorkflowStatus.COMPLETE
    runs = Counter((instance, pointer) for instance, pointer, _ in cluster.steps())
    assert len(runs) == ORDERS * STEPS
    # What ran in the killed one and was not stored ran once more, and nothing else did.
    killed = {(line[0], line[1]) for line in cluster.steps() if line[2] == str(workers[0].pid)}
    assert {key for key, count in runs.items() if count > 1} <= killed
    assert max(runs.values()) <= 2
    workers[1].terminate()
    scheduler.terminate()
    assert (workers[1].wait(30), scheduler.wait(30)) == (0, 0)
    assert "Traceback" not in cluster.log(workers[1]) + cluster.log(scheduler)


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_both_workers_work(cluster: Cluster) -> None:
    workers = [cluster.run("worker", "logged_workflows", "--concurrency", "2") for _ in range(2)]
    cluster.ready(*workers)
    cluster.start(40)
    wait_for("both have run steps", lambda: len({line[2] for line in cluster.steps()}) == 2, 60)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_dev_runs_over_a_file_in_the_current_directory(cluster: Cluster) -> None:
    (cluster.folder / "logged_workflows.py").write_text((HERE / "logged_workflows.py").read_text())
    dev = cluster.run("dev", "logged_workflows", store=False)
    cluster.ready(dev)
    assert (cluster.folder / "liteflow.db").exists()
    # Another process reaches it by the file, and its message is heard at once.
    host = Wiring(
        f"sqlite:///{cluster.folder}/liteflow.db", prefix=cluster.environment["LITEFLOW_PREFIX"]
    ).host(Settings())
    waiting = host.start_workflow("long")
    since = datetime(2020, 1, 1, tzinfo=timezone.utc)
    going_on = host.start_workflow("logged", data={"key": "k", "since": since})
    wait_for("the first one runs", lambda: waiting in {line[0] for line in cluster.steps()}, 30)
    dev.send_signal(signal.SIGINT)
    (cluster.folder / "steps.go").touch()
    assert dev.wait(30) == 0
    assert "Traceback" not in cluster.log(dev)
    again = cluster.run("dev", "logged_workflows", store=False)
    cluster.ready(again)
    host.publish_event("go", "k")
    for one in (waiting, going_on):
        assert host.wait_for_workflow(one, timeout=60).status is WorkflowStatus.COMPLETE
    assert max(Counter((line[0], line[1]) for line in cluster.steps()).values()) == 1
    host.stop()


# --------------------------------------------------------------------------------------------- wiring


def test_queue_and_lock_follow_from_a_sql_store(url: str, prefix: str) -> None:
    host = Wiring(url, prefix=prefix).host(Settings())
    assert isinstance(host.persistence, SqlPersistenceProvider)
    assert isinstance(host.queue, SqlQueueProvider)
    assert isinstance(host.lock, SqlLockProvider)


def test_what_is_named_is_taken(postgres_url: str, redis_url: str, prefix: str) -> None:
    host = Wiring(postgres_url, lock=redis_url, prefix=prefix).host(Settings())
    assert isinstance(host.queue, SqlQueueProvider)
    assert type(host.lock).__name__ == "RedisLockProvider"


def test_other_stores_have_the_servers_that_they_had(mongo_url: str, prefix: str) -> None:
    host = Wiring(mongo_url, prefix=prefix).host(Settings())
    assert type(host.queue).__name__ == "RabbitMQQueueProvider"
    assert type(host.lock).__name__ == "RedisLockProvider"


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(SettingsError, match="--queue: no queue provider for kafka://"):
        Wiring("sqlite:///x.db", queue="kafka://host").host(Settings())


# -------------------------------------------------------------------------------------------- refusals


def refused(*arguments: str, **environment: str) -> str:
    """The one line that a worker ends with."""
    result = CliRunner().invoke(main, [*arguments], env=environment)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error")]
    assert "pa55w0rd" not in result.output
    return line


def worker(url: str) -> str:
    return refused("worker", "logged_workflows", "--store", url)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


@pytest.mark.usefixtures("importable")
def test_a_worker_says_in_one_line_why_it_can_not_use_a_database(
    postgres_url: str, mariadb_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "names no database" in worker("postgresql://me:pa55w0rd@host")
    away = f"postgresql://me:pa55w0rd@127.0.0.1:{free_port()}/x"
    assert "check host and port" in refused("list", "--store", away)  # a worker would wait for it
    assert "login was refused" in worker(postgres_url.replace("liteflow:liteflow", "liteflow:pa55w0rd", 1))
    assert "login was refused" in worker(mariadb_url.replace("root", "root:pa55w0rd", 1))
    assert "its folder exists" in worker(f"sqlite:////{tmp_path}/no/such/folder.db")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE USER {prefix} PASSWORD 'pa55w0rd'")
        try:
            denied = worker(postgres_url.replace("liteflow:liteflow", f"{prefix}:pa55w0rd", 1))
        finally:
            admin.execute(f"DROP USER {prefix}")
    assert "grant it SELECT, INSERT, UPDATE and DELETE" in denied
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'liteflow.core[postgres]'" in worker("postgresql://me:pa55w0rd@host/d")
