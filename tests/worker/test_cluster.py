"""Real worker and scheduler processes on real servers, with AMQP from outside, and with kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pika
import pymongo
import pytest
from cluster import Processes
from servers import MongoServer, wait_for

from liteflow.core import WorkflowStatus
from liteflow.core.room import Room

HERE = Path(__file__).parent
EXPECTED_STEPS = {"reserve": 1, "charge": 1, "pack": 2, "remind": 2, "close": 1}

ORDERS = int(os.environ.get("LITEFLOW_TEST_ORDERS", "80"))
"""So many orders run while workers are killed; one kill for every 100 of them, at least three."""


class Cluster(Processes):
    def __init__(self, mongo_url: str, amqp_url: str, redis_url: str, prefix: str, logs: Path) -> None:
        super().__init__(mongo_url, amqp_url, redis_url, prefix, logs)
        self.audit: Any = pymongo.MongoClient(mongo_url)[f"audit_{prefix}"]["audit"]
        self.environment |= {"AUDIT_URL": mongo_url, "AUDIT_DATABASE": f"audit_{prefix}"}
        self.amqp = pika.BlockingConnection(pika.URLParameters(amqp_url))
        self.channel = self.amqp.channel()

    def worker(self) -> subprocess.Popen[bytes]:
        return self.run("worker", "cluster_workflows", "--shutdown-timeout", "5", folder=HERE)

    def scheduler(self) -> subprocess.Popen[bytes]:
        return self.run("scheduler", folder=HERE)

    def submit(self, count: int) -> None:
        for number in range(count):
            body = {"workflow": "audited-order", "data": {"lines": [1, 2]}, "reference": f"o-{number}"}
            self.channel.basic_publish(
                self.wiring.prefix,
                "workflow.start",
                json.dumps(body).encode(),
                pika.BasicProperties(message_id=f"m-{number}", content_type="application/json"),
            )

    def ask(self, routing_key: str, body: bytes, **properties: Any) -> dict[str, Any]:
        """Send a command and return the answer."""
        answers: list[bytes] = []
        queue = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.basic_consume(queue, lambda ch, m, p, b: answers.append(b), auto_ack=True)
        self.channel.basic_publish(
            self.wiring.prefix,
            routing_key,
            body,
            pika.BasicProperties(reply_to=queue, correlation_id="c", **properties),
        )

        def answered() -> bool:
            self.amqp.process_data_events(0.05)
            return bool(answers)

        wait_for("an answer", answered, 20)
        result: dict[str, Any] = json.loads(answers[0])
        return result

    def close(self) -> None:
        super().close()
        self.amqp.close()


@pytest.fixture
def cluster(mongo_url: str, amqp_url: str, redis_url: str, prefix: str, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(mongo_url, amqp_url, redis_url, prefix, tmp_path)
    yield made
    made.close()


def test_orders_over_amqp_complete_and_each_step_runs_once(cluster: Cluster) -> None:
    workers = [cluster.worker() for _ in range(2)]
    cluster.ready(*workers, cluster.scheduler())
    cluster.submit(60)
    wait_for("all are complete", lambda: cluster.count(WorkflowStatus.COMPLETE) == 60, 60)
    rows = list(cluster.audit.find())
    assert Counter(row["step"] for row in rows) == {k: v * 60 for k, v in EXPECTED_STEPS.items()}
    assert len({row["activation"] for row in rows}) == len(rows)


def test_killed_workers_lose_nothing_and_redo_nothing_that_was_committed(cluster: Cluster) -> None:
    workers = [cluster.worker() for _ in range(3)]
    cluster.ready(*workers, cluster.scheduler())
    cluster.submit(ORDERS)
    kills = max(3, ORDERS // 100)
    for _ in range(kills):
        before = cluster.audit.count_documents({})
        more = min(20, ORDERS * 3 // kills)
        wait_for(
            "work goes on",
            lambda before=before, more=more: cluster.audit.count_documents({}) > before + more,
            30,
        )
        victim = workers.pop(0)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        workers.append(cluster.worker())
    wait_for("all are complete", lambda: not left(cluster), 150)
    rows = list(cluster.audit.find())
    activations = {row["activation"] for row in rows}
    assert len(activations) == ORDERS * sum(EXPECTED_STEPS.values())
    # Only what ran in a killed worker, uncommitted, may run again: what it had in hand, for each kill.
    assert len(rows) - len(activations) <= kills * Room(16, lambda instances: None).instances
    # No run began after its step's end was stored: an end is stored once, so a later run would show.
    ends = {
        (instance_id, pointer.id): pointer.end_time
        for instance_id in {row["workflow"] for row in rows}
        for pointer in cluster.client.get_workflow(instance_id).execution_pointers
    }
    for row in rows:
        ended = ends[row["workflow"], row["pointer"]]
        assert ended is not None
        assert datetime.fromisoformat(row["began"]) <= ended, f"{row} began after its end was stored"


def left(cluster: Cluster) -> list[str]:
    """What is not complete. Fails with what is known of it, so that who waits in vain learns that, too."""
    found = cluster.client.list_workflows(limit=1000).items
    open_ones = [one.id for one in found if one.status is not WorkflowStatus.COMPLETE]
    records = [cluster.client.get_workflow(one).record for one in open_ones]
    told = [f"{r.id} {r.status.name} {r.reason}, crashes {r.crashes}, due {r.wake_at}" for r in records]
    assert len(found) == ORDERS and not told, "; ".join(told[:5])
    return told


def test_sigterm_drains_and_hands_over(cluster: Cluster) -> None:
    first = cluster.worker()
    cluster.ready(first, cluster.scheduler())
    cluster.submit(30)
    wait_for("work has begun", lambda: cluster.audit.count_documents({}) > 5, 30)
    first.terminate()
    assert first.wait(20) == 0
    cluster.ready(cluster.worker())
    wait_for("all are complete", lambda: cluster.count(WorkflowStatus.COMPLETE) == 30, 60)
    rows = list(cluster.audit.find())
    assert len({row["activation"] for row in rows}) == len(rows)


def test_commands_are_answered_and_refusals_are_dead_lettered(cluster: Cluster) -> None:
    worker = cluster.worker()
    cluster.ready(worker)
    start = json.dumps({"workflow": "audited-order", "data": {"lines": []}}).encode()
    message_id = uuid.uuid4().hex
    first = cluster.ask("workflow.start", start, message_id=message_id)
    assert first == cluster.ask("workflow.start", start, message_id=message_id)
    assert cluster.client.get_workflow(first["id"]).workflow_definition_id == "audited-order"
    bad: list[tuple[str, bytes, dict[str, Any], str]] = [
        ("workflow.start", b"{not json", {}, "malformed"),
        ("workflow.start", b'{"data": {}}', {}, "missing_field"),
        ("workflow.start", b'{"workflow": "nobody"}', {}, "unknown_workflow"),
        ("workflow.start", b'{"workflow": "x", "data": "' + b"y" * 5_000_000 + b'"}', {}, "too_large"),
        ("workflow.start", start, {"content_type": "text/xml"}, "content_type"),
        ("event.publish", b'{"name": "\xff", "key": "k"}', {}, "malformed"),
        ("workflow.suspend", b'{"id": "nobody"}', {}, "not_found"),
    ]
    dead = f"{cluster.wiring.prefix}.dead"
    for routing_key, body, properties, code in bad:
        answer = cluster.ask(routing_key, body, **properties)
        assert answer["error"] == code
        assert answer["reason"]
        found: list[Any] = []

        def refused(found: list[Any] = found) -> bool:
            found[:] = cluster.channel.basic_get(dead, auto_ack=True)
            return found[0] is not None

        wait_for("the dead letter", refused, 10)
        assert found[1].headers["x-liteflow-error"] == code
        assert found[1].headers["x-liteflow-routing-key"] == routing_key
        assert found[2] == body
    assert worker.poll() is None
    assert "id" in cluster.ask("workflow.start", start)


def test_a_sleep_is_kept_over_a_restart_of_everything(cluster: Cluster) -> None:
    worker, scheduler = cluster.worker(), cluster.scheduler()
    cluster.ready(worker, scheduler)
    cluster.submit(5)
    wait_for("all sleep or are done", lambda: cluster.audit.count_documents({"step": "remind"}) == 10, 30)
    for process in (worker, scheduler):
        process.kill()
        process.wait()
    cluster.ready(cluster.worker(), cluster.scheduler())
    wait_for("all are complete", lambda: cluster.count(WorkflowStatus.COMPLETE) == 5, 30)


def test_lifecycle_events_are_published_in_order(cluster: Cluster) -> None:
    queue = cluster.channel.queue_declare("", exclusive=True).method.queue
    heard: list[tuple[str, dict[str, Any]]] = []
    cluster.ready(cluster.worker(), cluster.scheduler())
    cluster.channel.queue_bind(queue, f"{cluster.wiring.prefix}.lifecycle", "audited-order.1.#")
    cluster.channel.basic_consume(
        queue, lambda ch, m, p, b: heard.append((m.routing_key, json.loads(b))), auto_ack=True
    )
    cluster.submit(1)

    def completed() -> bool:
        cluster.amqp.process_data_events(0.05)
        return any(key.endswith(".completed") for key, _ in heard)

    wait_for("the end is told", completed, 30)
    kinds = [key.removeprefix("audited-order.1.") for key, _ in heard]
    assert (kinds[0], kinds[-1]) == ("started", "completed")
    assert kinds.count("completed") == 1
    sequences = [body["sequence"] for _, body in heard]
    assert sequences == sorted(set(sequences))
    ended = [body["step"] for key, body in heard if key.endswith(".step_completed")]
    assert Counter(ended) == {**EXPECTED_STEPS, **{"for_each:pack": 1, "while:remind": 1, "delay": 1}}
    assert {body["reference"] for _, body in heard} == {"o-0"}


def test_a_step_that_kills_its_process_is_suspended_and_the_others_complete(cluster: Cluster) -> None:
    worker = cluster.worker()
    cluster.ready(worker, cluster.scheduler())
    # It may take its process along before the command is acknowledged: without an id there would be two.
    poison = cluster.ask("workflow.start", b'{"workflow": "poison"}', message_id="poison")["id"]
    cluster.submit(10)
    deaths = 0

    def suspended() -> bool:
        nonlocal worker, deaths
        if worker.poll() is not None:
            deaths += 1
            worker = cluster.worker()
        return cluster.client.get_workflow(poison).status is WorkflowStatus.SUSPENDED

    wait_for("it is suspended", suspended, 60)
    assert deaths == 3
    assert cluster.client.get_workflow(poison).reason == (
        "poison: the process that ran step kill died 3 times in a row"
    )
    wait_for("the others are complete", lambda: cluster.count(WorkflowStatus.COMPLETE) == 10, 60)


def test_processes_that_begin_before_their_servers_wait_for_them(cluster: Cluster) -> None:
    server = MongoServer()
    try:
        cluster.environment["LITEFLOW_STORE"] = f"{server.url}?serverSelectionTimeoutMS=100"
        processes = [cluster.worker(), cluster.scheduler(), cluster.worker(), cluster.scheduler()]
        for process in processes:
            log: Path = process.log  # type: ignore[attr-defined]
            wait_for("it waits", lambda log=log: "can't begin yet" in log.read_text(), 30)
        for process in processes[2:]:
            process.terminate()
            assert process.wait(20) == 0
        del processes[2:]
        server.start()
        cluster.ready(*processes)
    finally:
        server.close()


def test_secrets_stay_out_of_the_logs(cluster: Cluster) -> None:
    cluster.environment["LITEFLOW_QUEUE"] = cluster.environment["LITEFLOW_QUEUE"].replace(
        "guest:guest", "guest:s3cret-word"
    )
    process = cluster.run("worker", "cluster_workflows", folder=HERE)
    assert process.wait(60) != 0
    text = cluster.log_text()
    assert "s3cret-word" not in text
    assert "Traceback" not in text
