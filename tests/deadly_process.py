"""A process that dies of a step: ``python -m deadly_process FILE LOG PLACE``.

It starts a workflow if there is none in the SQLite file yet, and ends well once that is suspended. The step
writes a line to LOG and kills the process. PLACE tells which step: ``first``, ``second``, a ``retry`` of the
first, the one after an ``event``; or an ``output`` of the wait for that, or a cancel ``condition``.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

from servers import wait_for

from liteflow.core import (
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowStatus,
    configure_workflow_host,
)
from liteflow.providers.sql import SqlPersistenceProvider


def main(file: str, log: str, place: str) -> None:
    def die(attempt: int = 1) -> bool:
        with open(log, "a") as ran:
            ran.write(f"{attempt}\n")
        os._exit(1)

    def kill(context: StepExecutionContext) -> None:
        if place == "retry" and context.attempt == 1:
            raise ValueError("not yet")
        die(context.attempt)

    class Deadly(Workflow):
        def build(self, builder: WorkflowBuilder) -> None:
            if place == "second":
                builder.start_with(lambda context: None).then(kill)
            elif place == "event":
                builder.start_with(lambda context: None).wait_for("go", "k").then(kill)
            elif place == "output":
                builder.start_with(lambda context: None).wait_for("go", "k").output("x", lambda step: die())
            elif place == "condition":
                builder.start_with(lambda context: None).delay(60).cancel_condition(lambda data: die())
            else:
                builder.start_with(kill).on_error(WorkflowErrorHandling.RETRY, timedelta(seconds=0.1))

    new = not Path(file).exists()
    options = {"lease_ttl": 0.5, "wake_grace": 0.5, "poll_interval": 0.1}
    with configure_workflow_host(SqlPersistenceProvider(f"sqlite:///{file}"), **options) as host:
        host.register_workflow(Deadly)
        instance_id = host.start_workflow("Deadly") if new else host.list_workflows().items[0].id
        if new and place in ("event", "output"):
            wait_for("it waits", lambda: host.get_workflow(instance_id).record.wake_at is None)
            host.publish_event("go", "k")
        found = host.wait_for_workflow(instance_id, timeout=60)
    assert found.status is WorkflowStatus.SUSPENDED, found.status
    print(found.reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
