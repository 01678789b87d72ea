"""Workflows for the tests of real worker processes. Steps write down that they ran, in the database."""

from __future__ import annotations

import os
import signal
from typing import Any

import pymongo

from liteflow.core import ExecutionResult, StepBody, StepExecutionContext, Workflow, WorkflowBuilder

_client: pymongo.MongoClient[dict[str, Any]] | None = None


def audit() -> Any:
    global _client
    if _client is None:
        _client = pymongo.MongoClient(os.environ["AUDIT_URL"])
    return _client[os.environ["AUDIT_DATABASE"]]["audit"]


class Record(StepBody):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        audit().insert_one(
            {
                "workflow": context.workflow.id,
                "step": context.step.id,
                "activation": context.idempotency_key,
                "item": context.item,
                "pointer": context.execution_pointer.id,
                "began": context.now.isoformat(),
            }
        )
        return ExecutionResult.next()


class Remind(Record):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        context.data.reminders = getattr(context.data, "reminders", 0) + 1
        return super().run(context)


class AuditedOrder(Workflow):
    id = "audited-order"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.start_with(Record)
            .id("reserve")
            .then(Record)
            .id("charge")
            .for_each(lambda data: data.lines)
            .do(lambda line: line.start_with(Record).id("pack"))
            .while_(lambda data: getattr(data, "reminders", 0) < 2)
            .do(lambda again: again.start_with(Remind).id("remind"))
            .delay(0.2)
            .then(Record)
            .id("close")
        )


class Poison(Workflow):
    """Its step takes the process along, unless that is a test's."""

    id = "poison"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: os.kill(os.getpid(), signal.SIGKILL)).id("kill")


EXPECTED_STEPS = {"reserve": 1, "charge": 1, "pack": 2, "remind": 2, "close": 1}
