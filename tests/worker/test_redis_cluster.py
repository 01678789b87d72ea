"""Worker and scheduler processes whose queue is Redis, over MongoDB and over PostgreSQL, with kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
import redis
from servers import RedisServer, wait_for

from liteflow.core import Settings, WorkflowHost, WorkflowStatus
from liteflow.core.room import Room
from liteflow.worker.wiring import Servers as Wiring

HERE = Path(__file__).parent
EXPECTED_STEPS = {"reserve": 1, "charge": 1, "pack": 2, "remind": 2, "close": 1}
ORDERS = 60


class Cluster:
    """Processes on one Redis, for queue and lock, and one store; steps note in MongoDB that they ran."""

    def __init__(self, store: str, redis_url: str, mongo_url: str, prefix: str, logs: Path) -> None:
        self.prefix = prefix
        self.logs = logs
        self.processes: list[subprocess.Popen[bytes]] = []
        self._mongo: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo_url)
        self.audit = self._mongo[f"audit_{prefix}"]["audit"]
        self.environment = {
            **os.environ,
            "LITEFLOW_STORE": store,
            "LITEFLOW_QUEUE": redis_url,
            "LITEFLOW_LOCK": redis_url,
            "LITEFLOW_PREFIX": prefix,
            "LITEFLOW_LEASE_TTL": "2",
            "LITEFLOW_POLL_INTERVAL": "1",
            "LITEFLOW_HEALTH_FILE": str(logs / "health"),
            "AUDIT_URL": mongo_url,
            "AUDIT_DATABASE": f"audit_{prefix}",
        }
        self.redis: Any = redis.Redis.from_url(redis_url, decode_responses=True)
        self.client: WorkflowHost = Wiring(store, redis_url, redis_url, prefix).host(Settings()).open()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a process; returns when it is ready."""
        log = self.logs / f"{len(self.processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "liteflow.worker", *arguments],
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=HERE,
            )
        self.processes.append(process)
        wait_for(f"{arguments} is ready", lambda: "ready" in log.read_text(), 30)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("worker", "cluster_workflows", "--shutdown-timeout", "5")

    def command(self, name: str, body: bytes, **fields: str) -> None:
        """Write a command, as any program that knows Redis would."""
        self.redis.xadd(f"{self.prefix}:commands", {"command": name, "body": body, **fields})

    def submit(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            body = {"workflow": "audited-order", "data": {"lines": [1, 2]}, "reference": f"o-{number}"}
            self.command("workflow.start", json.dumps(body).encode(), message_id=f"m-{number}")

    def complete(self) -> int:
        return len(self.client.list_workflows(status=WorkflowStatus.COMPLETE, limit=1000).items)

    def ran(self) -> int:
        return int(self.audit.count_documents({}))

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.client.stop()
        self.redis.close()
        self._mongo.close()


@pytest.fixture(params=["mongo_url", "postgres_url"])
def store(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def cluster(store: str, redis_url: str, mongo_url: str, prefix: str, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(store, redis_url, mongo_url, prefix, tmp_path)
    yield made
    made.close()


def test_orders_complete_though_workers_are_killed(cluster: Cluster) -> None:
    workers = [cluster.worker() for _ in range(3)]
    cluster.start("scheduler")
    for first in (0, ORDERS // 2):
        # New ones for each kill: the earlier ones may all complete while a worker starts.
        before = cluster.ran()
        cluster.submit(ORDERS // 2, first)
        wait_for("work goes on", lambda before=before: cluster.ran() > before + 20, 60)
        workers[0].kill()
        workers.pop(0).wait()
        workers.append(cluster.worker())
    wait_for("all are complete", lambda: cluster.complete() == ORDERS, 60)
    rows = list(cluster.audit.find())
    activations = {row["activation"]: row["step"] for row in rows}
    assert Counter(activations.values()) == {step: n * ORDERS for step, n in EXPECTED_STEPS.items()}
    # Only what a killed worker had in hand, uncommitted, may have run again.
    assert len(rows) - len(activations) <= 2 * Room(16, lambda instances: None).instances
    # Sessions of the dead and acknowledged messages leave nothing behind.
    queue = f"{cluster.prefix}:queue:workflows.audited-order.1"
    wait_for("the queue is empty", lambda: cluster.redis.xlen(queue) == 0, 20)


def test_commands_over_redis_are_answered_and_refusals_dead_lettered(
    mongo_url: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    cluster = Cluster(mongo_url, redis_url, mongo_url, prefix, tmp_path)
    try:
        cluster.worker()
        answers = f"{prefix}:replies:test"
        cluster.command(
            "workflow.start", b'{"workflow": "audited-order", "data": {"lines": []}}', reply_to=answers
        )
        wait_for("the answer", lambda: cluster.redis.xlen(answers) == 1, 20)
        answer = json.loads(cluster.redis.xrange(answers)[0][1]["body"])
        assert cluster.client.get_workflow(answer["id"]).workflow_definition_id == "audited-order"
        cluster.command("workflow.start", b"{not json")
        wait_for("the dead letter", lambda: cluster.redis.xlen(f"{prefix}:dead") == 1, 20)
        assert cluster.redis.xrange(f"{prefix}:dead")[0][1]["x-liteflow-error"] == "malformed"
    finally:
        cluster.close()


def test_orders_complete_though_redis_loses_everything(
    own_redis: RedisServer, mongo_url: str, prefix: str, tmp_path: Path
) -> None:
    cluster = Cluster(mongo_url, own_redis.url, mongo_url, prefix, tmp_path)
    try:
        cluster.worker()
        cluster.start("scheduler")
        cluster.submit(ORDERS)
        # All are stored: what was accepted is not lost. Commands still in Redis would be.
        wait_for("all are stored", lambda: len(cluster.client.list_workflows(limit=1000).items) == ORDERS, 30)
        cluster.redis.flushall()
        wait_for("all are complete", lambda: cluster.complete() == ORDERS, 60)
        rows = list(cluster.audit.find())
        assert len({row["activation"] for row in rows}) == ORDERS * sum(EXPECTED_STEPS.values())
    finally:
        cluster.close()
