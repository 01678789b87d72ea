"""What one commit changes: the value that the engine returns and a store applies."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from liteflow.core.codec import Plain
from liteflow.core.models import Claim, ErrorRecord, Instance, Pointer, Wait


class Outcome(enum.Enum):
    """What became of one transition.

    COMMITTED: it is stored, by this call or by an earlier one with the same token.
    CONFLICT: the instance had another revision or inbox sequence; nothing of it is stored.
    REJECTED: the store can't hold it (too large); nothing of it is stored.
    UNKNOWN: the store did not answer; ask again with the very same transition.
    """

    COMMITTED = "committed"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Transition:
    """A delta from one revision of an instance to the next.

    It applies only if the instance is at `revision` and has received exactly `inbox_sequence` requests.
    `token` is stored with it, so that an unknown reply is settled by reading it back.

    `fields` maps names of `Instance`'s scalar and list fields (status, complete_time, reason, fingerprint,
    begun, description, pointer_sequence, applied, inbox, consumed, outbox, outbox_sequence,
    next_execution, deadline, completions) to new values. `wake_at` and `message_sent` are always written.
    `waits` is the whole new list of open waits, or None where it did not change. `claims_expected` are
    claims that have to be stored exactly as they stand here, or the commit is a conflict: their holders
    renew them without raising the revision. `crashes` is the new count, 0 after any progress. A commit
    also clears `parked` and the scheduler's hold.

    `after` is the instance as it will be, where the engine has made the transition. Neither that nor what
    such a transition holds is ever changed, so that all who keep parts of it may share them.
    """

    instance_id: str
    revision: int
    inbox_sequence: int
    token: str = ""
    wake_at: datetime | None = None
    message_sent: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    data_set: dict[str, Plain] = field(default_factory=dict)
    data_removed: list[str] = field(default_factory=list)
    pointers: dict[str, Pointer] = field(default_factory=dict)
    pointers_removed: list[str] = field(default_factory=list)
    items_set: dict[str, list[Plain]] = field(default_factory=dict)
    items_removed: list[str] = field(default_factory=list)
    claims_set: dict[str, Claim] = field(default_factory=dict)
    claims_removed: list[str] = field(default_factory=list)
    claims_expected: dict[str, Claim] = field(default_factory=dict)
    crashes: int = 0
    waits: list[Wait] | None = None
    errors: list[ErrorRecord] = field(default_factory=list)
    after: Instance | None = field(default=None, compare=False, repr=False)

    def apply(self, instance: Instance) -> None:
        """Change `instance` in place to what the store holds once this is committed.

        The memory provider and every holder of an instance use this, and a store's own form of the
        delta has to be equal to it (the contract suite compares them).
        """
        instance.unsettle()
        for name, value in self.fields.items():
            setattr(instance, name, value)
        for name in self.data_removed:
            instance.data.pop(name, None)
        instance.data.update(self.data_set)
        for pointer_id in self.pointers_removed:
            instance.pointers.pop(pointer_id, None)
        instance.pointers.update(self.pointers)
        for pointer_id in self.items_removed:
            instance.items.pop(pointer_id, None)
        instance.items.update(self.items_set)
        for pointer_id in self.claims_removed:
            instance.claims.pop(pointer_id, None)
        instance.claims.update(self.claims_set)
        self._mark(instance)

    def leads_to(self, after: Instance) -> None:
        """`after` has all that the transition changes; from now on nobody changes it, nor the transition."""
        self._mark(after)
        self.after = after

    def _mark(self, instance: Instance) -> None:
        """What every commit writes."""
        instance.revision = self.revision + 1
        instance.token = self.token
        instance.wake_at = self.wake_at
        instance.message_sent = self.message_sent
        instance.parked = None
        instance.crashes = self.crashes
