"""The rules of LiteFlow: how an instance goes on.

Pure functions. Given an instance, its definition, the time, and what has happened (`inputs`), `advance`
returns the transition to commit; `ready` says which pointers' bodies may run now; `wake_at` says when
somebody has to look at the instance again. No I/O, no clock, no threads, no randomness.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from liteflow.core.codec import Plain
from liteflow.core.definition import Step, WorkflowDefinition
from liteflow.core.draft import Draft
from liteflow.core.inputs import (
    Archived,
    BodyClaimed,
    BodyEnded,
    EventsFound,
    Failure,
    Input,
    OutboxSent,
    Poisoned,
    Refused,
    ended_from_plain,
)
from liteflow.core.models import (
    GIVEN_BACK,
    ErrorRecord,
    Event,
    Instance,
    Pointer,
    PointerStatus,
    Request,
    WorkflowStatus,
    wait_key,
)
from liteflow.core.result import ExecutionResult
from liteflow.core.retry import DEFAULT_ERROR_POLICY, ErrorPolicy, WorkflowErrorHandling
from liteflow.core.transition import Transition

APPLIED_REQUESTS_KEPT = 64
"""So many ids of applied requests are remembered, so that a redelivered one does nothing."""


@dataclass(frozen=True)
class EngineOptions:
    """What of the rules a host may set: the error policy of last resort, and whether lifecycle events
    go to the outbox."""

    on_error: ErrorPolicy = DEFAULT_ERROR_POLICY
    lifecycle: bool = False


def advance(
    instance: Instance,
    definition: WorkflowDefinition,
    now: datetime,
    inputs: Iterable[Input] = (),
    *,
    lease_until: datetime | None = None,
    options: EngineOptions = EngineOptions(),
) -> Transition | None:
    """The transition that the inputs, and the requests in the instance's inbox, lead to; None for none.

    The instance itself is not changed. Results of bodies count before requests: their work is done.
    """
    return _Advance(instance, definition, now, options).run(inputs, lease_until)


def ready(instance: Instance, now: datetime) -> list[Pointer]:
    """The pointers whose bodies are to run now, in order of creation. Claimed ones count once expired."""
    if instance.status is not WorkflowStatus.RUNNABLE or not instance.begun:
        return []
    return [pointer for pointer in instance.open_pointers() if _is_ready(instance, pointer, now)]


def _is_ready(instance: Instance, pointer: Pointer, now: datetime) -> bool:
    claim = instance.claims.get(pointer.id)
    if claim is not None:
        return claim.until <= now
    if pointer.status is PointerStatus.SLEEPING:
        return pointer.sleep_until is not None and pointer.sleep_until <= now
    return pointer.status is PointerStatus.PENDING


def wake_at(instance: Instance, now: datetime, lease_until: datetime | None) -> datetime | None:
    """When, at the latest, somebody has to look at the instance; None: an event or request will tell.

    `lease_until` is when the lease of whoever is at it ends. It stands for all that the holder still
    has to do: run what is ready, send the outbox, and, while a wait is open, look into the event log and
    find out, by a clean release, that no wake-up met the lease. Without a holder it is None: then
    only what the state itself says counts, and what is ready is due now.
    """
    holder_does = lease_until or now
    times: list[datetime] = []
    if instance.outbox:
        times.append(holder_does)
    if instance.status.ended:
        return min(times, default=None)
    if instance.inbox or not instance.begun:
        times.append(holder_does)
    running = instance.status is WorkflowStatus.RUNNABLE
    for pointer in instance.open_pointers():
        claim = instance.claims.get(pointer.id)
        if claim is not None and claim.until > now:
            times.append(claim.until)
        elif running and _is_ready(instance, pointer, now):
            times.append(holder_does)
        elif running and pointer.status is PointerStatus.SLEEPING and pointer.sleep_until is not None:
            times.append(pointer.sleep_until)
        elif running and pointer.status is PointerStatus.WAITING_FOR_EVENT and lease_until is not None:
            times.append(lease_until)
    return min(times, default=None)


class _Advance:
    """One call of `advance`."""

    def __init__(
        self, instance: Instance, definition: WorkflowDefinition, now: datetime, options: EngineOptions
    ) -> None:
        self.definition = definition
        self.now = now
        self.options = options
        self.draft = Draft(instance, now)
        self.progress = False  # anything but claims
        self.after = self.draft.after

    def run(self, inputs: Iterable[Input], lease_until: datetime | None) -> Transition | None:
        if not self.after.begun or not self.after.fingerprint:
            self._begin()
        for happened in inputs:
            self.progress |= not isinstance(happened, BodyClaimed)
            match happened:
                case BodyEnded():
                    self._body_ended(happened)
                case BodyClaimed():
                    self._body_claimed(happened)
                case EventsFound():
                    self._events_found(happened.events)
                case Archived():
                    self.draft.remove_pointers(happened.pointer_ids)
                case OutboxSent():
                    self._outbox_sent(happened.sequence)
                case Poisoned():
                    self._poisoned(happened)
                case Refused():
                    self._end(WorkflowStatus.TERMINATED, "terminated", happened.reason)
        self._requests()
        if self.after.status is WorkflowStatus.RUNNABLE and not any(self.after.open_pointers()):
            self._end(WorkflowStatus.COMPLETE, "completed", None)
        if not self.draft.changed:
            return None
        return self._finish(lease_until)

    def _finish(self, lease_until: datetime | None) -> Transition:
        transition, after = self.draft.transition, self.after
        if transition.pointers or transition.pointers_removed:
            transition.waits = after.waits() if not after.status.ended else []
        sleeping = (p.sleep_until for p in after.open_pointers() if p.sleep_until is not None)
        next_execution = None if after.status.ended else min(sleeping, default=None)
        if next_execution != after.next_execution:
            self.draft.set("next_execution", next_execution)
        transition.wake_at = wake_at(after, self.now, lease_until)
        transition.crashes = 0 if self.progress else after.crashes
        return transition

    # ------------------------------------------------------------------------------ begin and end

    def _begin(self) -> None:
        self.draft.set("begun", True)
        self.draft.set("fingerprint", self.definition.fingerprint)
        if self.after.description is None and self.definition.description is not None:
            self.draft.set("description", self.definition.description)
        self._lifecycle("started")
        self.draft.add_pointer(self.definition.first.id, (), None)

    def _end(self, status: WorkflowStatus, kind: str, reason: str | None) -> None:
        self.draft.set("status", status)
        self.draft.set("complete_time", self.now)
        if reason != self.after.reason:
            self.draft.set("reason", reason)
        for pointer in list(self.after.open_pointers()):
            self._cancel(pointer.id)
        self._lifecycle(kind, reason=reason)

    def _cancel(self, pointer_id: str) -> None:
        pointer = self.draft.edit(pointer_id)
        pointer.status = PointerStatus.CANCELLED
        pointer.end_time = self.now
        pointer.sleep_until = None
        self.draft.remove_claim(pointer_id)
        self.draft.remove_items(pointer_id)

    # -------------------------------------------------------------------------------------- bodies

    def _body_claimed(self, claimed: BodyClaimed) -> None:
        pointer = self.after.pointers.get(claimed.pointer_id)
        if pointer is None or pointer.ended or self.after.status.ended:
            return
        if self.after.claims.get(pointer.id) != claimed.over:
            return  # renewed, or taken over by another process
        if claimed.over is not None:
            self.draft.transition.claims_expected[pointer.id] = claimed.over
            if claimed.over.until != GIVEN_BACK:
                self.after.crashes += 1
        pointer = self.draft.edit(pointer.id)
        pointer.status = PointerStatus.RUNNING
        pointer.sleep_until = None
        if pointer.start_time is None:
            pointer.start_time = self.now
        self.draft.set_claim(pointer.id, claimed.claim)

    def _poisoned(self, poisoned: Poisoned) -> None:
        pointer = self.after.pointers.get(poisoned.pointer_id)
        if pointer is None or pointer.ended or self.after.status is not WorkflowStatus.RUNNABLE:
            return
        claim = self.after.claims.get(pointer.id)
        if claim is not None:
            self.draft.transition.claims_expected[pointer.id] = claim
            self.draft.remove_claim(pointer.id)
            self.draft.edit(pointer.id).status = PointerStatus.PENDING
        times = f"{poisoned.crashes} times in a row"
        self._suspend(f"poison: the process that ran step {pointer.step_id} died {times}")

    def _body_ended(self, ended: BodyEnded) -> None:
        known = self.after.pointers.get(ended.pointer_id)
        if known is None or known.ended or self.after.status.ended:
            return
        claim = self.after.claims.get(known.id)
        if ended.claim != (claim.token if claim is not None else None):
            return  # taken over meanwhile: the result comes too late
        self.draft.remove_claim(known.id)
        pointer = self.draft.edit(known.id)
        if pointer.start_time is None:
            pointer.start_time = ended.started
        pointer.sleep_until = None
        step = self.definition.by_id[pointer.step_id]
        if ended.failure is not None:
            self._failed(pointer, step, ended.failure)
            return
        assert ended.result is not None
        if ended.result.branch_values and not step.children:
            problem = Failure("DefinitionError", "the step branches but has no block", permanent=True)
            self._failed(pointer, step, problem)
            return
        pointer.retry_count = 0
        pointer.error = None
        self.draft.change_data(ended.data_set, ended.data_removed)
        self._go_on(pointer, step, ended.result, ended.started)

    def _go_on(self, pointer: Pointer, step: Step, result: ExecutionResult, started: datetime) -> None:
        if result.proceed:
            self._complete(pointer, result.outcome_value)
            return
        pointer.persistence_data = result.persistence_data
        if result.branch_values is not None:
            self._branch(pointer, step, result)
        elif result.sleep_for is not None:
            pointer.status = PointerStatus.SLEEPING
            pointer.sleep_until = self.now + result.sleep_for
        elif result.event_name is not None:
            pointer.status = PointerStatus.WAITING_FOR_EVENT
            pointer.event_name = result.event_name
            pointer.event_key = result.event_key
            pointer.event_since = result.event_since or started
            pointer.event_published = False
            pointer.event_data = None
        else:
            pointer.status = PointerStatus.PENDING

    def _complete(self, pointer: Pointer, outcome: Plain) -> None:
        pointer.status = PointerStatus.COMPLETE
        pointer.end_time = self.now
        pointer.outcome = outcome
        self.draft.remove_items(pointer.id)
        successors = 0
        for edge in self.definition.by_id[pointer.step_id].edges:
            if edge.match is None or edge.match(outcome):
                self.draft.add_pointer(edge.target, pointer.scope, pointer.context_item, pointer.id)
                successors += 1
        if pointer.scope:
            self._child_ended(self.draft.edit(pointer.scope[-1]), successors)

    # ---------------------------------------------------------------------------------- containers

    def _branch(self, pointer: Pointer, step: Step, result: ExecutionResult) -> None:
        assert result.branch_values is not None
        pointer.status = PointerStatus.RUNNING
        pointer.open_children = 0
        if result.item_window is not None:
            pointer.next_item = 0
            self.draft.set_items(pointer.id, list(result.branch_values))
            self._open_items(pointer, step, result.item_window)
            pointer.persistence_data = result.item_window
        else:
            for value in result.branch_values:
                self._open_block(pointer, step, value)
        if pointer.open_children == 0:
            self._children_ended(pointer, step)

    def _open_block(self, pointer: Pointer, step: Step, item: Plain) -> None:
        for child in step.children:
            self.draft.add_pointer(child, (*pointer.scope, pointer.id), item, pointer.id)
            pointer.open_children += 1

    def _open_items(self, pointer: Pointer, step: Step, window: int) -> None:
        items = self.after.items[pointer.id]
        while pointer.next_item < len(items) and pointer.open_children < window:
            self._open_block(pointer, step, items[pointer.next_item])
            pointer.next_item += 1

    def _child_ended(self, container: Pointer, successors: int) -> None:
        container.open_children += successors - 1
        step = self.definition.by_id[container.step_id]
        window = container.persistence_data
        if container.id in self.after.items and isinstance(window, int):
            self._open_items(container, step, window)
        if container.open_children == 0:
            self._children_ended(container, step)

    def _children_ended(self, container: Pointer, step: Step) -> None:
        if step.rerun:
            container.status = PointerStatus.PENDING
        else:
            self._complete(container, None)

    # ------------------------------------------------------------------------------------- failure

    def _failed(self, pointer: Pointer, step: Step, failure: Failure) -> None:
        attempt = pointer.retry_count + 1
        pointer.error = f"{failure.type}: {failure.message}"
        self.draft.add_error(
            ErrorRecord(
                self.after.id,
                pointer.id,
                step.id,
                attempt,
                self.now,
                failure.type,
                failure.message,
                failure.traceback,
            )
        )
        self._lifecycle("error", step_id=step.id, error=pointer.error)
        policy = step.on_error or self.definition.on_error or self.options.on_error
        behavior = policy.behavior
        if behavior is WorkflowErrorHandling.RETRY:
            if not failure.permanent and attempt < policy.retry.max_attempts:
                pointer.status = PointerStatus.SLEEPING
                pointer.retry_count = attempt
                seed = f"{self.after.id}:{pointer.id}:{attempt}"
                pointer.sleep_until = self.now + policy.retry.pause(attempt, seed)
                return
            behavior = policy.retry.on_exhausted
        pointer.status = PointerStatus.FAILED
        reason = f"step {step.id} failed at attempt {attempt}: {pointer.error}"
        if behavior is WorkflowErrorHandling.TERMINATE:
            pointer.end_time = self.now
            self._end(WorkflowStatus.TERMINATED, "terminated", reason)
        elif self.after.status is WorkflowStatus.RUNNABLE:
            self._suspend(reason)

    def _suspend(self, reason: str) -> None:
        self.draft.set("status", WorkflowStatus.SUSPENDED)
        self.draft.set("reason", reason)
        self._lifecycle("suspended", reason=reason)

    # -------------------------------------------------------------------------------------- events

    def _events_found(self, events: Iterable[Event]) -> None:
        if self.after.status is not WorkflowStatus.RUNNABLE:
            return  # kept for the resume
        for event in sorted(events, key=lambda e: (e.time, e.id)):
            key = wait_key(event.name, event.key)
            consumed = self.after.consumed.get(key, [])
            if event.id in consumed:
                continue
            fits = [
                wait.pointer_id
                for wait in self.after.waits()
                if (wait.name, wait.key) == (event.name, event.key) and wait.since <= event.time
            ]
            for pointer_id in fits:
                pointer = self.draft.edit(pointer_id)
                pointer.status = PointerStatus.PENDING
                pointer.event_published = True
                pointer.event_data = event.data
            if fits:
                self.draft.set("consumed", {**self.after.consumed, key: [*consumed, event.id]})

    # ------------------------------------------------------------------------------------ requests

    def _requests(self) -> None:
        inbox = self.after.inbox
        if not inbox:
            return
        self.progress = True
        applied = list(self.after.applied)
        for request in sorted(inbox, key=lambda request: request.sequence):
            if request.kind == "result":
                self._body_ended(ended_from_plain(request.arguments))
            else:
                applied.append(request.id)
                if not self.after.status.ended:
                    self._control(request)
        self.draft.set("applied", applied[-APPLIED_REQUESTS_KEPT:])
        self.draft.set("inbox", [])

    def _control(self, request: Request) -> None:
        status = self.after.status
        if request.kind == "terminate":
            self._end(WorkflowStatus.TERMINATED, "terminated", request.why or "terminated on request")
        elif request.kind == "suspend" and status is WorkflowStatus.RUNNABLE:
            self._suspend(request.why or "suspended on request")
        elif request.kind == "resume" and status is WorkflowStatus.SUSPENDED:
            self.draft.set("status", WorkflowStatus.RUNNABLE)
            self.draft.set("reason", None)
            for pointer in list(self.after.open_pointers()):
                if pointer.status is PointerStatus.FAILED:
                    again = self.draft.edit(pointer.id)
                    again.status = PointerStatus.PENDING
                    again.retry_count = 0
            self._lifecycle("resumed")

    # -------------------------------------------------------------------------------------- outbox

    def _outbox_sent(self, sequence: int) -> None:
        left = [item for item in self.after.outbox if item.sequence > sequence]
        if len(left) != len(self.after.outbox):
            self.draft.set("outbox", left)

    def _lifecycle(self, kind: str, **details: Plain) -> None:
        if self.options.lifecycle:
            body: Plain = {name: value for name, value in details.items() if value is not None}
            self.draft.send(f"lifecycle.{kind}", body)
