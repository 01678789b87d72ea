"""The fluent builder: how users write workflows down.

`WorkflowBuilder` begins a chain (of the workflow, a block or a branch), `StepBuilder` goes on from a step,
`BlockBuilder` wants the block of a container. All add to one `Plan`. What each verb means is in the docs.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from liteflow.core import codec
from liteflow.core.codec import set_path
from liteflow.core.definition import END, OUTCOME, RACE, SAGA, WAIT_FOR, Assignment
from liteflow.core.identity import identity
from liteflow.core.plan import Draft, Heads, Plan
from liteflow.core.primitives import (
    DEFAULT_WINDOW,
    Activity,
    Block,
    Case,
    Delay,
    ForEach,
    If,
    Recur,
    Schedule,
    StartChild,
    Switch,
    WaitFor,
)
from liteflow.core.result import as_duration
from liteflow.core.retry import ErrorPolicy, RetryPolicy, WorkflowErrorHandling
from liteflow.core.steps import FunctionBody, FunctionStep, StepBody, StepExecutionContext
from liteflow.core.values import positional_parameters, value_function

StepLike = type[StepBody] | FunctionStep | Callable[[StepExecutionContext], Any]
"""A step's body: a `StepBody` class, a function that takes the context, or one with `@step`."""

Chain = Callable[["WorkflowBuilder"], Any]
"""What fills a block: a function that chains steps on the builder that it gets."""

Policy = timedelta | float | RetryPolicy | None


