"""How an instance flows: from an ended activation to the next ones, into containers and out of them."""

from __future__ import annotations

import abc
from datetime import datetime

from liteflow.core.codec import Plain
from liteflow.core.definition import END, OUTCOME, RACE, Step, WorkflowDefinition
from liteflow.core.draft import Draft
from liteflow.core.models import Instance, Pointer, PointerStatus, WorkflowStatus
from liteflow.core.result import ExecutionResult

ACTIVITY_EVENT = "liteflow.activity"
"""Name of the event that ends the wait for an activity; its key is the activity's id."""

CHILD_EVENT = "liteflow.child"
"""Name of the event that tells a parent that a child has ended; its key is the child's id."""

INTERNAL_EVENTS = (ACTIVITY_EVENT, CHILD_EVENT)


class Flow(abc.ABC):
    """The rules that move pointers, over a draft."""

    tells_of_steps = True
    """False if nobody wants to hear of the begin and end of each step."""

    def __init__(self, instance: Instance, definition: WorkflowDefinition, now: datetime) -> None:
        self.definition = definition
        self.now = now
        self.draft = Draft(instance, now)
        self.after = self.draft.after

    @abc.abstractmethod
    def lifecycle(self, kind: str, *, time: datetime | None = None, **details: Plain) -> None:
        """Tell the world of it."""

    @abc.abstractmethod
    def compensation_ended(self, container: Pointer) -> None:
        """All pointers of a compensation have ended: go on with what else is to be undone."""

    # -------------------------------------------------------------------------------- the end of one

    def end_pointer(
        self, pointer: Pointer, status: PointerStatus, outcome: Plain = None, *, follow: bool = True
    ) -> None:
        """An activation is over; with `follow` the steps after it begin."""
        step = self.definition.by_id[pointer.step_id]
        self._close(pointer, status)
        if step.kind == OUTCOME:
            outcome = pointer.outcome
        pointer.outcome = outcome
        if status is PointerStatus.COMPLETE:
            if self.tells_of_steps:
                self.lifecycle("step_completed", step_id=step.id, pointer_id=pointer.id)
            if step.compensation and pointer.scope:
                self.draft.set("completions", self.after.completions + 1)
                pointer.completion = self.after.completions
        if step.kind == END and status is PointerStatus.COMPLETE:
            self.end_instance(WorkflowStatus.COMPLETE, "completed", None)
            return
        for target in step.next if follow else ():
            self._begin(target, pointer.scope, pointer.context_item, pointer.id, outcome)
        if pointer.scope:
            successors = len(step.next) if follow else 0
            self._child_ended(self.draft.edit(pointer.scope[-1]), successors, status)

    def _begin(
        self, step_id: str, scope: tuple[str, ...], item: Plain, predecessor_id: str, outcome: Plain = None
    ) -> None:
        pointer = self.draft.add_pointer(step_id, scope, item, predecessor_id)
        if self.definition.by_id[step_id].kind == OUTCOME:
            pointer.outcome = outcome  # the one before it may be history by the time this one runs

    def _close(self, pointer: Pointer, status: PointerStatus) -> None:
        if pointer.activity is not None or pointer.event_name is not None:
            self._withdraw(pointer, status)
        pointer.status = status
        pointer.end_time = self.now
        pointer.sleep_until = pointer.deadline = None
        if self.after.claims:
            self.draft.remove_claim(pointer.id)
        if self.after.items:
            self.draft.remove_items(pointer.id)

    def _withdraw(self, pointer: Pointer, status: PointerStatus) -> None:
        """Nobody waits any more for what it waited for outside."""
        if pointer.activity is not None:
            self.draft.send("activity.withdraw", {"id": pointer.event_key})
            pointer.activity = None
        waits = pointer.status is PointerStatus.WAITING_FOR_EVENT and not pointer.event_published
        if waits and pointer.event_name == CHILD_EVENT and status is not PointerStatus.COMPLETE:
            self.draft.send("child.terminate", {"id": pointer.event_key})

    # ------------------------------------------------------------------------------------ containers

    def branch(self, pointer: Pointer, step: Step, result: ExecutionResult) -> None:
        """Begin the blocks of a container."""
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
                self._open_blocks(pointer, step, value, result.blocks)
        if pointer.open_children == 0:
            self._children_ended(pointer, step)

    def _open_blocks(
        self, pointer: Pointer, step: Step, item: Plain, chosen: tuple[int, ...] | None = None
    ) -> None:
        scope = (*pointer.scope, pointer.id)
        for block in step.blocks if chosen is None else [step.blocks[index] for index in chosen]:
            for head in block:
                self._begin(head, scope, item, pointer.id)
                pointer.open_children += 1

    def _open_items(self, pointer: Pointer, step: Step, window: int) -> None:
        items = self.after.items[pointer.id]
        while pointer.next_item < len(items) and pointer.open_children < window:
            self._open_blocks(pointer, step, items[pointer.next_item])
            pointer.next_item += 1

    def _child_ended(self, container: Pointer, successors: int, status: PointerStatus) -> None:
        container.open_children += successors - 1
        step = self.definition.by_id[container.step_id]
        if container.compensating:
            if container.open_children == 0:
                self.compensation_ended(container)
            return
        window = container.persistence_data
        if container.id in self.after.items and isinstance(window, int):
            self._open_items(container, step, window)
        if step.kind == RACE and successors == 0 and status is PointerStatus.COMPLETE:
            self.cancel_below(container)
        if container.open_children == 0:
            self._children_ended(container, step)

    def _children_ended(self, container: Pointer, step: Step) -> None:
        if step.rerun:
            container.status = PointerStatus.PENDING
        else:
            self.end_pointer(container, PointerStatus.COMPLETE)

    # ----------------------------------------------------------------------------------------- cancel

    def cancel(self, pointer: Pointer, *, proceed: bool = False) -> None:
        """End an open pointer, and all below it, without its having done its work."""
        self.cancel_below(pointer)
        self.end_pointer(pointer, PointerStatus.CANCELLED, follow=proceed)

    def cancel_below(self, container: Pointer) -> None:
        """End all open pointers in a container."""
        for pointer in self.after.open_pointers():
            if container.id in pointer.scope:
                self._close(self.draft.edit(pointer.id), PointerStatus.CANCELLED)
        container.open_children = 0

    def end_instance(self, status: WorkflowStatus, kind: str, reason: str | None) -> None:
        """Nothing more happens to it."""
        self.draft.set("status", status)
        self.draft.set("complete_time", self.now)
        if reason != self.after.reason:
            self.draft.set("reason", reason)
        if self.after.deadline is not None:
            self.draft.set("deadline", None)
        for pointer in self.after.open_pointers():
            self._close(self.draft.edit(pointer.id), PointerStatus.CANCELLED)
        self.lifecycle(kind, reason=reason)
        if self.after.parent is not None:
            self.draft.send("child.ended", None)

    def suspend(self, reason: str) -> None:
        """Nothing goes on before a resume."""
        self.draft.set("status", WorkflowStatus.SUSPENDED)
        self.draft.set("reason", reason)
        self.lifecycle("suspended", reason=reason)
