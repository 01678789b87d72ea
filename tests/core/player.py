"""Runs a workflow on the pure engine alone: no host, no threads, time that jumps to what is due next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from liteflow.core import (
    Settings,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowStatus,
    codec,
    engine,
)
from liteflow.core.bodies import BodyRunner, Check, Job
from liteflow.core.engine import EngineOptions
from liteflow.core.inputs import EventsFound
from liteflow.core.models import Event, Instance, OutboxItem, Pointer, Request
from liteflow.core.retry import ErrorPolicy

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
OPTIONS = EngineOptions(on_error=ErrorPolicy(WorkflowErrorHandling.TERMINATE))


def build(function: Callable[[WorkflowBuilder], Any], **attributes: Any) -> Workflow:
    """A workflow from the function that chains its steps."""

    class Built(Workflow):
        id = "built"

        def build(self, builder: WorkflowBuilder) -> None:
            function(builder)

    for name, value in attributes.items():
        setattr(Built, name, value)
    return Built()


class Player:
    """One instance, a body and a commit at a time. `sent` is all that went through its outbox."""

    def __init__(
        self, workflow: Workflow, data: Any = None, options: EngineOptions = OPTIONS, **fields: Any
    ) -> None:
        self.definition = workflow.definition()
        self.options = options
        self.now = START
        self.bodies = BodyRunner(lambda: self.now, Settings())
        encoded = codec.encode_data(data)
        self.instance = Instance("i", self.definition.id, 1, START, data=encoded, begun=False, **fields)
        self.sent: list[OutboxItem] = []
        self.commit()

    def commit(self, *inputs: Any) -> None:
        """One transition, applied as the store would."""
        transition = engine.advance(
            self.instance, self.definition, self.now, inputs, lease_until=self.now, options=self.options
        )
        if transition is not None:
            transition.apply(self.instance)
            assert transition.after == self.instance, "holders would go on from something else"
            self.sent += self.instance.outbox
            self.instance.outbox = []

    def request(self, kind: str) -> None:
        """A control request, applied at once."""
        sequence = self.instance.inbox_sequence + 1
        self.instance.inbox = [Request(kind, kind, self.now, sequence=sequence)]
        self.instance.inbox_sequence = sequence
        self.commit()

    def event(self, name: str, key: str, data: Any = None, *, time: datetime | None = None) -> None:
        """An event, as found in the log."""
        number = f"e{self.instance.revision}"
        self.commit(EventsFound([Event(number, name, key, time or self.now, codec.encode(data))]))

    def run(self, *, until: datetime | None = None, most: int = 2_000) -> Instance:
        """Go on until nothing but an event or a request can move it, or time gets to `until`."""
        for _ in range(most):
            if self.instance.status is not WorkflowStatus.RUNNABLE:
                break
            held = engine.conditional(self.instance, self.definition)
            if held:
                self.commit(self.bodies.check(Check(self.instance.copy(), self.definition, held)))
            ready = engine.ready(self.instance, self.now)
            if ready:
                self.body(ready[0])
            elif self.instance.status is WorkflowStatus.RUNNABLE:
                due = engine.wake_at(self.instance, self.now, None)
                if due is None or (until is not None and due > until):
                    break
                self.now = max(self.now, due)
                self.commit()
        else:
            raise AssertionError("it does not end")
        if until is not None:
            self.now = max(self.now, until)
        return self.instance

    def body(self, pointer: Pointer) -> None:
        """Run one body, and commit what it did."""
        step = self.definition.by_id[pointer.step_id]
        self.commit(self.bodies.run(Job(self.instance.copy(), self.definition, step, pointer)))

    def after(self, seconds: float) -> datetime:
        """A time so many seconds after the instance began."""
        return START + timedelta(seconds=seconds)

    def steps(self, step_id: str) -> list[Pointer]:
        """The activations of a step."""
        return [pointer for pointer in self.instance.pointers.values() if pointer.step_id == step_id]


def play(workflow: Workflow, data: Any = None, **fields: Any) -> Instance:
    """Run a workflow as far as it goes by itself."""
    return Player(workflow, data, **fields).run()
