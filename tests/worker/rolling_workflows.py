"""Two versions of a workflow, as deployments have them. Steps write down which process ran them."""

from __future__ import annotations

import os
from typing import Any

from liteflow.core import Workflow, WorkflowBuilder


def note(context: Any) -> None:
    context.data.processes = [*getattr(context.data, "processes", []), os.getpid()]


class Order1(Workflow):
    id = "order"
    version = 1

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(note).id("reserve").delay(0.2).then(note).id("charge")


class Order2(Workflow):
    id = "order"
    version = 2

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(note).id("reserve").then(note).id("check").delay(0.2).then(note).id("charge")


class Waiting(Workflow):
    id = "waiting"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.wait_for("paid", "k").id("wait").then(note).id("charge")


class WaitingChanged(Workflow):
    id = "waiting"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.wait_for("paid", "k").id("wait").then(note).id("check").then(note).id("charge")


OLD = [Order1]
BOTH = [Order1, Order2]
WAITING = [Waiting]
CHANGED = [WaitingChanged]