class Verbs(abc.ABC):
    """The verbs that add a step; on a builder they begin its chain, on a step they go on from it."""

    def __init__(self, plan: Plan, chain: WorkflowBuilder | None) -> None:
        self._plan = plan
        self._chain = chain  # where the chain that this is part of began

    @abc.abstractmethod
    def _link(self, target: Draft | str) -> None:
        """Make what the verb added come next."""

    @abc.abstractmethod
    def _aside(self: V) -> V:
        """What a verb is called on that adds something beside the main path."""

    def _add(self, kind: str, label: str, body: Callable[[], Any], **options: Any) -> Draft:
        draft = Draft(kind, label, body, **options)
        self._plan.drafts.append(draft)
        self._link(draft)
        return draft

    def _step(self, draft: Draft) -> StepBuilder:
        return StepBuilder(self._plan, self._chain, draft)

    def _block(self, draft: Draft) -> BlockBuilder[StepBuilder]:
        return BlockBuilder(self._plan, draft, self._step(draft))

    def then(self, body: StepLike) -> StepBuilder:
        """Run `body` next. Called twice on the same step it forks: both run."""
        if isinstance(body, type) and issubclass(body, StepBody):
            if inspect.isabstract(body):
                raise self._plan.error(None, f"step {body.__name__} has no run method")
            return self._step(self._add("step", body.__name__, body))
        if isinstance(body, FunctionStep):
            return self._step(self._add("step", body.__name__, body.body))
        if isinstance(body, type) or not callable(body):
            raise self._plan.error(None, f"{body!r} is no step: a StepBody class or a function is expected")
        name = getattr(body, "__name__", type(body).__name__).replace("<lambda>", "lambda")
        return self._step(self._add("step", name, partial(FunctionBody, body)))

    # -------------------------------------------------------------------------------- conditions, loops

    def if_(self, condition: Any) -> BlockBuilder[StepBuilder]:
        """Run the block once if `condition` holds; go on when all in it has ended."""
        draft = self._add("if", "if", If, container=True, rerun=False)
        draft.inputs.append(_input("condition", condition))
        return self._block(draft)

    def while_(self, condition: Any) -> BlockBuilder[StepBuilder]:
        """Run the block as long as `condition` holds; it is evaluated again after each round."""
        draft = self._add("while", "while", If, container=True)
        draft.inputs.append(_input("condition", condition))
        return self._block(draft)

    def for_each(
        self, collection: Any, run_parallel: Any = True, max_parallel: int | None = None
    ) -> BlockBuilder[StepBuilder]:
        """Run the block for each item, which is in `context.item`; go on when all have ended.

        The collection is evaluated once and stored. Items begin in order; `run_parallel=False` (or a
        function of the data) runs one after another, `max_parallel` at most so many at a time.
        """
        if max_parallel is not None and max_parallel < 1:
            raise self._plan.error(None, f"for_each: max_parallel must be at least 1, not {max_parallel}")
        side_by_side, window = value_function(run_parallel), max_parallel or DEFAULT_WINDOW
        draft = self._add("for_each", "for_each", ForEach, container=True, rerun=False)
        draft.inputs.append(_input("collection", collection))
        draft.inputs.append(_input("window", lambda data, ctx: window if side_by_side(data, ctx) else 1))
        return self._block(draft)

    def parallel(self) -> ParallelBuilder:
        """Run several blocks side by side: ``.parallel().do(...).do(...).join()``."""
        draft = self._add("parallel", "parallel", Block, container=True, rerun=False)
        return ParallelBuilder(self._plan, draft, self._step(draft))

    def race(self, *branches: Chain) -> StepBuilder:
        """Run the branches side by side; the first to end wins, the others are cancelled."""
        draft = self._add(RACE, "race", Block, container=True, rerun=False)
        for branch in branches:
            # In a block of its own: a branch has ended when all in it has.
            inner = Draft("branch", "branch", Block, container=True, rerun=False)
            self._plan.drafts.append(inner)
            inner.blocks.append(_fill(self._plan, inner, branch))
            draft.blocks.append([inner])
        if len(branches) < 2:
            raise self._plan.error(draft, "a race needs at least two branches")
        return self._step(draft)

    def decide(self, value: Any) -> StepBuilder:
        """Run the branches that match `value`: ``.decide(lambda data: data.kind).branch("a", branch)``."""
        draft = self._switch("decide", "decide", decides=True)
        draft.inputs.append(_input("value", value))
        return self._step(draft)

    def _switch(self, kind: str, label: str, *, decides: bool) -> Draft:
        cases = _Cases(decides)
        return self._add(kind, label, cases, container=True, rerun=False)

    # ------------------------------------------------------------------------------------------- time

    def delay(self, duration: Any) -> StepBuilder:
        """Go on after a duration (timedelta, seconds, or a function of the data)."""
        draft = self._add("delay", "delay", Delay)
        draft.inputs.append(_input("duration", duration))
        return self._step(draft)

    def schedule(self: V, duration: Any) -> BlockBuilder[V]:
        """Run the block after a duration, beside the main path, which goes on at once."""
        origin = self._aside()
        draft = origin._add("schedule", "schedule", Schedule, container=True, rerun=False)
        draft.inputs.append(_input("duration", duration))
        return BlockBuilder(origin._plan, draft, origin)

    def recur(self: V, interval: Any, until: Any = False) -> BlockBuilder[V]:
        """Run the block beside the main path, now and then every `interval`, until `until` holds.

        Rounds never overlap.
        """
        origin = self._aside()
        draft = origin._add("recur", "recur", Recur, container=True)
        draft.inputs.append(_input("interval", interval))
        draft.inputs.append(_input("until", until))
        return BlockBuilder(origin._plan, draft, origin)

    # ------------------------------------------------------------------------------- what is waited for

    def wait_for(
        self,
        name: Any,
        key: Any,
        effective_date: Any = None,
        cancel_condition: Any = None,
        timeout: Any = None,
    ) -> StepBuilder:
        """Go on when an event of this name and key comes; its data is in ``step.event_data`` for outputs.

        Taken are events whose time is at or after `effective_date`, by default the moment that the
        instance begins to wait. Each argument may be a function of the data. When `timeout` is over the
        wait ends: see `StepBuilder.on_timeout`.
        """
        label = f"wait_for:{name}" if isinstance(name, str) else "wait_for"
        draft = self._add(WAIT_FOR, label, WaitFor, rerun=False)
        draft.inputs.append(_input("event_name", name))
        draft.inputs.append(_input("event_key", key))
        return self._waits(draft, effective_date, cancel_condition, timeout)

    def activity(
        self,
        name: Any,
        parameters: Any = None,
        effective_date: Any = None,
        cancel_condition: Any = None,
        timeout: Any = None,
    ) -> StepBuilder:
        """Have somebody outside do something, and go on when it is done; ``step.result`` is what came back.

        Each argument may be a function of the data.
        """
        label = f"activity:{name}" if isinstance(name, str) else "activity"
        draft = self._add("activity", label, Activity, rerun=False)
        draft.inputs.append(_input("activity_name", name))
        draft.inputs.append(_input("parameters", parameters))
        return self._waits(draft, effective_date, cancel_condition, timeout)

    def _waits(self, draft: Draft, effective_date: Any, cancel_condition: Any, timeout: Any) -> StepBuilder:
        draft.inputs.append(_input("effective_date", effective_date))
        draft.inputs.append(_input("timeout", timeout))
        if cancel_condition is not None:
            draft.cancel_when = value_function(cancel_condition)
        return self._step(draft)

    def start_child(
        self,
        workflow: Any,
        version: int | None = None,
        data: Any = None,
        wait: bool = True,
    ) -> StepBuilder:
        """Start another workflow, by its id, class or object; `data` may be a function of the data.

        With `wait` go on when it has completed; outputs read ``step.data``. ``step.child_id`` is its id.
        """
        if not isinstance(workflow, str):
            workflow, its_version = identity(workflow)
            version = version or its_version
        draft = self._add("child", f"child:{workflow}", StartChild, rerun=False)
        for name, value in (("workflow", workflow), ("version", version), ("wait", wait)):
            draft.inputs.append(_input(name, value))
        draft.inputs.append(_input("child_data", data))
        return self._step(draft)

    # ------------------------------------------------------------------------------------ saga and end

    def saga(self, block: Chain) -> StepBuilder:
        """Run the block; when a step in it fails, undo what was completed in it, the last step first."""
        draft = self._add(SAGA, "saga", Block, container=True, rerun=False)
        draft.blocks.append(_fill(self._plan, draft, block))
        return self._step(draft)

    def end_workflow(self) -> StepBuilder:
        """Complete the instance now; whatever else is open in it is cancelled."""
        return self._step(self._add(END, "end", lambda: FunctionBody(lambda context: None)))


