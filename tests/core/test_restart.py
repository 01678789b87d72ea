"""What one process leaves in a store that lasts, the next one takes up, though its queue was lost with it."""

from __future__ import annotations

import threading
from pathlib import Path

from scenarios.helpers import processed
from servers import wait_for

from liteflow.core import (
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowStatus,
    configure_workflow_host,
)
from liteflow.providers.sql import SqlPersistenceProvider


def test_who_was_woken_by_an_event_and_not_looked_at_is_not_forgotten(tmp_path: Path) -> None:
    busy, going = threading.Event(), threading.Event()

    class Waits(Workflow):
        id = "waits"

        def build(self, builder: WorkflowBuilder) -> None:
            def body(context: StepExecutionContext) -> None:
                busy.set()
                going.wait(30)

            begin = builder.start_with(lambda context: None)
            begin.wait_for("go", lambda data: data.key).then(body)

    def host() -> WorkflowHost:
        store = SqlPersistenceProvider(f"sqlite:///{tmp_path}/store.db")
        made = configure_workflow_host(store, concurrency=1, long_step=60, wake_grace=1)
        made.register_workflow(Waits)
        return made

    with host() as first:
        ids = [first.start_workflow("waits", data={"key": key}) for key in ("a", "b")]
        for one in ids:
            wait_for("it waits", lambda: first.get_workflow(one).record.waits(), 10)  # noqa: B023
            wait_for("it is left", lambda: first.get_workflow(one).record.wake_at is None, 10)  # noqa: B023
        first.publish_event("go", "a")
        assert busy.wait(10)
        event = first.publish_event("go", "b")  # its wake-up waits for the only slot
        wait_for("all is stored", lambda: processed(first.persistence, event), 10)
        runner = first._runner
        assert runner is not None
        runner._loop.post(going.set)
        runner._loop.post(runner._drain)  # it begins nothing more
    with host() as second:
        for one in ids:
            wait_for("it ends", lambda: second.get_workflow(one).status is WorkflowStatus.COMPLETE, 20)  # noqa: B023
