"""Steps as users write them: bodies, and the context that a body runs in."""

from __future__ import annotations

import abc
import functools
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from liteflow.core.definition import Step
from liteflow.core.errors import DefinitionError
from liteflow.core.models import Instance, Pointer
from liteflow.core.result import NEXT, ExecutionResult
from liteflow.core.views import ExecutionPointer, WorkflowInstance

_EVENTS = threading.Lock()
"""Guards the making of cancellations' events, which is seldom and short."""


class Cancellation:
    """Tells a running body that its work is not wanted any more."""

    # Every body gets one and few look at it: to begin with it has nothing of its own.
    _set = False
    _event: threading.Event | None = None  # made for who waits
    _callbacks: tuple[Callable[[], object], ...] = ()

    def is_set(self) -> bool:
        """True once the body should stop: terminated, taken over by another process, or shut down."""
        return self._set

    def wait(self, seconds: float | None = None) -> bool:
        """Sleep that a cancellation ends early; returns `is_set()`."""
        with _EVENTS:
            if self._event is None:
                self._event = threading.Event()
                if self._set:
                    self._event.set()
        return self._event.wait(seconds)

    def set(self) -> None:
        """Ask the body to stop. Called by LiteFlow."""
        with _EVENTS:
            self._set = True
            if self._event is not None:
                self._event.set()
        for callback in self._callbacks:
            callback()

    def on_set(self, callback: Callable[[], object]) -> None:
        """Call `callback` when it is set, or now if it is. For LiteFlow; may be called twice."""
        self._callbacks += (callback,)
        if self.is_set():
            callback()


class StepExecutionContext:
    """What a body is told of the execution that it is part of.

    `attempt` counts the runs of this activation from 1. `idempotency_key` stays the same over re-runs
    of the same activation: hand it to systems that take one. `logger` adds instance, step and attempt
    to each line. `data` is the workflow's data; what a body changes in it is stored in its commit.
    `error` is, in a compensation, what went wrong. `now` is when the body began, by the store's clock.
    """

    _workflow: WorkflowInstance | None = None
    _execution_pointer: ExecutionPointer | None = None

    def __init__(
        self,
        instance: Instance,
        data_type: type | None,
        step: Step,
        pointer: Pointer,
        cancellation: Cancellation,
        now: datetime,
    ) -> None:
        self._instance = instance
        self._data_type = data_type
        self._pointer = pointer
        self.step = step
        self.cancellation = cancellation
        self.attempt = pointer.retry_count + 1
        self.now = now

    @property
    def workflow(self) -> WorkflowInstance:
        """The instance as it was when the body began."""
        if self._workflow is None:  # not made before: many bodies look at neither instance nor data
            self._workflow = WorkflowInstance(self._instance, self._data_type)
        return self._workflow

    @property
    def execution_pointer(self) -> ExecutionPointer:
        """This activation of the step."""
        if self._execution_pointer is None:
            self._execution_pointer = ExecutionPointer(self._pointer)
        return self._execution_pointer

    @property
    def data_was_seen(self) -> bool:
        """True once somebody has looked at the data, so that it may have been changed. For LiteFlow."""
        return self._workflow is not None and "data" in vars(self._workflow)

    @property
    def error(self) -> str | None:
        """In a compensation: the error that is being compensated, as ``Type: message``."""
        pointers = self._instance.pointers
        for pointer_id in reversed(self._pointer.scope):
            if pointers[pointer_id].compensating:
                return pointers[pointer_id].error
        return None

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
        return f"{self._instance.id}:{self._pointer.id}"

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines name the instance, the step and the attempt."""
        return _ContextLogger(
            logging.getLogger("liteflow.step"),
            {"workflow_id": self._instance.id, "step_id": self.step.id, "attempt": self.attempt},
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
        if result is None:
            return NEXT
        return _awaited(result, _as_result) if inspect.isawaitable(result) else _as_result(result)


async def _awaited(value: Awaitable[Any], then: Callable[[Any], ExecutionResult]) -> ExecutionResult:
    return then(await value)


def _as_result(value: Any) -> ExecutionResult:
    return value if isinstance(value, ExecutionResult) else NEXT


class FunctionStep:
    """A function with `@step`: its parameters are the step's inputs, its return value is `step.result`.

    It can still be called as the function that it is. A parameter named `context` gets the context.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self.signature = inspect.signature(function)
        for parameter in self.signature.parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise DefinitionError(
                    f"step {self.__name__}: parameter {parameter.name!r} has no name for an input"
                )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def body(self) -> StepBody:
        """A new body for one execution."""
        return _FunctionStepBody(self)


class _FunctionStepBody(StepBody):
    result: Any = None

    def __init__(self, step: FunctionStep) -> None:
        self._step = step

    def run(self, context: StepExecutionContext) -> Any:
        value = self._step.function(**self._arguments(context))
        return _awaited(value, self._returned) if inspect.isawaitable(value) else self._returned(value)

    def _arguments(self, context: StepExecutionContext) -> dict[str, Any]:
        parameters = self._step.signature.parameters
        inputs = {name: value for name, value in vars(self).items() if name != "_step"}
        if "context" in parameters:
            inputs.setdefault("context", context)
        takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        unknown = [] if takes_more else [name for name in inputs if name not in parameters]
        if unknown:
            raise TypeError(f"step {self._step.__name__} has no parameter {unknown[0]!r}")
        missing = [
            p.name
            for p in parameters.values()
            if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in inputs
        ]
        if missing:
            raise TypeError(f"step {self._step.__name__} has no input for its parameter {missing[0]!r}")
        return inputs

    def _returned(self, value: Any) -> ExecutionResult:
        if isinstance(value, ExecutionResult):
            return value
        self.result = value
        return ExecutionResult.next()


def step(function: Callable[..., Any]) -> FunctionStep:
    """Make a function a step of its own: ``.then(add).input("a", 1).output("total", lambda s: s.result)``."""
    return FunctionStep(function)