V = TypeVar("V", bound=Verbs)


class WorkflowBuilder(Verbs):
    """Begins the chain of a workflow, of a block, or of a branch."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, self)
        self.heads: Heads = []

    def _link(self, target: Draft | str) -> None:
        if isinstance(target, str):
            raise self._plan.error(None, f"attach({target!r}) needs a step before it")
        self.heads.append(target)

    def _aside(self: V) -> V:
        """A first step that does nothing, from which both go on."""
        begin = self._add("step", "begin", lambda: FunctionBody(lambda context: None))
        return self._step(begin)  # type: ignore[return-value]

    def start_with(self, body: StepLike) -> StepBuilder:
        """The first step."""
        return self.then(body)

    def create_branch(self) -> WorkflowBuilder:
        """Begins a chain of its own, to be used once with ``.branch(...)``."""
        branch = WorkflowBuilder(self._plan)
        self._plan.loose.append(branch.heads)
        return branch

    def use_default_error_behavior(
        self, behavior: WorkflowErrorHandling, retry_interval: Policy = None
    ) -> WorkflowBuilder:
        """What happens when a step of this definition fails that has no `on_error` of its own."""
        self._plan.on_error = _policy(behavior, retry_interval)
        return self


class StepBuilder(Verbs):
    """Goes on from a step: its settings, and what comes after it."""

    def __init__(self, plan: Plan, chain: WorkflowBuilder | None, draft: Draft) -> None:
        super().__init__(plan, chain)
        self._draft = draft

    def _link(self, target: Draft | str) -> None:
        self._draft.next.append(target)

    def _aside(self: V) -> V:
        return self

    # ---------------------------------------------------------------------------------------- settings

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

    def on_error(self, behavior: WorkflowErrorHandling, retry_interval: Policy = None) -> StepBuilder:
        """What happens when this step raises. On a saga: what happens when it has been undone."""
        self._draft.on_error = _policy(behavior, retry_interval)
        return self

    def timeout(self, duration: timedelta | float) -> StepBuilder:
        """Each attempt of the step fails with `StepTimeoutError` when it takes longer."""
        limit = as_duration(duration)
        if limit <= timedelta(0):
            raise self._plan.error(self._draft, f"timeout must be positive, not {duration!r}")
        self._draft.timeout = limit
        return self

    def cancel_condition(self, condition: Any, proceed_after_cancel: bool = False) -> StepBuilder:
        """Cancel the step, and all below it, once `condition` holds; with proceed, what is next begins."""
        self._draft.cancel_when = value_function(condition)
        self._draft.proceed_after_cancel = proceed_after_cancel
        return self

    def compensate_with(
        self, body: StepLike, configure: Callable[[StepBuilder], Any] | None = None
    ) -> StepBuilder:
        """What undoes this step; `configure` may give it inputs."""

        def chain(builder: WorkflowBuilder) -> None:
            made = builder.start_with(body)
            if configure is not None:
                configure(made)

        return self.compensate_with_sequence(chain)

    def compensate_with_sequence(self, block: Chain) -> StepBuilder:
        """The chain of steps that undoes this one."""
        if self._draft.compensation:
            raise self._plan.error(self._draft, "has two compensations; chain them in one sequence")
        self._draft.compensation.extend(_fill(self._plan, self._draft, block))
        return self

    # ------------------------------------------------------------------------------------ what is next

    def attach(self, step_id: str) -> StepBuilder:
        """Go to the step of this id."""
        self._link(step_id)
        return self

    def when(self, value: Any) -> BlockBuilder[StepBuilder]:
        """Run the block if the step before ended with this outcome. Every match of several runs."""
        at = self._outcomes()
        return BlockBuilder(self._plan, at._draft, at, lambda: at._cases.add(value))

    def branch(self, value: Any, branch: Verbs) -> StepBuilder:
        """Run a branch made with `create_branch` if the outcome is `value`.

        Instead of a value there may be a function of the data, or of (data, outcome) that tells if the
        branch runs. Every match runs; what comes after waits for them.
        """
        at = self._outcomes()
        at._cases.add(value)
        at._draft.blocks.append(self._take(branch))
        return at

    def default(self, branch: Verbs) -> StepBuilder:
        """Run this branch if no other one matches."""
        at = self._outcomes()
        if at._cases.default is not None:
            raise self._plan.error(at._draft, "has two defaults")
        at._cases.set_default(len(at._draft.blocks))
        at._draft.blocks.append(self._take(branch))
        return at

    def else_(self) -> BlockBuilder[StepBuilder]:
        """Run this block if the condition of the `if_` did not hold."""
        if self._draft.kind != "if" or len(self._draft.blocks) != 1 or self._draft.next:
            raise self._plan.error(self._draft, "else_ has to follow the block of an if_, once")
        return BlockBuilder(self._plan, self._draft, self)

    def on_timeout(self) -> BlockBuilder[StepBuilder]:
        """Run this block when the time-out of the wait is over; then the path goes on."""
        if self._draft.kind not in (WAIT_FOR, "activity") or self._draft.blocks:
            raise self._plan.error(self._draft, "on_timeout has to follow a wait_for or an activity, once")
        return BlockBuilder(self._plan, self._draft, self)

    @property
    def _cases(self) -> _Cases:
        assert isinstance(self._draft.body, _Cases)
        return self._draft.body

    def _outcomes(self) -> StepBuilder:
        """The step that the branches of this one's outcome belong to."""
        if isinstance(self._draft.body, _Cases):
            return self
        return self._step(self._switch(OUTCOME, "when", decides=False))

    def _take(self, branch: Verbs) -> Heads:
        heads = branch._chain.heads if branch._chain is not None else []
        if not any(loose is heads for loose in self._plan.loose):
            raise self._plan.error(
                heads[0] if heads else self._draft,
                "the branch is used twice, or was not made with create_branch() of this builder",
            )
        self._plan.loose = [loose for loose in self._plan.loose if loose is not heads]
        return heads


