"""One instance in this process's hands: from the wake-up message to its acknowledgement."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from liteflow.core.bodies import Check, Job
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.inputs import Input
from liteflow.core.models import Instance
from liteflow.core.providers import Delivery, Lease


class Phase(enum.Enum):
    """Where an activation is on a message's way. Only ACTIVE ones take inputs and run bodies."""

    LEASING = "leasing"
    LOADING = "loading"
    ACTIVE = "active"
    LEAVING = "leaving"


@dataclass(eq=False)
class Activation:
    """What the runner knows of an instance while it is at it. Touched by the runner's loop only.

    `deliveries` are acknowledged last; `asked` of them were there when the lease was asked for. `inputs` is
    what has happened and is not in a commit yet. `busy` are the jobs of pointers whose body runs, or has
    ended without being committed. `again` tells that a
    wake-up came since the instance was loaded. `leave` ends it as soon as no body runs: its time is
    over, the lease is lost, or the process stops. `turns` holds, for each for_each, the item's pointer
    that was begun last, as long as the next one has to wait for it. `unchecked` tells that cancel
    conditions have to be looked at, `check` is what looks at them, `looking` counts looks into the event
    log. `suspect` tells that a process seems to have died at it, `counting` that this is being stored,
    `counted` that it was, `doubted` that one may have died at what follows a wait.
    `flushing` tells that the outbox is being sent, `unsent` that it could not be. `committed` tells that
    something was stored since the lease was got. `lease_until` is the store's time for the local
    `lease_expires`. `began` is when the lease was got and `looked` when the instance was asked for last, by
    `clock`, which is the process's monotonic one.
    `instance` is never changed by a commit: another one takes its place. `visit` counts loads; what was
    asked for an earlier one comes too late. `going` tells that its next hop is being chosen, `once_more` that
    it has to be chosen again after that.
    """

    instance_id: str
    deliveries: list[Delivery] = field(default_factory=list)
    asked: int = 0
    phase: Phase = Phase.LEASING
    lease: Lease | None = None
    instance: Instance | None = None
    definition: WorkflowDefinition | None = None
    inputs: list[Input] = field(default_factory=list)
    busy: dict[str, Job] = field(default_factory=dict)
    turns: dict[str, str] = field(default_factory=dict)
    began: float = 0.0
    looked: float = 0.0
    lease_expires: float = 0.0
    lease_until: datetime | None = None
    again: bool = False
    committing: bool = False
    waiting_for: int = 0
    one_by_one: bool = False
    leave: bool = False
    timer: bool = False
    archiving: bool = False
    unchecked: bool = True
    check: Check | None = None
    looking: int = 0
    suspect: bool = False
    counting: bool = False
    counted: bool = False
    doubted: bool = False
    unsent: bool = False
    committed: bool = False
    flushing: bool = False
    attempts: int = 0
    visit: int = 0
    going: bool = False
    once_more: bool = False
    clock: Callable[[], float] = time.monotonic

    @property
    def lost(self) -> bool:
        """True once the lease has run out or was taken."""
        return self.lost_by(self.clock())

    def lost_by(self, clock: float) -> bool:
        """The same, by what the clock has shown."""
        lease = self.lease
        return lease is None or not lease.held or clock >= lease.expires

    def still(self, visit: int) -> bool:
        """True as long as that what was loaded for this visit, or has come of it, is in hand."""
        return self.instance is not None and self.visit == visit
