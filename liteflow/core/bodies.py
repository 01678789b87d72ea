"""Running one body: inputs, the body itself, outputs, and what it did to the data.

This is what a slot does, and the only place where users' code is called.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from liteflow.core import codec
from liteflow.core.definition import Step, WorkflowDefinition
from liteflow.core.errors import DataError
from liteflow.core.inputs import BodyEnded, Failure, encode_result
from liteflow.core.models import Claim, Instance, Pointer
from liteflow.core.result import ExecutionResult
from liteflow.core.retry import ErrorPolicy
from liteflow.core.steps import Cancellation, StepExecutionContext
from liteflow.core.views import ExecutionPointer, WorkflowInstance

TRACEBACK_KEPT = 8000
"""So many characters of a traceback are stored, its end."""


@dataclass(eq=False)
class Job:
    """One execution of a body that is to be, or is being, run in a slot.

    `began` is the local monotonic time at which a slot took it, None before. `claim` is set once it runs
    outside the lease. `ended` and `dropped` tell that its result is there, or no longer wanted.
    """

    instance: Instance
    definition: WorkflowDefinition
    step: Step
    pointer: Pointer
    cancellation: Cancellation = field(default_factory=Cancellation)
    began: float | None = None
    claim: Claim | None = None
    ended: bool = False
    dropped: bool = False


class AsyncBodies:
    """The event loop that async bodies of one process run on, in a thread begun when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it to its end, from a slot's thread."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._serve, args=(self._loop,), name="liteflow-async", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

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
        max_data_size: int,
        default_policy: ErrorPolicy,
        clock_uncertainty: Callable[[], timedelta] = lambda: timedelta(0),
    ) -> None:
        self._now = now
        self._max_data_size = max_data_size
        self._default_policy = default_policy
        self._clock_uncertainty = clock_uncertainty
        self._async = AsyncBodies()

    def stop(self) -> None:
        """End the event loop of async bodies."""
        self._async.stop()

    def run(self, job: Job) -> BodyEnded:
        """Execute the job's step once, in the calling thread."""
        started = self._now()
        instance = WorkflowInstance(job.instance, job.definition.data_type)
        try:
            result = encode_result(self._execute(job, instance))
            changed, removed = self._changes(job, instance)
        except BaseException as exc:  # a body may raise anything, SystemExit included
            return BodyEnded(job.pointer.id, started, failure=self._failure(job, exc))
        if result.event_name is not None and result.event_since is None:
            result = replace(result, event_since=started - self._clock_uncertainty())
        return BodyEnded(
            job.pointer.id, started, result=result, data_set=changed, data_removed=tuple(removed)
        )

    def _execute(self, job: Job, instance: WorkflowInstance) -> ExecutionResult:
        pointer = ExecutionPointer(job.pointer)
        context = StepExecutionContext(instance, job.step, pointer, job.cancellation)
        body = job.step.body()
        for assign in job.step.inputs:
            assign(body, instance.data, context)
        result = body.run(context)
        if inspect.iscoroutine(result):
            result = self._async.run(result)
        if result is None:
            result = ExecutionResult.next()
        if not isinstance(result, ExecutionResult):
            raise TypeError(f"run() of step {job.step.id} returned {result!r}, not an ExecutionResult")
        if result.proceed:
            for assign in job.step.outputs:
                assign(body, instance.data, context)
        return result

    def _changes(self, job: Job, instance: WorkflowInstance) -> tuple[dict[str, codec.Plain], list[str]]:
        """What the body and its outputs did to the data, by top-level attribute."""
        if "data" not in vars(instance):  # never looked at: decoding is lazy
            return {}, []
        before = job.instance.data
        if job.definition.data_type is not None:
            # In the declared type's own terms, so that attributes that only another release knows of
            # are neither changed nor removed.
            before = codec.encode_data(codec.decode_data(before, job.definition.data_type))
        after = codec.encode_data(instance.data)
        changed, removed = codec.changes(before, after)
        if changed and (size := codec.size({**job.instance.data, **changed})) > self._max_data_size:
            largest = max(changed, key=lambda name: codec.size(changed[name]))
            raise DataError(f"data.{largest}", f"the data has {size} bytes, over {self._max_data_size}")
        return changed, removed

    def _failure(self, job: Job, exc: BaseException) -> Failure:
        policy = job.step.on_error or job.definition.on_error or self._default_policy
        text = "".join(traceback.format_exception(exc))[-TRACEBACK_KEPT:]
        permanent = isinstance(exc, policy.retry.non_retryable)
        message = str(exc) or type(exc).__name__
        return Failure(type(exc).__name__, _storable(message), _storable(text), permanent)


def _storable(text: str) -> str:
    """Without lone surrogates, which no store takes: a failure's own text must not make it fail."""
    return text.encode("utf-8", "backslashreplace").decode()
