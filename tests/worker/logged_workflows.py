"""Workflows for tests of processes that have nothing but a SQL database: steps add a line to a file."""

from __future__ import annotations

import os

from liteflow.core import StepExecutionContext, Workflow, WorkflowBuilder

STEPS = 8
"""Steps that write a line, in each instance."""


def work(context: StepExecutionContext) -> None:
    line = f"{context.workflow.id} {context.execution_pointer.id} {os.getpid()}\n"
    log = os.open(os.environ["STEP_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, line.encode())
    os.close(log)


class Logged(Workflow):
    """Steps one after another, side by side, after a timer and after an event."""

    id = "logged"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.start_with(work)
            .then(work)
            .for_each(lambda data: [1, 2, 3])
            .do(lambda item: item.start_with(work))
            .delay(0.1)
            .then(work)
            .wait_for("go", lambda data: data.key, effective_date=lambda data: data.since)
            .then(work)
            .then(work)
        )


class Long(Workflow):
    """One step that ends when a file is there."""

    id = "long"

    def build(self, builder: WorkflowBuilder) -> None:
        def wait(context: StepExecutionContext) -> None:
            work(context)
            while not os.path.exists(os.environ["STEP_LOG"] + ".go") and not context.cancellation.wait(0.02):
                pass

        builder.start_with(wait)
