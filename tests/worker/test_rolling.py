"""Rolling deployments: workers with different versions share a cluster, and some versions have no worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Processes
from servers import wait_for

from liteflow.core import WorkflowStatus
from liteflow.core.models import Instance
from liteflow.core.presence import alive
from liteflow.core.providers import workflow_queue

HERE = Path(__file__).parent

INSTANCES = int(os.environ.get("LITEFLOW_TEST_ROLLING", "60"))
"""So many instances of each version run."""


class Deployment(Processes):
    def worker(self, name: str) -> subprocess.Popen[bytes]:
        arguments = ("worker", f"rolling_workflows:{name}", "--shutdown-timeout", "5")
        return self.run(*arguments, folder=HERE)

    def scheduler(self) -> subprocess.Popen[bytes]:
        return self.run("scheduler", folder=HERE)

    def command(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The exit code of a command, and the document that it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "liteflow.worker", *arguments, "--json"],
            env=self.environment,
            cwd=HERE,
            capture_output=True,
            timeout=60,
        )
        assert done.stdout, done.stderr.decode()
        return done.returncode, json.loads(done.stdout)

    def definition(self, workflow: str, version: int) -> dict[str, Any]:
        """What `liteflow definitions` says of one."""
        items = self.command("definitions")[1]["items"]
        (found,) = [one for one in items if (one["id"], one["version"]) == (workflow, version)]
        return dict(found)

    def stored(self, instance_id: str) -> Instance:
        found = self.client.persistence.load([instance_id])[instance_id]
        assert isinstance(found, Instance)
        return found

    def completes(self, instance_id: str, seconds: float = 10) -> None:
        """Soon: the poll interval and the times after which things count as lost are longer than that."""
        wait_for("it completes", lambda: self.stored(instance_id).status is WorkflowStatus.COMPLETE, seconds)


@pytest.fixture
def deployment(
    mongo_url: str, amqp_url: str, redis_url: str, prefix: str, tmp_path: Path
) -> Iterator[Deployment]:
    made = Deployment(mongo_url, amqp_url, redis_url, prefix, tmp_path)
    yield made
    made.close()


def test_each_worker_takes_only_what_it_can_run(deployment: Deployment) -> None:
    old = [deployment.worker("OLD") for _ in range(2)]
    new = [deployment.worker("BOTH") for _ in range(2)]
    deployment.ready(*old, *new, deployment.scheduler())
    ids = {
        version: [deployment.client.start_workflow("order", version) for _ in range(INSTANCES)]
        for version in (1, 2)
    }
    deployment.client.start_workflow("order")  # without a version: the newest
    total = 2 * INSTANCES + 1
    wait_for("all are complete", lambda: deployment.count(WorkflowStatus.COMPLETE) == total, 60 + total / 5)
    ran: dict[int, set[int]] = {
        version: {process for one in of for process in deployment.client.get_workflow(one).data.processes}
        for version, of in ids.items()
    }
    assert ran[2] <= {process.pid for process in new}
    assert ran[1] <= {process.pid for process in [*old, *new]}
    assert ran[1] & {process.pid for process in old}
    text = deployment.log_text()
    assert "parked" not in text
    assert "ERROR" not in text
    assert "Traceback" not in text
    assert deployment.definition("order", 1)["workers"] == 4
    assert deployment.definition("order", 2)["workers"] == 2


def test_what_nobody_can_run_waits_and_goes_on(deployment: Deployment) -> None:
    """Un-begun, and asleep: both without a worker from some time on."""
    new = deployment.worker("BOTH")
    deployment.ready(new, deployment.worker("OLD"), deployment.scheduler())
    asleep = deployment.client.start_workflow("order", 2)
    wait_for("it sleeps", lambda: deployment.stored(asleep).next_execution, 20)
    new.terminate()
    assert new.wait(20) == 0
    unbegun = deployment.client.start_workflow("order", 2)
    code, document = deployment.command("doctor")
    assert code == 2
    assert "open instances of order version 2 wait for a worker" in json.dumps(document)
    assert deployment.definition("order", 2)["waits_for_worker"]
    for one in (asleep, unbegun):
        wait_for("it is parked", lambda one=one: deployment.stored(one).parked, 30)
        assert deployment.stored(one).wake_at is None
    assert deployment.definition("order", 2)["parked"] == 2
    listed = deployment.command("list", "--parked")[1]["items"]
    assert {one["id"] for one in listed} == {asleep, unbegun}
    # No more than one message for each, that of the start and that of the timer, and nobody has tried them.
    assert deployment.client.queue.depth(workflow_queue("order", 2)) <= 2
    deployment.ready(deployment.worker("BOTH"))
    deployment.completes(asleep)
    deployment.completes(unbegun)
    assert not deployment.definition("order", 2)["waits_for_worker"]
    assert "no instance is parked" in json.dumps(deployment.command("doctor")[1])


def test_what_waits_for_an_event_takes_it_when_a_worker_comes(deployment: Deployment) -> None:
    worker = deployment.worker("WAITING")
    deployment.ready(worker, deployment.scheduler(), deployment.worker("OLD"))
    instance_id = deployment.client.start_workflow("waiting")
    wait_for("it waits", lambda: deployment.stored(instance_id).waits(), 20)
    worker.terminate()
    assert worker.wait(20) == 0
    before = deployment.stored(instance_id).revision
    deployment.client.publish_event("paid", "k")
    wait_for("it is parked", lambda: deployment.stored(instance_id).parked, 20)
    assert deployment.stored(instance_id).revision == before
    # The event's wake-up, and perhaps one of the scheduler's: nobody tries again and again.
    assert deployment.client.queue.depth(workflow_queue("waiting", 1)) <= 2
    deployment.ready(deployment.worker("WAITING"))
    deployment.completes(instance_id)


def test_a_changed_definition_is_left_to_the_right_worker(deployment: Deployment) -> None:
    worker = deployment.worker("WAITING")
    deployment.ready(worker, deployment.scheduler())
    instance_id = deployment.client.start_workflow("waiting")
    wait_for("it waits", lambda: deployment.stored(instance_id).waits(), 20)
    worker.terminate()
    assert worker.wait(20) == 0
    deployment.ready(deployment.worker("CHANGED"), deployment.worker("CHANGED"))
    deployment.client.publish_event("paid", "k")
    wait_for("it is parked", lambda: deployment.stored(instance_id).parked, 20)
    parked = deployment.stored(instance_id).parked
    assert parked is not None
    assert parked.reason == "the definition of waiting version 1 has changed since this instance began"
    assert parked.reason in json.dumps(deployment.command("doctor")[1]["parked"])
    # The wrong ones live on beside it, on the same queue.
    deployment.ready(deployment.worker("WAITING"))
    deployment.completes(instance_id)


def test_a_worker_that_was_killed_is_missed(deployment: Deployment) -> None:
    worker = deployment.worker("OLD")
    deployment.ready(worker, deployment.scheduler())
    wait_for("it is there", lambda: len(alive(deployment.client.persistence)) == 2, 20)
    worker.kill()
    worker.wait()
    wait_for("it is missed", lambda: len(alive(deployment.client.persistence)) == 1, 30)
    code, document = deployment.command("doctor")
    assert code == 2
    text = json.dumps(document["findings"])
    assert "no worker is alive" in text
    assert f"process {worker.pid} on" in text
    assert [one["alive"] for one in document["processes"] if one["pid"] == worker.pid] == [False]


def test_a_clean_end_is_no_death(deployment: Deployment) -> None:
    worker, scheduler = deployment.worker("OLD"), deployment.scheduler()
    deployment.ready(worker, scheduler)
    wait_for("both are there", lambda: len(alive(deployment.client.persistence)) == 2, 20)
    wait_for("one leads", lambda: any(one.leads for one in alive(deployment.client.persistence)), 20)
    for process in (worker, scheduler):
        process.terminate()
        assert process.wait(20) == 0
    assert deployment.client.persistence.processes() == []