class BlockBuilder(Generic[V]):
    """A container that lacks a block. `do` returns where the chain goes on."""

    def __init__(self, plan: Plan, draft: Draft, then: V, before: Callable[[], None] = lambda: None) -> None:
        self._plan = plan
        self._draft = draft
        self._then = then
        self._before = before

    def do(self, block: Chain) -> V:
        """Give the container its steps: a function that chains them on the builder it gets."""
        self._before()
        self._draft.blocks.append(_fill(self._plan, self._draft, block))
        return self._then

    def cancel_condition(self, condition: Any, proceed_after_cancel: bool = False) -> BlockBuilder[V]:
        """See `StepBuilder.cancel_condition`."""
        self._draft.cancel_when = value_function(condition)
        self._draft.proceed_after_cancel = proceed_after_cancel
        return self

    def name(self, name: str) -> BlockBuilder[V]:
        """See `StepBuilder.name`."""
        self._draft.name = name
        return self

    def id(self, step_id: str) -> BlockBuilder[V]:
        """See `StepBuilder.id`."""
        StepBuilder(self._plan, None, self._draft).id(step_id)
        return self


class ParallelBuilder:
    """A parallel section that takes blocks until `join`."""

    def __init__(self, plan: Plan, draft: Draft, then: StepBuilder) -> None:
        self._plan = plan
        self._draft = draft
        self._then = then

    def do(self, block: Chain) -> ParallelBuilder:
        """Add a block."""
        self._draft.blocks.append(_fill(self._plan, self._draft, block))
        return self

    def cancel_condition(self, condition: Any, proceed_after_cancel: bool = False) -> ParallelBuilder:
        """See `StepBuilder.cancel_condition`."""
        self._then.cancel_condition(condition, proceed_after_cancel)
        return self

    def join(self) -> StepBuilder:
        """Go on when all blocks have ended."""
        return self._then


