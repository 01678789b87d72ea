"""Steps that take longer than leases and the broker's patience, on real processes."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pymongo
import pytest
from cluster import Processes
from servers import RabbitServer, wait_for

from liteflow.core import WorkflowStatus

HERE = Path(__file__).parent

SECONDS = float(os.environ.get("LITEFLOW_TEST_LONG", "10"))
"""How long the step takes. The broker's patience is a sixth of it, and a lease a twelfth."""


class Patience(RabbitServer):
    """A broker that closes the channel of who holds a message for too long, and looks for them often."""

    settings = {"consumer_timeout": int(SECONDS * 1000 / 6), "channel_tick_interval": 500}


@pytest.fixture(scope="module")
def impatient() -> Iterator[RabbitServer]:
    server = Patience()
    server.start()
    yield server
    server.close()


class Cluster(Processes):
    def __init__(self, mongo_url: str, amqp_url: str, redis_url: str, prefix: str, logs: Path) -> None:
        super().__init__(mongo_url, amqp_url, redis_url, prefix, logs)
        self.audit: Any = pymongo.MongoClient(mongo_url)[f"audit_{prefix}"]["audit"]
        self.environment |= {
            "AUDIT_URL": mongo_url,
            "AUDIT_DATABASE": f"audit_{prefix}",
            "LITEFLOW_LEASE_TTL": f"{SECONDS / 12}",
            "LONG_SECONDS": str(SECONDS),
        }

    def worker(self) -> subprocess.Popen[bytes]:
        """One slot: whoever runs a long step runs nothing else."""
        return self.run("worker", "long_workflows", "--concurrency", "1", folder=HERE)

    def happened(self, what: str) -> list[dict[str, Any]]:
        return list(self.audit.find({"what": what}))


@pytest.fixture
def cluster(
    mongo_url: str, impatient: RabbitServer, redis_url: str, prefix: str, tmp_path: Path
) -> Iterator[Cluster]:
    made = Cluster(mongo_url, impatient.url, redis_url, prefix, tmp_path)
    workers = [made.worker() for _ in range(2)]
    made.ready(*workers, made.run("scheduler", folder=HERE))
    yield made
    made.close()


def test_the_broker_closes_the_channel_of_who_holds_a_message_for_that_long(impatient: RabbitServer) -> None:
    """Else the others would show nothing."""
    with pika.BlockingConnection(pika.URLParameters(impatient.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("held", durable=True)
        channel.basic_publish("", "held", b"x")
        channel.basic_consume("held", lambda *_: None)
        wait_for("it is closed", lambda: connection.process_data_events(0.1) or channel.is_closed, 60)


def test_a_step_runs_once_to_its_end_and_all_beside_it_goes_on(cluster: Cluster) -> None:
    instance_id = cluster.client.start_workflow("beside")
    wait_for(
        "the sibling has run", lambda: cluster.happened("long began") and cluster.happened("sibling"), 30
    )
    client = cluster.client
    wait_for("the event is waited for", lambda: client.get_workflow(instance_id).record.waits(), 30)
    client.publish_event("paid", "k")
    wait_for("the event is taken", lambda: cluster.happened("event"), 30)
    (began,) = cluster.happened("long began")
    assert not cluster.happened("long ended")
    assert cluster.happened("sibling")[0]["process"] != began["process"]
    wait_for(
        "it is complete",
        lambda: client.get_workflow(instance_id).status is WorkflowStatus.COMPLETE,
        SECONDS + 30,
    )
    expected = ["long began", "long ended", "sibling", "event", "after"]
    assert Counter(one["what"] for one in cluster.audit.find()) == Counter(expected)
    text = cluster.log_text()
    assert "WARNING" not in text
    assert "ERROR" not in text


def test_terminate_reaches_the_body_in_another_process(cluster: Cluster) -> None:
    instance_id = cluster.client.start_workflow("alone")
    wait_for("it has begun", lambda: cluster.happened("long began"), 30)
    assert cluster.client.terminate_workflow(instance_id, "enough")
    wait_for("the body is told", lambda: cluster.happened("long was told"), SECONDS)
    wait_for(
        "it is terminated",
        lambda: cluster.client.get_workflow(instance_id).status is WorkflowStatus.TERMINATED,
        30,
    )
    assert not cluster.happened("long ended")


def test_a_dead_worker_s_long_step_is_taken_over(cluster: Cluster) -> None:
    instance_id = cluster.client.start_workflow("alone")
    wait_for("it has begun", lambda: cluster.happened("long began"), 30)
    (began,) = cluster.happened("long began")
    (victim,) = [process for process in cluster.processes if process.pid == began["process"]]
    claimed = cluster.client.persistence
    wait_for("it is claimed", lambda: claimed.load([instance_id])[instance_id].claims, 30)
    victim.kill()
    wait_for("another has begun it", lambda: len(cluster.happened("long began")) == 2, SECONDS)
    assert {one["process"] for one in cluster.happened("long began")} > {victim.pid}
    assert cluster.client.terminate_workflow(instance_id, "seen enough")
    wait_for("the body is told", lambda: cluster.happened("long was told"), SECONDS)
