"""The fluent builder: how users write workflows down.

A `Plan` collects the steps of one definition; builders add to it. `WorkflowBuilder` begins a chain (of
the workflow or of a block), `StepBuilder` goes on from a step, `BlockBuilder` wants the block of a
container. All three verbs' meanings are in the docs; `Plan.finish` validates and makes it immutable.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from liteflow.core.codec import set_path
from liteflow.core.definition import Assignment, Edge, Step, WorkflowDefinition
from liteflow.core.errors import DefinitionError
from liteflow.core.primitives import DEFAULT_WINDOW, Delay, ForEach, If, Parallel, WaitFor
from liteflow.core.retry import ErrorPolicy, RetryPolicy, WorkflowErrorHandling
from liteflow.core.steps import FunctionBody, StepBody, StepExecutionContext
from liteflow.core.values import value_function

StepLike = type[StepBody] | Callable[[StepExecutionContext], Any]
"""A step's body: a `StepBody` class, or a function that takes the context."""


class Workflow(abc.ABC):
    """A workflow: subclasses say what its steps are.

    `id` and `version` may be attributes, properties or methods; they default to the class name and 1.
    `data_type` names the class of the data, and may be left out.
    """

    data_type: type | None = None
    description: str | None = None

    @abc.abstractmethod
    def build(self, builder: WorkflowBuilder) -> Any:
        """Chain the steps, beginning with ``builder.start_with(...)``."""

    def definition(self) -> WorkflowDefinition:
        """Build and validate. Raises `DefinitionError`, which names the workflow and the step."""
        workflow_id = _attribute(self, "id", type(self).__name__)
        version = _attribute(self, "version", 1)
        if not isinstance(workflow_id, str) or not workflow_id:
            raise DefinitionError(f"{type(self).__name__}: id must be a string, not {workflow_id!r}")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise DefinitionError(f"workflow {workflow_id}: version must be a positive int, not {version!r}")
        plan = Plan(f"workflow {workflow_id} version {version}")
        builder = WorkflowBuilder(plan)
        self.build(builder)
        return WorkflowDefinition(
            id=workflow_id,
            version=version,
            steps=plan.finish(builder.heads),
            data_type=self.data_type,
            description=self.description,
            on_error=plan.on_error,
        )


def _attribute(workflow: Workflow, name: str, default: object) -> object:
    value = getattr(workflow, name, default)
    return value() if callable(value) else value


@dataclass(eq=False)
class Draft:
    """A step while it is being built."""

    kind: str
    label: str
    body: Callable[[], Any]
    id: str | None = None
    name: str | None = None
    inputs: list[Assignment] = field(default_factory=list)
    outputs: list[Assignment] = field(default_factory=list)
    next: list[Draft | str] = field(default_factory=list)
    heads: list[Draft] = field(default_factory=list)
    container: bool = False
    rerun: bool = True
    on_error: ErrorPolicy | None = None


class Plan:
    """The steps of one definition, in the order in which they were written."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.drafts: list[Draft] = []
        self.on_error: ErrorPolicy | None = None

    def error(self, draft: Draft | None, problem: str) -> DefinitionError:
        """An error that names the workflow and the step."""
        where = f"{self.title}, step {draft.id or draft.label}" if draft else self.title
        return DefinitionError(f"{where}: {problem}")

    def finish(self, heads: list[Draft]) -> tuple[Step, ...]:
        """Validate, give each step its id, and freeze. The first head comes first."""
        if not heads:
            raise self.error(None, "has no first step; begin with builder.start_with(...)")
        if len(heads) > 1:
            raise self.error(heads[1], "is a second first step; a workflow begins with one")
        for draft in self.drafts:
            if draft.container and not draft.heads:
                raise self.error(draft, "has an empty block; give it steps with .do(lambda b: ...)")
        ids = self._ids()
        known = set(ids.values())

        def target(draft: Draft, to: Draft | str) -> str:
            if isinstance(to, Draft):
                return ids[to]
            if to not in known:
                raise self.error(draft, f"attach: there is no step with the id {to!r}")
            return to

        ordered = sorted(self.drafts, key=lambda draft: draft is not heads[0])
        return tuple(
            Step(
                id=ids[draft],
                name=draft.name or ids[draft],
                kind=draft.kind,
                body=draft.body,
                inputs=tuple(draft.inputs),
                outputs=tuple(draft.outputs),
                edges=tuple(Edge(target(draft, to)) for to in draft.next),
                children=tuple(ids[child] for child in draft.heads),
                rerun=draft.rerun,
                on_error=draft.on_error,
            )
            for draft in ordered
        )

    def _ids(self) -> dict[Draft, str]:
        """Ids from labels, made unique. Only a step of the same label before it changes a step's id."""
        ids: dict[Draft, str] = {}
        used: set[str] = set()
        for draft in self.drafts:
            if draft.id is not None:
                if draft.id in used:
                    raise self.error(draft, "the id is used twice")
                used.add(draft.id)
                ids[draft] = draft.id
        for draft in self.drafts:
            if draft.id is None:
                label = _label(draft)
                candidate, number = label, 1
                while candidate in used:
                    number += 1
                    candidate = f"{label}-{number}"
                used.add(candidate)
                ids[draft] = candidate
        return ids


