"""What an application hangs into its host: middleware, callbacks, and how its step objects are made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal

from liteflow.core.steps import StepBody, StepExecutionContext
from liteflow.core.views import WorkflowInstance

log = logging.getLogger("liteflow.hooks")

Phase = Literal["pre", "post", "execute"]

StepMiddleware = Callable[[StepExecutionContext, StepBody, Callable[[], Any]], Any]
"""``(context, body, next)``; ``next()`` gives the result, and what it returns is taken as the result."""

WorkflowMiddleware = Callable[[WorkflowInstance, Callable[[], None]], Any]
"""``(instance, next)``."""

StepFactory = Callable[[type[StepBody], StepExecutionContext], StepBody]
"""Makes the object of a user's step class for one execution."""


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """Something that has happened to an instance, told after it was stored.

    `kind` is started, suspended, resumed, completed, terminated, error, step_started or step_completed.
    `sequence` numbers the messages of an instance, upwards; an event that is told twice, because a process
    died, has the same number both times.
    """

    kind: str
    workflow_id: str
    workflow_definition_id: str
    version: int
    reference: str | None
    time: datetime
    sequence: int
    step_id: str | None = None
    error: str | None = None
    reason: str | None = None


@dataclass
class Hooks:
    """All that one host was given. Filled while it is set up, read by its threads."""

    step_factory: StepFactory | None = None
    step_middleware: list[StepMiddleware] = field(default_factory=list)
    workflow_middleware: dict[Phase, list[WorkflowMiddleware]] = field(
        default_factory=lambda: {"pre": [], "post": [], "execute": []}
    )
    on_lifecycle_event: list[Callable[[LifecycleEvent], Any]] = field(default_factory=list)
    on_step_error: list[Callable[[WorkflowInstance, Any, BaseException], Any]] = field(default_factory=list)

    def run_step(self, context: StepExecutionContext, body: StepBody, run: Callable[[], Any]) -> Any:
        """Run a body inside the step middleware, the first registered outermost."""
        call = run
        for middleware in reversed(self.step_middleware):
            call = partial(middleware, context, body, call)
        return call()

    def run_workflow(self, phase: Phase, instance: WorkflowInstance) -> None:
        """Run the workflow middleware of a phase. What it raises is the caller's to deal with."""
        call: Callable[[], None] = lambda: None  # noqa: E731
        for middleware in reversed(self.workflow_middleware[phase]):
            call = partial(middleware, instance, call)
        call()

    def observe(self, phase: Phase, instance: WorkflowInstance) -> None:
        """The same for phases that can't refuse anything: what is raised is logged."""
        if self.workflow_middleware[phase]:
            try:
                self.run_workflow(phase, instance)
            except Exception:
                log.exception("workflow %s: the %s middleware failed", instance.id, phase)

    def tell(self, event: LifecycleEvent) -> None:
        """Call the lifecycle callbacks; one that raises does not keep the others from it."""
        for callback in self.on_lifecycle_event:
            try:
                callback(event)
            except Exception:
                log.exception("workflow %s: a lifecycle callback failed", event.workflow_id)

    def step_failed(self, instance: WorkflowInstance, step: Any, error: BaseException) -> None:
        """Call the callbacks for failing steps."""
        for callback in self.on_step_error:
            try:
                callback(instance, step, error)
            except Exception:
                log.exception("workflow %s: a callback for failing steps failed", instance.id)
