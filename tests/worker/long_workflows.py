"""Workflows with a step that takes long. Steps write down who ran them, and when, in the database."""

from __future__ import annotations

import os
import time
from typing import Any

import pymongo

from liteflow.core import StepExecutionContext, Workflow, WorkflowBuilder

SECONDS = float(os.environ.get("LONG_SECONDS", "10"))

_client: pymongo.MongoClient[dict[str, Any]] | None = None


def note(context: StepExecutionContext, what: str) -> None:
    global _client
    if _client is None:
        _client = pymongo.MongoClient(os.environ["AUDIT_URL"])
    audit = _client[os.environ["AUDIT_DATABASE"]]["audit"]
    audit.insert_one(
        {"workflow": context.workflow.id, "what": what, "process": os.getpid(), "time": time.time()}
    )


def long(context: StepExecutionContext) -> None:
    note(context, "long began")
    told = context.cancellation.wait(SECONDS)
    note(context, "long was told" if told else "long ended")


class Beside(Workflow):
    """A long step with a sibling branch, and one that waits for an event."""

    id = "beside"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.parallel()
            .do(lambda branch: branch.start_with(long).id("long"))
            .do(lambda branch: branch.start_with(lambda context: note(context, "sibling")).id("sibling"))
            .do(
                lambda branch: (
                    branch.wait_for("paid", lambda data: "k")
                    .id("paid")
                    .then(lambda context: note(context, "event"))
                    .id("charge")
                )
            )
            .join()
            .then(lambda context: note(context, "after"))
            .id("after")
        )


class Alone(Workflow):
    """Nothing but a long step."""

    id = "alone"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(long).id("long")
