"""Running one body: inputs, the body itself, outputs, and what it did to the data.

This is what a slot does, and the only place where users' code is called.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from types import CoroutineType
from typing import Any

from liteflow.core import codec
from liteflow.core.definition import Step, WorkflowDefinition
from liteflow.core.errors import DataError
from liteflow.core.hooks import Hooks
from liteflow.core.inputs import BodyEnded, ConditionsHeld, Failure, encode_result
from liteflow.core.loop import Timer
from liteflow.core.models import Claim, Instance, Pointer
from liteflow.core.primitives import AFRESH
from liteflow.core.result import NEXT, ExecutionResult
from liteflow.core.settings import Settings
from liteflow.core.steps import Cancellation, StepExecutionContext

log = logging.getLogger("liteflow.bodies")

MESSAGE_KEPT = 2000
"""So many characters of an error's message are stored: some carry all that they were about."""

TRACEBACK_KEPT = 8000
"""So many characters of a traceback are stored, its end."""


UNCHANGED: tuple[dict[str, codec.Plain], tuple[str, ...]] = ({}, ())
"""What a body that has not looked at the data has set and removed in it."""


@dataclass(eq=False)
class Job:
    """One execution of a body that is to be, or is being, run in a slot.

    `began` is the local monotonic time at which a slot took it, None before, `submitted` that at which it was
    ready, and `started` when its body began, by the store's clock. `claim` is set once it runs
    outside the lease. `ended` and `dropped` tell that its result is there, or no longer wanted. `watch` is
    set to when its time is up. `spared` tells that it was given more time to be a short one, as the process
    had no time for it.
    """

    instance: Instance
    definition: WorkflowDefinition
    step: Step
    pointer: Pointer
    cancellation: Cancellation = field(default_factory=Cancellation)
    began: float | None = None
    submitted: float = 0.0
    started: datetime | None = None
    claim: Claim | None = None
    ended: bool = False
    dropped: bool = False
    watch: Timer | None = None
    spared: bool = False


@dataclass(eq=False)
class Check:
    """The cancel conditions of some open pointers, to be evaluated in a slot."""

    instance: Instance
    definition: WorkflowDefinition
    pointers: Sequence[Pointer]
    began: float | None = None
    claim: Claim | None = None
    dropped: bool = False


Work = Job | Check
"""What a slot runs."""


