"""The state of an instance after a transition that is being worked out, and the record of its changes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from liteflow.core.codec import Plain
from liteflow.core.models import Claim, ErrorRecord, Instance, OutboxItem, Pointer, PointerStatus
from liteflow.core.transition import Transition

PENDING = PointerStatus.PENDING


class Draft:
    """Copy on write: the instance that it was made of stays as it is.

    `before` is the state as it is, `after` as it will be; read it freely, change it only through the
    methods, which also write the change down in `transition`.
    """

    def __init__(self, instance: Instance, now: datetime) -> None:
        self.now = now
        self.transition = Transition(instance.id, instance.revision, instance.inbox_sequence)
        self.after = instance.copy()
        self.before = instance

    @property
    def changed(self) -> bool:
        """True if there is anything to commit."""
        t = self.transition
        return bool(
            t.pointers
            or t.fields
            or t.data_set
            or t.data_removed
            or t.pointers_removed
            or t.items_set
            or t.items_removed
            or t.claims_set
            or t.claims_removed
            or t.errors
        )

    def set(self, name: str, value: Any) -> None:
        """Change a field of the instance."""
        setattr(self.after, name, value)
        self.transition.fields[name] = value

    def edit(self, pointer_id: str) -> Pointer:
        """A pointer that may be changed in place."""
        pointer = self.transition.pointers.get(pointer_id)
        if pointer is None:
            pointer = self.after.pointers[pointer_id].copy()
            self.after.pointers[pointer_id] = self.transition.pointers[pointer_id] = pointer
        return pointer

    def add_pointer(
        self, step_id: str, scope: tuple[str, ...], item: Plain, predecessor_id: str | None = None
    ) -> Pointer:
        """A new activation of a step."""
        number = self.after.pointer_sequence + 1
        self.after.pointer_sequence = self.transition.fields["pointer_sequence"] = number
        pointer = Pointer(str(number), step_id, PENDING, scope, predecessor_id, item)
        self.after.pointers[pointer.id] = self.transition.pointers[pointer.id] = pointer
        return pointer

    def remove_pointers(self, pointer_ids: Iterable[str]) -> None:
        """Take ended pointers, which are in the history, out of the document."""
        for pointer_id in pointer_ids:
            pointer = self.after.pointers.get(pointer_id)
            if pointer is not None and pointer.ended:
                del self.after.pointers[pointer_id]
                self.transition.pointers_removed.append(pointer_id)

    def change_data(self, changed: dict[str, Plain], removed: Iterable[str]) -> None:
        """Merge what a body changed into the data: of two changes of one attribute the later wins."""
        for name in removed:
            if self.after.data.pop(name, None) is not None or name in self.transition.data_set:
                self.transition.data_set.pop(name, None)
                self.transition.data_removed.append(name)
        for name, value in changed.items():
            self.after.data[name] = self.transition.data_set[name] = value
            if name in self.transition.data_removed:
                self.transition.data_removed.remove(name)

    def set_items(self, pointer_id: str, items: list[Plain]) -> None:
        """Store the collection of a for_each."""
        self.after.items[pointer_id] = self.transition.items_set[pointer_id] = items

    def remove_items(self, pointer_id: str) -> None:
        """Drop the collection of a for_each that has ended."""
        if self.after.items.pop(pointer_id, None) is not None:
            self.transition.items_set.pop(pointer_id, None)
            if pointer_id in self.before.items:
                self.transition.items_removed.append(pointer_id)

    def set_claim(self, pointer_id: str, claim: Claim) -> None:
        """A long step goes on under this claim."""
        self.after.claims[pointer_id] = self.transition.claims_set[pointer_id] = claim
        if pointer_id in self.transition.claims_removed:
            self.transition.claims_removed.remove(pointer_id)

    def remove_claim(self, pointer_id: str) -> None:
        """A claim is over."""
        if self.after.claims.pop(pointer_id, None) is not None:
            self.transition.claims_set.pop(pointer_id, None)
            if pointer_id in self.before.claims:
                self.transition.claims_removed.append(pointer_id)

    def add_error(self, error: ErrorRecord) -> None:
        """Keep a record of a failed attempt."""
        self.transition.errors.append(error)

    def send(self, kind: str, body: Plain, time: datetime | None = None) -> None:
        """Put a message into the outbox."""
        self.set("outbox_sequence", self.after.outbox_sequence + 1)
        item = OutboxItem(self.after.outbox_sequence, kind, time or self.now, body)
        self.set("outbox", [*self.after.outbox, item])
