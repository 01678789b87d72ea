"""The rules of LiteFlow: how an instance goes on.

Pure functions. Given an instance, its definition, the time, and what has happened (`inputs`), `advance`
returns the transition to commit; `ready` says which pointers' bodies may run now; `wake_at` says when
somebody has to look at the instance again. No I/O, no clock, no threads, no randomness.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from liteflow.core.codec import Plain
from liteflow.core.definition import SAGA, Step, WorkflowDefinition
from liteflow.core.failure import FailureRules
from liteflow.core.flow import ACTIVITY_EVENT, CHILD_EVENT, INTERNAL_EVENTS
from liteflow.core.inputs import (
    Archived,
    BodyClaimed,
    BodyEnded,
    ConditionsHeld,
    EventsFound,
    Failure,
    Input,
    OutboxSent,
    Poisoned,
    Refused,
    ended_from_plain,
)
from liteflow.core.models import (
    EPOCH,
    GIVEN_BACK,
    Event,
    Instance,
    Pointer,
    PointerStatus,
    Request,
    WorkflowStatus,
    wait_key,
)
from liteflow.core.result import ExecutionResult
from liteflow.core.retry import DEFAULT_ERROR_POLICY, ErrorPolicy
from liteflow.core.transition import Transition

PENDING = PointerStatus.PENDING

APPLIED_REQUESTS_KEPT = 64
"""So many ids of applied requests are remembered, so that a redelivered one does nothing."""


@dataclass(frozen=True)
class EngineOptions:
    """What of the rules a host may set.

    `on_error` is the error policy of last resort. With `lifecycle` all lifecycle events go to the outbox,
    except the kinds in `quiet`; with `post` at least the one that ends an instance.
    """

    on_error: ErrorPolicy = DEFAULT_ERROR_POLICY
    lifecycle: bool = False
    quiet: Container[str] = frozenset()
    post: bool = False


def advance(
    instance: Instance,
    definition: WorkflowDefinition,
    now: datetime,
    inputs: Sequence[Input] = (),
    *,
    due: datetime | None = None,
    lease_until: datetime | None = None,
    options: EngineOptions = EngineOptions(),
) -> Transition | None:
    """The transition that the inputs, the requests in the instance's inbox, and the time lead to.

    None for none. The instance itself is not changed. Results of bodies count before requests: their work
    is done. What is timed out is what was to end by `due`, by default `now`.
    """
    return _Advance(instance, definition, now, options).run(inputs, due or now, lease_until)


def ready(instance: Instance, now: datetime) -> list[Pointer]:
    """The pointers whose bodies are to run now, in order of creation. Claimed ones count once expired."""
    if instance.status is not WorkflowStatus.RUNNABLE or not instance.begun:
        return []
    claims = instance.claims
    return [
        pointer
        for pointer in instance.open_pointers()
        if (pointer.status is PENDING and pointer.id not in claims) or _is_ready(instance, pointer, now)
    ]


def conditional(instance: Instance, definition: WorkflowDefinition) -> list[Pointer]:
    """The open pointers whose steps have a cancel condition, which every commit may make true."""
    if instance.status is not WorkflowStatus.RUNNABLE or not definition.has_conditions:
        return []
    return [p for p in instance.open_pointers() if definition.by_id[p.step_id].cancel_when is not None]


def archivable(instance: Instance, definition: WorkflowDefinition) -> list[Pointer]:
    """The ended pointers that the rules need no more, and that only history is interested in."""
    sagas = {p.id for p in instance.open_pointers() if definition.by_id[p.step_id].kind == SAGA}
    undo = {pointer_id for p in instance.open_pointers() for pointer_id in p.undo}
    return [
        p
        for p in instance.pointers.values()
        if p.ended
        and p.id not in undo
        and not (p.completion and p.status is PointerStatus.COMPLETE and sagas.intersection(p.scope))
    ]


def at_rest(instance: Instance, due: datetime) -> bool:
    """True if `advance` would find nothing to do without inputs: the usual case after a commit."""
    if not instance.begun or not instance.fingerprint or instance.inbox:
        return False
    if instance.status is not WorkflowStatus.RUNNABLE:
        return True
    pointers = instance.open_pointers()
    return bool(pointers) and not _out_of_time(instance, pointers, due)


def _out_of_time(instance: Instance, pointers: Sequence[Pointer], due: datetime) -> bool:
    """True if a wait, a step or the workflow was to end by `due`. `pointers` are the open ones."""
    if instance.deadline is not None and instance.deadline <= due:
        return True
    for pointer in pointers:
        if pointer.deadline is not None and pointer.deadline <= due:
            return True
        if pointer.sleep_until is not None and pointer.sleep_until <= due:
            if pointer.status is PointerStatus.WAITING_FOR_EVENT:
                return True
    return False


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
    if instance.status is not WorkflowStatus.RUNNABLE:
        times += [claim.until for claim in instance.claims.values() if claim.until > now]
        return min(times, default=None)
    if instance.deadline is not None:
        times.append(instance.deadline)
    for pointer in instance.open_pointers():
        claim = instance.claims.get(pointer.id)
        if claim is not None and claim.until > now:
            times.append(claim.until)
        elif pointer.status is PENDING or _is_ready(instance, pointer, now):
            times.append(holder_does)
        elif pointer.status is PointerStatus.WAITING_FOR_EVENT and lease_until is not None:
            times.append(lease_until)
        if pointer.sleep_until is not None and pointer.sleep_until > now:
            times.append(pointer.sleep_until)
        if pointer.deadline is not None and not pointer.compensating:
            times.append(pointer.deadline)
    return min(times) if times else None


class _Advance(FailureRules):
    """One call of `advance`."""

    def __init__(
        self, instance: Instance, definition: WorkflowDefinition, now: datetime, options: EngineOptions
    ) -> None:
        super().__init__(instance, definition, now)
        self.options = options
        self.tells_of_steps = options.lifecycle
        self.progress = False  # anything but claims
        self.resumed = False

    @property
    def last_resort(self) -> ErrorPolicy:
        return self.options.on_error

    def run(self, inputs: Sequence[Input], due: datetime, lease_until: datetime | None) -> Transition | None:
        if not self.after.begun or not self.after.fingerprint:
            self._begin_instance()
        for happened in inputs:
            self.progress |= not isinstance(happened, BodyClaimed)
            self._take(happened)
        if self.after.inbox:
            self._requests()
        if self.after.status is WorkflowStatus.RUNNABLE:
            pointers = self.after.open_pointers()
            # After a resume only once it is known what has come meanwhile.
            if not self.resumed and _out_of_time(self.after, pointers, due):
                self._time_out(due)
                pointers = self.after.open_pointers()
            if not pointers and self.after.status is WorkflowStatus.RUNNABLE:
                self.end_instance(WorkflowStatus.COMPLETE, "completed", None)
        if not self.draft.changed:
            return None
        return self._finish(lease_until)

    def _take(self, happened: Input) -> None:
        match happened:
            case BodyEnded():
                self._body_ended(happened)
            case BodyClaimed():
                self._body_claimed(happened)
            case EventsFound():
                self._events_found(happened.events)
            case ConditionsHeld():
                self._conditions_held(happened.pointer_ids)
            case Archived():
                self.draft.remove_pointers(happened.pointer_ids)
            case OutboxSent():
                self._outbox_sent(happened.sequence)
            case Poisoned():
                self._poisoned(happened)
            case Refused():
                self.end_instance(WorkflowStatus.TERMINATED, "terminated", happened.reason)

    def _finish(self, lease_until: datetime | None) -> Transition:
        transition, after = self.draft.transition, self.after
        if after.status.ended:
            transition.waits = []
        elif self._waits_changed(transition):
            transition.waits = after.waits()
        sleeping = [p.sleep_until for p in after.settle() if p.sleep_until is not None]
        next_execution = min(sleeping) if sleeping and not after.status.ended else None
        if next_execution != after.next_execution:
            self.draft.set("next_execution", next_execution)
        transition.wake_at = wake_at(after, self.now, lease_until)
        if lease_until is not None and self.definition.has_conditions and conditional(after, self.definition):
            # The holder looks at the conditions after this commit; if it dies, somebody else has to.
            transition.wake_at = min(transition.wake_at or lease_until, lease_until)
        transition.crashes = 0 if self.progress else after.crashes
        transition.leads_to(after)
        return transition

    def _waits_changed(self, transition: Transition) -> bool:
        """True if a pointer has changed that waits for an event, or did."""
        before, waiting = self.draft.before.pointers, PointerStatus.WAITING_FOR_EVENT
        for key, pointer in transition.pointers.items():
            if pointer.status is waiting or (key in before and before[key].status is waiting):
                return True
        return False

    def _begin_instance(self) -> None:
        self.draft.set("begun", True)
        self.draft.set("fingerprint", self.definition.fingerprint)
        if self.after.description is None and self.definition.description is not None:
            self.draft.set("description", self.definition.description)
        if self.definition.deadline is not None:
            self.draft.set("deadline", self.after.create_time + self.definition.deadline)
        self.lifecycle("started")
        self.draft.add_pointer(self.definition.first.id, (), None)

    # -------------------------------------------------------------------------------------- bodies

    def _body_claimed(self, claimed: BodyClaimed) -> None:
        pointer = self.after.pointers.get(claimed.pointer_id)
        if pointer is None or pointer.ended or self.after.status.ended:
            return
        if self.after.claims.get(pointer.id) != claimed.over:
            return  # renewed, or taken over by another process
        if claimed.over is not None:
            self.draft.transition.claims_expected[pointer.id] = claimed.over
            others = [claim.by for key, claim in self.after.claims.items() if key != pointer.id]
            if claimed.over.until != GIVEN_BACK and claimed.over.by not in others:
                self.after.crashes += 1  # with the last of its claims: a process dies once
        pointer = self.draft.edit(pointer.id)
        pointer.status = PointerStatus.RUNNING
        pointer.sleep_until = None
        self._started(pointer, claimed.started or self.now)
        self.draft.set_claim(pointer.id, claimed.claim)

    def _started(self, pointer: Pointer, time: datetime) -> None:
        if pointer.start_time is None:
            pointer.start_time = time
            if self.tells_of_steps:
                self.lifecycle("step_started", time=time, step_id=pointer.step_id, pointer_id=pointer.id)
        timeout = self.definition.by_id[pointer.step_id].timeout
        if timeout is not None and pointer.deadline is None:
            pointer.deadline = time + timeout

    def _poisoned(self, poisoned: Poisoned) -> None:
        pointer = self.after.pointers.get(poisoned.pointer_id)
        if pointer is None or pointer.ended or self.after.status is not WorkflowStatus.RUNNABLE:
            return
        claim = self.after.claims.get(pointer.id)
        if claim != poisoned.over:
            return  # renewed: its process lives
        if claim is not None:
            self.draft.transition.claims_expected[pointer.id] = claim
            self.draft.remove_claim(pointer.id)
            self.draft.edit(pointer.id).status = PointerStatus.PENDING
        times = f"{poisoned.crashes} times in a row"
        self.suspend(f"poison: the process that ran step {pointer.step_id} died {times}")

    def _body_ended(self, ended: BodyEnded) -> None:
        known = self.after.pointers.get(ended.pointer_id)
        if known is None or known.end_time is not None or known.compensating or self.after.status.ended:
            return
        claim = self.after.claims.get(known.id)
        if ended.claim != (claim.token if claim is not None else None):
            return  # taken over meanwhile: the result comes too late
        if claim is not None:
            self.draft.remove_claim(known.id)
        pointer = self.draft.edit(known.id)
        self._started(pointer, ended.started)
        pointer.sleep_until = None
        step = self.definition.by_id[pointer.step_id]
        if ended.failure is not None:
            self.failed(pointer, step, ended.failure)
            return
        assert ended.result is not None
        if ended.result.branch_values and not step.blocks:
            problem = Failure("DefinitionError", "the step branches but has no block", permanent=True)
            self.failed(pointer, step, problem)
            return
        asks = ended.result.activity_name is not None or ended.result.child is not None
        if step.kind != SAGA and not asks:
            pointer.retry_count = 0  # else an attempt has ended only when what it began has
        pointer.error = None
        if ended.data_set or ended.data_removed:
            self.draft.change_data(ended.data_set, ended.data_removed)
        self._go_on(pointer, step, ended.result, ended.started)

    def _go_on(self, pointer: Pointer, step: Step, result: ExecutionResult, started: datetime) -> None:
        if result.child is not None:
            self.draft.send("child.start", {**asdict(result.child), "wait": not result.proceed})
        if result.proceed:
            self.end_pointer(pointer, PointerStatus.COMPLETE, result.outcome_value)
            return
        pointer.persistence_data = result.persistence_data
        if result.branch_values is not None:
            self.branch(pointer, step, result)
        elif result.sleep_for is not None:
            pointer.status = PointerStatus.SLEEPING
            pointer.sleep_until = self.now + result.sleep_for
        elif result.activity_name is not None:
            self._offer(pointer, result)
        elif result.child is not None:
            self._wait(pointer, CHILD_EVENT, result.child.id, EPOCH, None)
        elif result.event_name is not None:
            assert result.event_key is not None
            since = result.event_since or started
            self._wait(pointer, result.event_name, result.event_key, since, result.timeout)
        else:
            pointer.status = PointerStatus.PENDING

    def _wait(
        self, pointer: Pointer, name: str, key: str, since: datetime, timeout: timedelta | None
    ) -> None:
        pointer.status = PointerStatus.WAITING_FOR_EVENT
        pointer.event_name, pointer.event_key, pointer.event_since = name, key, since
        pointer.event_published = pointer.timed_out = False
        pointer.event_data = None
        pointer.sleep_until = None if timeout is None else self.now + timeout

    def _offer(self, pointer: Pointer, result: ExecutionResult) -> None:
        activity_id = f"{self.after.id}:{pointer.id}:{self.after.outbox_sequence + 1}"
        offered = result.event_since or self.now
        body: Plain = {
            "id": activity_id,
            "name": result.activity_name,
            "parameters": result.activity_parameters,
            "time": offered.isoformat(),
        }
        self.draft.send("activity.offer", body)
        self._wait(pointer, ACTIVITY_EVENT, activity_id, EPOCH, result.timeout)
        pointer.activity = result.activity_name

    # ------------------------------------------------------------------------------ time and conditions

    def _time_out(self, due: datetime) -> None:
        for pointer in self.after.open_pointers():
            waits = pointer.status is PointerStatus.WAITING_FOR_EVENT
            if waits and pointer.sleep_until is not None and pointer.sleep_until <= due:
                self._wait_is_over(self.draft.edit(pointer.id))
        for pointer in self.after.open_pointers():
            late = pointer.deadline is not None and pointer.deadline <= due and not pointer.compensating
            if late and self.after.status is WorkflowStatus.RUNNABLE and self._is_open(pointer):
                step = self.definition.by_id[pointer.step_id]
                self.failed(self.draft.edit(pointer.id), step, timed_out(step))
        if self.after.status is WorkflowStatus.RUNNABLE and self.after.deadline is not None:
            if self.after.deadline <= due:  # else, once a resume lets it go on
                self._deadline_is_over()

    def _is_open(self, pointer: Pointer) -> bool:
        return not self.after.pointers[pointer.id].ended

    def _wait_is_over(self, pointer: Pointer) -> None:
        if pointer.activity is not None:
            self.draft.send("activity.withdraw", {"id": pointer.event_key})
            pointer.activity = None
        pointer.status = PointerStatus.PENDING
        pointer.sleep_until = None
        pointer.timed_out = True

    def _deadline_is_over(self) -> None:
        """Whatever is at work fails, for good; what its policy then does has no deadline any more."""
        self.draft.set("deadline", None)
        for pointer in self.after.open_pointers():
            leaf = pointer.open_children == 0 and not pointer.compensating
            if leaf and self.after.status is WorkflowStatus.RUNNABLE and self._is_open(pointer):
                late = f"the workflow took longer than {self.definition.deadline}"
                failure = Failure("StepTimeoutError", late, permanent=True)
                step = self.definition.by_id[pointer.step_id]
                self.failed(self.draft.edit(pointer.id), step, failure)

    def _conditions_held(self, pointer_ids: Iterable[str]) -> None:
        for pointer_id in pointer_ids:
            pointer = self.after.pointers.get(pointer_id)
            if pointer is not None and not pointer.ended and not self.after.status.ended:
                step = self.definition.by_id[pointer.step_id]
                self.cancel(self.draft.edit(pointer_id), proceed=step.proceed_after_cancel)

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
                if (wait.name, wait.key) == (event.name, event.key)
                and wait.since <= event.time
                and not self._came_too_late(event, wait.pointer_id)
            ]
            for pointer_id in fits:
                pointer = self.draft.edit(pointer_id)
                pointer.status = PointerStatus.PENDING
                pointer.sleep_until = None
                pointer.event_published = True
                pointer.event_data = event.data
            if fits and event.name not in INTERNAL_EVENTS:  # whose keys are waited for once
                self.draft.set("consumed", {**self.after.consumed, key: [*consumed, event.id]})

    def _came_too_late(self, event: Event, pointer_id: str) -> bool:
        """After the wait's time-out, which nobody has got round to so far."""
        over = self.after.pointers[pointer_id].sleep_until
        return over is not None and event.time > over and event.name not in INTERNAL_EVENTS

    # ------------------------------------------------------------------------------------ requests

    def _requests(self) -> None:
        inbox = self.after.inbox
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
            reason = request.why or "terminated on request"
            self.end_instance(WorkflowStatus.TERMINATED, "terminated", reason)
        elif request.kind == "suspend" and status is WorkflowStatus.RUNNABLE:
            self.suspend(request.why or "suspended on request")
        elif request.kind == "resume" and status is WorkflowStatus.SUSPENDED:
            self.resumed = True
            self.draft.set("status", WorkflowStatus.RUNNABLE)
            self.draft.set("reason", None)
            for pointer in self.after.open_pointers():
                if pointer.status is PointerStatus.FAILED:
                    again = self.draft.edit(pointer.id)
                    again.status = PointerStatus.PENDING
                    again.retry_count = 0
            self.lifecycle("resumed")

    # -------------------------------------------------------------------------------------- outbox

    def _outbox_sent(self, sequence: int) -> None:
        left = [item for item in self.after.outbox if item.sequence > sequence]
        if len(left) != len(self.after.outbox):
            self.draft.set("outbox", left)

    def lifecycle(self, kind: str, *, time: datetime | None = None, **details: Plain) -> None:
        if self.options.lifecycle and kind not in self.options.quiet:
            body: Plain = {name: value for name, value in details.items() if value is not None}
            self.draft.send(f"lifecycle.{kind}", body, time)
        elif kind in ("completed", "terminated") and self.options.post:
            self.draft.send(f"lifecycle.{kind}", {}, time)


def timed_out(step: Step) -> Failure:
    """What a step fails with when its time is up."""
    return Failure("StepTimeoutError", f"step {step.id} took longer than {step.timeout}")
