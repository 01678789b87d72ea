"""Steps as users write them: bodies, and the context that a body runs in."""

from __future__ import annotations

import abc
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from liteflow.core.definition import Step
from liteflow.core.result import ExecutionResult
from liteflow.core.views import ExecutionPointer, WorkflowInstance


class Cancellation:
    """Tells a running body that its work is not wanted any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def is_set(self) -> bool:
        """True once the body should stop: terminated, taken over by another process, or shut down."""
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Sleep that a cancellation ends early; returns `is_set()`."""
        return self._event.wait(seconds)

    def set(self) -> None:
        """Ask the body to stop. Called by LiteFlow."""
        self._event.set()


class StepExecutionContext:
    """What a body is told of the execution that it is part of.

    `attempt` counts the runs of this activation from 1. `idempotency_key` stays the same over re-runs
    of the same activation: hand it to systems that take one. `logger` adds instance, step and attempt
    to each line. `data` is the workflow's data; what a body changes in it is stored in its commit.
    """

    def __init__(
        self,
        workflow: WorkflowInstance,
        step: Step,
        pointer: ExecutionPointer,
        cancellation: Cancellation,
    ) -> None:
        self.workflow = workflow
        self.step = step
        self.execution_pointer = pointer
        self.cancellation = cancellation
        self.attempt = pointer.retry_count + 1
        self.error: str | None = None

    @property
    def data(self) -> Any:
        """The workflow's data."""
        return self.workflow.data

    @property
    def persistence_data(self) -> Any:
        """What this step gave to be kept when it ran last, or None."""
        return self.execution_pointer.persistence_data

    @property
    def item(self) -> Any:
        """The item of the enclosing for_each, or None."""
        return self.execution_pointer.context_item

    @property
    def idempotency_key(self) -> str:
        """Names this activation of the step, over all its re-runs."""
        return f"{self.workflow.id}:{self.execution_pointer.id}"

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines name the instance, the step and the attempt."""
        return _ContextLogger(
            logging.getLogger("liteflow.step"),
            {"workflow_id": self.workflow.id, "step_id": self.step.id, "attempt": self.attempt},
        )


class _ContextLogger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        extra = self.extra or {}
        prefix = f"[workflow {extra['workflow_id']} step {extra['step_id']} attempt {extra['attempt']}]"
        return f"{prefix} {msg}", {**kwargs, "extra": extra}


class StepBody(abc.ABC):
    """One step of a workflow. A new object is made for each execution; inputs are set as attributes."""

    @abc.abstractmethod
    def run(self, context: StepExecutionContext) -> ExecutionResult | None:
        """Do the work. None stands for `ExecutionResult.next()`."""


class FunctionBody(StepBody):
    """A step from a plain function: it takes the context; what isn't an ExecutionResult is `next()`."""

    def __init__(self, function: Callable[[StepExecutionContext], Any]) -> None:
        self.function = function

    def run(self, context: StepExecutionContext) -> Any:
        result = self.function(context)
        return _awaited(result) if inspect.isawaitable(result) else _as_result(result)


async def _awaited(result: Awaitable[Any]) -> ExecutionResult:
    return _as_result(await result)


def _as_result(value: Any) -> ExecutionResult:
    return value if isinstance(value, ExecutionResult) else ExecutionResult.next()
