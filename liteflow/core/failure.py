"""What happens when a step fails: error policies, and the undoing of what was done."""

from __future__ import annotations

import abc
import math

from liteflow.core.definition import SAGA, Step
from liteflow.core.flow import Flow
from liteflow.core.inputs import Failure
from liteflow.core.models import ErrorRecord, Pointer, PointerStatus, WorkflowStatus
from liteflow.core.retry import ErrorPolicy, RetryPolicy, WorkflowErrorHandling

COMPENSATE = ErrorPolicy(WorkflowErrorHandling.COMPENSATE)


class FailureRules(Flow):
    """The rules for failing steps."""

    @property
    @abc.abstractmethod
    def last_resort(self) -> ErrorPolicy:
        """The policy where neither step nor scope nor definition has one."""

    def failed(self, pointer: Pointer, step: Step, failure: Failure) -> None:
        """A body raised, or a step's time is up."""
        attempt = pointer.retry_count + 1
        pointer.error = f"{failure.type}: {failure.message}"
        self._record(pointer, step, failure, attempt)
        self._withdraw(pointer, PointerStatus.FAILED)
        self.draft.remove_claim(pointer.id)
        self.cancel_below(pointer)
        if failure.afresh:
            self._forget_wait(pointer)
        if step.kind == SAGA:
            self._compensate(pointer, pointer)
            return
        undoes = self._who_undoes(pointer)
        own = step.on_error or (COMPENSATE if undoes is not None else None)
        policy = own or self.definition.on_error or self.last_resort
        behavior = policy.behavior
        if behavior is WorkflowErrorHandling.RETRY:
            if not failure.permanent and attempt < policy.retry.max_attempts:
                self._retry(pointer, policy.retry, attempt)
                return
            behavior = policy.retry.on_exhausted
        if behavior is WorkflowErrorHandling.COMPENSATE and undoes is not None:
            self._compensate(undoes, pointer)
            return
        self._give_up(pointer, behavior, f"step {step.id} failed at attempt {attempt}: {pointer.error}")

    def _record(self, pointer: Pointer, step: Step, failure: Failure, attempt: int) -> None:
        self.draft.add_error(
            ErrorRecord(
                self.after.id, pointer.id, step.id, attempt, self.now,
                failure.type, failure.message, failure.traceback,
            )
        )  # fmt: skip
        self.lifecycle("error", step_id=step.id, pointer_id=pointer.id, error=pointer.error)

    def _forget_wait(self, pointer: Pointer) -> None:
        """What the next attempt waits for is another thing than what this one got."""
        pointer.event_name = pointer.event_key = pointer.event_since = None
        pointer.event_published = pointer.timed_out = False
        pointer.event_data = pointer.persistence_data = None

    def _retry(self, pointer: Pointer, retry: RetryPolicy, attempt: int) -> None:
        pointer.status = PointerStatus.SLEEPING
        pointer.retry_count = attempt
        pointer.deadline = None
        seed = f"{self.after.id}:{pointer.id}:{attempt}"
        pointer.sleep_until = self.now + retry.pause(attempt, seed)

    def _give_up(self, pointer: Pointer, behavior: WorkflowErrorHandling, reason: str) -> None:
        pointer.sleep_until = pointer.deadline = None
        pointer.status = PointerStatus.FAILED
        if behavior is WorkflowErrorHandling.TERMINATE:
            pointer.end_time = self.now
            self.end_instance(WorkflowStatus.TERMINATED, "terminated", reason)
        elif self.after.status is WorkflowStatus.RUNNABLE:
            self.suspend(reason)

    # ---------------------------------------------------------------------------------- compensation

    def _who_undoes(self, failed: Pointer) -> Pointer | None:
        """The enclosing saga, or else the failed step or the nearest container that has a compensation.

        None inside a compensation: what fails there is not undone by what it belongs to.
        """
        found: Pointer | None = None
        for pointer_id in (failed.id, *reversed(failed.scope)):
            pointer = self.after.pointers[pointer_id]
            if pointer.compensating:
                break
            step = self.definition.by_id[pointer.step_id]
            if step.kind == SAGA:
                return pointer
            if step.compensation and found is None:
                found = pointer
        return found

    def _compensate(self, by: Pointer, failed: Pointer) -> None:
        """Give up what runs inside `by`, and undo what has to be undone, one after the other."""
        by, failed = self.draft.edit(by.id), self.draft.edit(failed.id)
        own = bool(self.definition.by_id[by.step_id].compensation)
        by.error = failed.error
        undo: list[str] = []
        if self.definition.by_id[by.step_id].kind == SAGA:
            undo = self._inside(by, failed)
        for pointer_id in failed.scope[len(by.scope) + 1 :] if failed is not by else ():
            self._close(self.draft.edit(pointer_id), PointerStatus.FAILED)
        if failed is not by:
            self._close(failed, PointerStatus.FAILED)
        self.cancel_below(by)
        self.draft.remove_items(by.id)
        by.compensating = True
        by.status = PointerStatus.RUNNING
        by.sleep_until = by.deadline = None
        by.undo = (*undo, by.id) if own else tuple(undo)
        self._undo_next(by)

    def _inside(self, saga: Pointer, failed: Pointer) -> list[str]:
        """What is to be undone, in order: what failed, then what was completed, the last one first.

        A container that fails along with a step in it is undone after all that was completed in it.
        """
        done = [
            p
            for p in self.after.pointers.values()
            if p.status is PointerStatus.COMPLETE and p.completion and saga.id in p.scope
        ]
        ranked: list[tuple[float, int, Pointer]] = [(-p.completion, 0, p) for p in done]
        for depth, pointer_id in enumerate(reversed(failed.scope[len(saga.scope) + 1 :]), 1):
            earliest = min((p.completion for p in done if pointer_id in p.scope), default=math.inf)
            ranked.append((-earliest, depth, self.after.pointers[pointer_id]))
        ranked.sort(key=lambda entry: entry[:2])
        order = [failed, *(entry[2] for entry in ranked)]
        return [p.id for p in order if p is not saga and self.definition.by_id[p.step_id].compensation]

    def _undo_next(self, by: Pointer) -> None:
        if not by.undo:
            self._undone(by)
            return
        target = self.after.pointers[by.undo[0]]
        for head in self.definition.by_id[target.step_id].compensation:
            self.draft.add_pointer(head, (*by.scope, by.id), target.context_item, target.id)
            by.open_children += 1

    def compensation_ended(self, container: Pointer) -> None:
        undone, *rest = container.undo
        container.undo = tuple(rest)
        if undone != container.id:
            self.draft.edit(undone).status = PointerStatus.COMPENSATED
        self._undo_next(container)

    def _undone(self, by: Pointer) -> None:
        """All is undone: the path goes on after it, unless a saga's own policy says otherwise."""
        by.compensating = False
        step = self.definition.by_id[by.step_id]
        policy = step.on_error if step.kind == SAGA else None
        if policy is not None:
            behavior, attempt = policy.behavior, by.retry_count + 1
            if behavior is WorkflowErrorHandling.RETRY:
                if attempt < policy.retry.max_attempts:
                    self._retry(by, policy.retry, attempt)
                    return
                behavior = policy.retry.on_exhausted
            if behavior is not WorkflowErrorHandling.COMPENSATE:
                self._give_up(by, behavior, f"step {step.id} was undone at attempt {attempt}: {by.error}")
                return
        self.end_pointer(by, PointerStatus.COMPENSATED)
