"""A process with a host on one SQLite file and the queue and lock of a cloud, until it is killed.

``python -m cloud_host azure|aws CONNECTION PREFIX STORE LOG``; each step that begins is a line of LOG.
"""

from __future__ import annotations

import os
import sys
import threading
from datetime import datetime, timezone

from cloud_providers import lock_on, queue_on

from liteflow.core import (
    ExecutionResult,
    StepBody,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    configure_workflow_host,
)
from liteflow.providers.sql import SqlPersistenceProvider

EARLY = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""An event may come before the wait for it."""

STEPS = ("first", "second", "last")


def workflow(log: str) -> Workflow:
    """Three steps; between them a timer and an event."""

    def noted(name: str) -> type[StepBody]:
        class Note(StepBody):
            def run(self, context: StepExecutionContext) -> ExecutionResult:
                with open(log, "a") as lines:  # appended in one write
                    lines.write(f"{context.workflow.id} {name} {os.getpid()}\n")
                return ExecutionResult.next()

        return Note

    class Order(Workflow):
        id = "order"

        def build(self, builder: WorkflowBuilder) -> None:
            (
                builder.start_with(noted("first")).id("first")
                .delay(1.0)
                .then(noted("second")).id("second")
                .wait_for("paid", lambda data, context: context.workflow.id, EARLY)
                .then(noted("last")).id("last")
            )  # fmt: skip

    return Order()


def host_on(kind: str, connection: str, prefix: str, store: str, log: str) -> WorkflowHost:
    """A host that is not started, and knows the workflow."""
    host = configure_workflow_host(
        SqlPersistenceProvider(f"sqlite:///{store}"),
        queue_on(kind, connection, prefix, visibility_timeout=5),
        lock_on(kind, connection, prefix),
        lease_ttl=15 if kind == "azure" else 3,
        poll_interval=1,
        concurrency=4,
    )
    host.register_workflow(workflow(log))
    return host


if __name__ == "__main__":
    host_on(*sys.argv[1:]).start()
    print("ready", flush=True)
    threading.Event().wait()