class AsyncBodies:
    """The event loop that async bodies of one process run on, in a thread begun when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any], cancellation: Cancellation) -> Any:
        """Run it to its end, from a slot's thread. A cancellation cancels it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._serve, args=(self._loop,), name="liteflow-async", daemon=True
                ).start()
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        cancellation.on_set(future.cancel)
        return future.result()

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        loop.close()

    def stop(self) -> None:
        """End the loop; what still runs on it is left behind."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None


class BodyRunner:
    """Runs jobs. Never raises: whatever a body does becomes a `BodyEnded`.

    `clock_uncertainty` widens the default effective date of waits, so that an event published right
    after the wait was stored is not older than the wait by another process's clock.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        settings: Settings,
        hooks: Hooks | None = None,
        clock_uncertainty: Callable[[], timedelta] = lambda: timedelta(0),
    ) -> None:
        self._now = now
        self._max_data_size = settings.max_data_size
        self._default_policy = settings.on_error
        self._hooks = hooks or Hooks()
        self._clock_uncertainty = clock_uncertainty
        self._async = AsyncBodies()

    def stop(self) -> None:
        """End the event loop of async bodies."""
        self._async.stop()

    def work(self, work: Work) -> BodyEnded | ConditionsHeld:
        """Do what is to be done, in the calling thread."""
        return self.run(work) if isinstance(work, Job) else self.check(work)

    def check(self, check: Check) -> ConditionsHeld:
        """Evaluate cancel conditions. One that raises counts as false."""
        held = []
        for pointer in check.pointers:
            step, data_type = check.definition.by_id[pointer.step_id], check.definition.data_type
            context = StepExecutionContext(
                check.instance, data_type, step, pointer, Cancellation(), self._now()
            )
            assert step.cancel_when is not None
            try:
                if step.cancel_when(context.data, context):
                    held.append(pointer.id)
            except Exception as exc:  # a user's function; it decides nothing then
                log.warning(
                    "workflow %s step %s: the cancel condition failed and counts as false: %s: %s",
                    check.instance.id, step.id, type(exc).__name__, exc,
                )  # fmt: skip
        return ConditionsHeld(held)

    def run(self, job: Job) -> BodyEnded:
        """Execute the job's step once."""
        started = job.started = self._now()
        context = StepExecutionContext(
            job.instance, job.definition.data_type, job.step, job.pointer, job.cancellation, started
        )
        try:
            result = encode_result(self._execute(job.step, context))
            changed, removed = self._changes(job, context.data) if context.data_was_seen else UNCHANGED
        except BaseException as exc:  # a body may raise anything, SystemExit included
            if not job.dropped:
                self._hooks.step_failed(context.workflow, job.step, exc)
            return BodyEnded(job.pointer.id, started, failure=self._failure(job, exc))
        if result.event_name is not None and result.event_since is None:
            # Twice: the publisher's clock may be behind, and it stamps what is past by any clock.
            result = replace(result, event_since=started - 2 * self._clock_uncertainty())
        return BodyEnded(job.pointer.id, started, result, None, changed, removed)

    def _execute(self, step: Step, context: StepExecutionContext) -> ExecutionResult:
        body = step.body() if self._hooks.step_factory is None else self._made(step, context)
        for assign in step.inputs:
            assign(body, context.data, context)
        if self._hooks.step_middleware:
            result = self._hooks.run_step(context, body, partial(self._result, body, context))
        else:
            result = self._result(body, context)
        if result is None:
            result = NEXT
        if not isinstance(result, ExecutionResult):
            raise TypeError(f"run() of step {step.id} returned {result!r}, not an ExecutionResult")
        if result.proceed:
            for assign in step.outputs:
                assign(body, context.data, context)
        return result

    def _made(self, step: Step, context: StepExecutionContext) -> Any:
        factory = self._hooks.step_factory
        if factory is not None and step.kind == "step" and isinstance(step.body, type):
            return factory(step.body, context)
        return step.body()

    def _result(self, body: Any, context: StepExecutionContext) -> Any:
        result = body.run(context)
        if isinstance(result, CoroutineType):
            return self._async.run(result, context.cancellation)
        return result

    def _changes(self, job: Job, data: Any) -> tuple[dict[str, codec.Plain], tuple[str, ...]]:
        """What the body and its outputs did to the data, by top-level attribute."""
        before = job.instance.data
        if job.definition.data_type is not None:
            # In the declared type's own terms, so that attributes that only another release knows of
            # are neither changed nor removed.
            before = codec.encode_data(codec.decode_data(before, job.definition.data_type))
        after = codec.encode_data(data)
        changed, removed = codec.changes(before, after)
        if changed and (size := codec.size({**job.instance.data, **changed})) > self._max_data_size:
            largest = max(changed, key=lambda name: codec.size(changed[name]))
            raise DataError(f"data.{largest}", f"the data has {size} bytes, over {self._max_data_size}")
        return changed, tuple(removed)

    def _failure(self, job: Job, exc: BaseException) -> Failure:
        policy = job.step.on_error or job.definition.on_error or self._default_policy
        text = "".join(traceback.format_exception(exc))[-TRACEBACK_KEPT:]
        permanent = isinstance(exc, policy.retry.non_retryable)
        message = (str(exc) or type(exc).__name__)[:MESSAGE_KEPT]
        afresh = isinstance(exc, AFRESH)
        return Failure(type(exc).__name__, _storable(message), _storable(text), permanent, afresh)


def _storable(text: str) -> str:
    """Without lone surrogates, which no store takes: a failure's own text must not make it fail."""
    return text.encode("utf-8", "backslashreplace").decode()