class _Cases:
    """Makes the bodies of a `decide` or `when`; the n-th case belongs to the n-th block."""

    def __init__(self, decides: bool) -> None:
        self._cases: list[Case] = []
        self._decides = decides
        self.default: int | None = None

    def __call__(self) -> Switch:
        return Switch(self._cases, self.default, self._decides)

    def add(self, value: Any) -> None:
        self._cases.append(_case(value))

    def set_default(self, index: int) -> None:
        self.default = index
        self._cases.append(lambda data, outcome, context: False)


def _case(value: Any) -> Case:
    if callable(value) and not isinstance(value, type) and positional_parameters(value) >= 2:
        return lambda data, outcome, context: bool(value(data, codec.decode(outcome)))
    function = value_function(value)
    return lambda data, outcome, context: codec.same(codec.encode(function(data, context)), outcome)


def _fill(plan: Plan, draft: Draft, block: Chain) -> Heads:
    builder = WorkflowBuilder(plan)
    block(builder)
    if not builder.heads:
        raise plan.error(draft, "has an empty block; give it steps with .do(lambda b: ...)")
    return builder.heads


def _input(name: str, value: Any) -> Assignment:
    function = value_function(value)
    return lambda body, data, context: setattr(body, name, function(data, context))


def _policy(behavior: WorkflowErrorHandling, retry_interval: Policy) -> ErrorPolicy:
    if isinstance(retry_interval, RetryPolicy):
        return ErrorPolicy(behavior, retry_interval)
    if retry_interval is None:
        return ErrorPolicy(behavior)
    return ErrorPolicy(behavior, RetryPolicy(interval=retry_interval))