def _label(draft: Draft) -> str:
    """A container is named after what it contains, so that another one before it does not rename it."""
    return f"{draft.label}:{_label(draft.heads[0])}" if draft.heads else draft.label


class Verbs(abc.ABC):
    """The verbs that add a step; on a builder they begin its chain, on a step they go on from it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @abc.abstractmethod
    def _link(self, target: Draft | str) -> None:
        """Make what the verb added come next."""

    def _add(self, kind: str, label: str, body: Callable[[], Any], **options: Any) -> Draft:
        draft = Draft(kind, label, body, **options)
        self._plan.drafts.append(draft)
        self._link(draft)
        return draft

    def then(self, body: StepLike) -> StepBuilder:
        """Run `body` next. Called twice on the same step it forks: both run."""
        if isinstance(body, type) and issubclass(body, StepBody):
            if inspect.isabstract(body):
                raise self._plan.error(None, f"step {body.__name__} has no run method")
            return StepBuilder(self._plan, self._add("step", body.__name__, body))
        if isinstance(body, type) or not callable(body):
            raise self._plan.error(None, f"{body!r} is no step: a StepBody class or a function is expected")
        name = getattr(body, "__name__", type(body).__name__).replace("<lambda>", "lambda")
        return StepBuilder(self._plan, self._add("step", name, lambda: FunctionBody(body)))

    def if_(self, condition: Any) -> BlockBuilder:
        """Run the block once if `condition` holds; go on when all in it has ended."""
        draft = self._add("if", "if", If, container=True, rerun=False)
        draft.inputs.append(_input("condition", condition))
        return BlockBuilder(self._plan, draft)

    def while_(self, condition: Any) -> BlockBuilder:
        """Run the block as long as `condition` holds; it is evaluated again after each round."""
        draft = self._add("while", "while", If, container=True)
        draft.inputs.append(_input("condition", condition))
        return BlockBuilder(self._plan, draft)

    def for_each(
        self, collection: Any, run_parallel: bool = True, max_parallel: int | None = None
    ) -> BlockBuilder:
        """Run the block for each item, which is in `context.item`; go on when all have ended.

        The collection is evaluated once and stored. Items begin in order; `run_parallel=False` runs one
        after another, `max_parallel` at most so many at a time.
        """
        if max_parallel is not None and max_parallel < 1:
            raise self._plan.error(None, f"for_each: max_parallel must be at least 1, not {max_parallel}")
        window = (max_parallel or DEFAULT_WINDOW) if run_parallel else 1
        draft = self._add("for_each", "for_each", ForEach, container=True, rerun=False)
        draft.inputs.append(_input("collection", collection))
        draft.inputs.append(_input("window", window))
        return BlockBuilder(self._plan, draft)

    def parallel(self) -> ParallelBuilder:
        """Run several blocks side by side: ``.parallel().do(...).do(...).join()``."""
        draft = self._add("parallel", "parallel", Parallel, container=True, rerun=False)
        return ParallelBuilder(self._plan, draft)

    def delay(self, duration: Any) -> StepBuilder:
        """Go on after a duration (timedelta, seconds, or a function of the data)."""
        draft = self._add("delay", "delay", Delay)
        draft.inputs.append(_input("duration", duration))
        return StepBuilder(self._plan, draft)

    def wait_for(self, name: Any, key: Any, effective_date: Any = None) -> StepBuilder:
        """Go on when an event of this name and key comes; its data is in ``step.event_data`` for outputs.

        Taken are events whose time is at or after `effective_date`, by default the moment that the
        instance begins to wait. Each argument may be a function of the data.
        """
        label = f"wait_for:{name}" if isinstance(name, str) else "wait_for"
        draft = self._add("wait_for", label, WaitFor)
        draft.inputs.append(_input("event_name", name))
        draft.inputs.append(_input("event_key", key))
        draft.inputs.append(_input("effective_date", effective_date))
        return StepBuilder(self._plan, draft)


class WorkflowBuilder(Verbs):
    """Begins the chain of a workflow, or of a block."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.heads: list[Draft] = []

    def _link(self, target: Draft | str) -> None:
        if isinstance(target, str):
            raise self._plan.error(None, f"attach({target!r}) needs a step before it")
        self.heads.append(target)

    def start_with(self, body: StepLike) -> StepBuilder:
        """The first step."""
        return self.then(body)

    def use_default_error_behavior(
        self, behavior: WorkflowErrorHandling, retry_interval: timedelta | float | RetryPolicy | None = None
    ) -> WorkflowBuilder:
        """What happens when a step of this definition fails that has no `on_error` of its own."""
        self._plan.on_error = _policy(behavior, retry_interval)
        return self


