"""What scenario tests share: workflows from a function, steps that leave a trace, and waiting for a state."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from servers import wait_for

from liteflow.core import (
    ExecutionPointer,
    ExecutionResult,
    PointerStatus,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowInstance,
    WorkflowStatus,
)
from liteflow.core.providers import Delivery, PersistenceProvider, QueueProvider

Hosts = Callable[..., WorkflowHost]
Step = Callable[[StepExecutionContext], Any]
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)


def workflow(build: Callable[[WorkflowBuilder], Any], name: str = "scenario", **attributes: Any) -> Workflow:
    """A workflow whose `build` is this function; `attributes` are those of its class."""

    def build_it(self: Workflow, builder: WorkflowBuilder) -> None:
        build(builder)

    return type("Scenario", (Workflow,), {"id": name, "build": build_it, **attributes})()  # type: ignore[no-any-return]


def note(log: list[Any], value: Any) -> Step:
    """A step that adds `value` to the log, or what it returns for the context."""
    return lambda context: log.append(value(context) if callable(value) else value)


def nothing(context: StepExecutionContext) -> None:
    """A step that does nothing."""


def outcome(value: Any) -> Step:
    """A step that ends with this outcome."""
    return lambda context: ExecutionResult.outcome(value)


def fail(context: StepExecutionContext) -> None:
    """A step that fails."""
    raise RuntimeError("boom")


def failing(log: list[Any], value: Any, times: int = 1_000_000) -> Step:
    """A step that adds `value` to the log, and fails as long as it is there no more than `times` times."""

    def step(context: StepExecutionContext) -> None:
        log.append(value)
        if log.count(value) <= times:
            raise RuntimeError("boom")

    return step


def fails_on_demand(log: list[str], name: str) -> Step:
    """A step that notes that it begins, fails if the data says so, and else notes that it ends."""

    def step(context: StepExecutionContext) -> None:
        log.append(f"{name} begins")
        if context.data.fail:
            raise RuntimeError("boom")
        log.append(f"{name} ends")

    return step


class Gate:
    """A step, `gate.run`, that tells that it has begun and goes on once the test opens the gate.

    `told` is set if its cancellation token ended it instead.
    """

    def __init__(self) -> None:
        self.begun, self.opened, self.told, self.left = (threading.Event() for _ in range(4))
        self.runs = 0

    def run(self, context: StepExecutionContext) -> None:
        self.runs += 1
        self.begun.set()
        for _ in range(2000):
            if self.opened.is_set():
                break
            if context.cancellation.wait(0.01):
                self.told.set()
                break
        self.left.set()


class Peak:
    """Counts how many bodies run at a time, and the most there ever were."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self.now -= 1


def come_back(queue: QueueProvider, name: str) -> None:
    """Have the next message of a queue come back, as it does when who had it has died."""
    given_back: list[Delivery] = []

    def give_back(delivery: Delivery) -> None:
        consumer.limit(0)
        delivery.nack()
        given_back.append(delivery)

    consumer = queue.consume([name], 1, give_back)
    wait_for("it was given back", lambda: given_back, 10)
    consumer.cancel()


def processed(store: PersistenceProvider, event_id: str) -> bool:
    """Has somebody seen to it that all who wait for the event are woken?"""
    event = store.event(event_id)
    return event is not None and event.processed is not None


def start(host: WorkflowHost, data: Any = None, name: str = "scenario") -> str:
    """Start an instance."""
    return host.start_workflow(name, data=data)


def run(host: WorkflowHost, data: Any = None, name: str = "scenario") -> WorkflowInstance:
    """Start an instance and see it complete."""
    return finish(host, start(host, data, name))


def finish(host: WorkflowHost, instance_id: str, seconds: float = 20) -> WorkflowInstance:
    """The instance, once it is complete."""
    instance = host.wait_for_workflow(instance_id, seconds)
    assert instance.status is WorkflowStatus.COMPLETE, (instance.status, instance.reason)
    return instance


def until(
    host: WorkflowHost, instance_id: str, status: WorkflowStatus, seconds: float = 20
) -> WorkflowInstance:
    """The instance, once it has this status; unlike `finish` after a resume, which may still be under way."""
    wait_for(f"it is {status.name}", lambda: host.get_workflow(instance_id).status is status, seconds)
    return host.get_workflow(instance_id)


def waiting(host: WorkflowHost, instance_id: str, name: str | None = None, count: int = 1) -> bool:
    """True if so many waits (for events of this name) of the instance are stored."""
    waits = host.get_workflow(instance_id).record.waits()
    return len([wait for wait in waits if name in (None, wait.name)]) >= count


def until_waiting(host: WorkflowHost, instance_id: str, name: str | None = None, count: int = 1) -> None:
    """Block until the waits are stored."""
    wait_for(f"it waits for {name or 'an event'}", lambda: waiting(host, instance_id, name, count), 20)


def pointers(host: WorkflowHost, instance_id: str, step_id: str) -> list[ExecutionPointer]:
    """The activations of a step, in order of their creation."""
    return [p for p in host.get_workflow(instance_id).execution_pointers if p.step_id == step_id]


def pointer_is(host: WorkflowHost, instance_id: str, step_id: str, status: PointerStatus) -> bool:
    """True if the step was activated and its last activation has this status."""
    found = pointers(host, instance_id, step_id)
    return bool(found) and found[-1].status is status


def errors(host: WorkflowHost, instance_id: str) -> list[tuple[str, str]]:
    """Type and message of each kept error."""
    return [(error.type, error.message) for error in host.get_errors(instance_id)]
