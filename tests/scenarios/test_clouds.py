"""Two hosts on one SQLite file, with the queue and the lock of a cloud: on the emulators."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_providers import lock_on, queue_on
from servers import wait_for

from liteflow.core import (
    ExecutionResult,
    StepBody,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowStatus,
    configure_workflow_host,
)
from liteflow.providers.sql import SqlPersistenceProvider

WORKFLOWS = 8


class Runs:
    """Which step of which workflow has run, how often, on which host."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.steps: Counter[tuple[str, str]] = Counter()

    def note(self, workflow: str, step: str) -> None:
        with self._lock:
            self.steps[workflow, step] += 1


def workflow(runs: Runs) -> Workflow:
    def noted(name: str) -> type[StepBody]:
        class Note(StepBody):
            def run(self, context: StepExecutionContext) -> ExecutionResult:
                runs.note(context.workflow.id, name)
                return ExecutionResult.next()

        return Note

    class Order(Workflow):
        id = "order"

        def build(self, builder: WorkflowBuilder) -> None:
            (
                builder.start_with(noted("first")).id("first")
                .delay(1.0)
                .then(noted("second")).id("second")
                .wait_for("paid", lambda data, context: context.workflow.id)
                .then(noted("last")).id("last")
            )  # fmt: skip

    return Order()


@pytest.fixture(params=["azure", "aws"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def hosts(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, prefix: str, runs: Runs
) -> Iterator[list[WorkflowHost]]:
    connection = str(request.getfixturevalue("azure" if kind == "azure" else "aws_endpoint"))
    made = []
    for _ in range(2):
        store = SqlPersistenceProvider(f"sqlite:///{tmp_path}/store.db")
        queue, lock = queue_on(kind, connection, prefix), lock_on(kind, connection, prefix)
        host = configure_workflow_host(store, queue, lock, lease_ttl=15, poll_interval=1, concurrency=4)
        host.register_workflow(workflow(runs))
        host.start()
        made.append(host)
    yield made
    for host in made:
        host.stop()


def test_workflows_go_on_when_one_of_two_hosts_is_stopped(hosts: list[WorkflowHost], runs: Runs) -> None:
    stays, goes = hosts
    ids = [host.start_workflow("order") for host in hosts for _ in range(WORKFLOWS // 2)]
    wait_for("the second steps have run", lambda: sum(runs.steps[i, "second"] for i in ids) >= 2)
    assert goes.stop()
    for workflow_id in ids:
        stays.publish_event("paid", workflow_id)
    for workflow_id in ids:
        assert stays.wait_for_workflow(workflow_id, timeout=60).status is WorkflowStatus.COMPLETE
    assert runs.steps == Counter({(i, step): 1 for i in ids for step in ("first", "second", "last")})