class StepBuilder(Verbs):
    """Goes on from a step: its settings, and what comes after it."""

    def __init__(self, plan: Plan, draft: Draft) -> None:
        super().__init__(plan)
        self._draft = draft

    def _link(self, target: Draft | str) -> None:
        self._draft.next.append(target)

    def name(self, name: str) -> StepBuilder:
        """A name for people; it does not change the id."""
        self._draft.name = name
        return self

    def id(self, step_id: str) -> StepBuilder:
        """The stable id, by which stored instances name the step."""
        if not isinstance(step_id, str) or not step_id:
            raise self._plan.error(self._draft, f"id must be a string, not {step_id!r}")
        self._draft.id = step_id
        return self

    def input(self, name: str | Callable[[Any, Any], None], value: Any = None) -> StepBuilder:
        """Set attribute `name` of the body before each run: a constant or a function of (data, context).

        Or give one function of (step, data) that sets what it likes.
        """
        if isinstance(name, str):
            self._draft.inputs.append(_input(name, value))
        else:
            action = name
            self._draft.inputs.append(lambda body, data, context: action(body, data))
        return self

    def output(
        self, name: str | Callable[[Any, Any], None], value: Callable[[Any], Any] | None = None
    ) -> StepBuilder:
        """Set attribute `name` of the data, once the step has proceeded, from a function of the body.

        Names with dots reach into nested data. Or give one function of (step, data).
        """
        if not isinstance(name, str):
            action = name
            self._draft.outputs.append(lambda body, data, context: action(body, data))
        elif value is None or not callable(value):
            raise self._plan.error(self._draft, f"output {name!r} needs a function of the step")
        else:
            path, function = name, value
            self._draft.outputs.append(lambda body, data, context: set_path(data, path, function(body)))
        return self

    def on_error(
        self, behavior: WorkflowErrorHandling, retry_interval: timedelta | float | RetryPolicy | None = None
    ) -> StepBuilder:
        """What happens when this step raises."""
        self._draft.on_error = _policy(behavior, retry_interval)
        return self

    def attach(self, step_id: str) -> StepBuilder:
        """Go to the step of this id."""
        self._link(step_id)
        return self


class BlockBuilder:
    """A container that lacks its block."""

    def __init__(self, plan: Plan, draft: Draft) -> None:
        self._plan = plan
        self._draft = draft

    def do(self, block: Callable[[WorkflowBuilder], Any]) -> StepBuilder:
        """Give the container its steps: a function that chains them on the builder it gets."""
        _fill(self._plan, self._draft, block)
        return StepBuilder(self._plan, self._draft)


class ParallelBuilder:
    """A parallel section that takes blocks until `join`."""

    def __init__(self, plan: Plan, draft: Draft) -> None:
        self._plan = plan
        self._draft = draft

    def do(self, block: Callable[[WorkflowBuilder], Any]) -> ParallelBuilder:
        """Add a block."""
        _fill(self._plan, self._draft, block)
        return self

    def join(self) -> StepBuilder:
        """Go on when all blocks have ended."""
        return StepBuilder(self._plan, self._draft)


def _fill(plan: Plan, draft: Draft, block: Callable[[WorkflowBuilder], Any]) -> None:
    builder = WorkflowBuilder(plan)
    block(builder)
    if not builder.heads:
        raise plan.error(draft, "has an empty block; give it steps with .do(lambda b: ...)")
    draft.heads.extend(builder.heads)


def _input(name: str, value: Any) -> Assignment:
    function = value_function(value)
    return lambda body, data, context: setattr(body, name, function(data, context))


def _policy(
    behavior: WorkflowErrorHandling, retry_interval: timedelta | float | RetryPolicy | None
) -> ErrorPolicy:
    if isinstance(retry_interval, RetryPolicy):
        return ErrorPolicy(behavior, retry_interval)
    if retry_interval is None:
        return ErrorPolicy(behavior)
    return ErrorPolicy(behavior, RetryPolicy(interval=retry_interval))


__all__ = [
    "BlockBuilder",
    "ParallelBuilder",
    "StepBuilder",
    "StepLike",
    "Workflow",
    "WorkflowBuilder",
]
