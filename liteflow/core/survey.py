"""What the store can tell of the cluster as a whole: which processes live, and how many instances wait.

Times are aware UTC, by the store's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from liteflow.core.models import DefinitionRecord, WorkflowStatus


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process as its last heartbeat told of it.

    It counts as alive until `until`. `definitions` are those that it runs. `schedules` tells that it has a
    scheduler, `leads` that this is the one that works. `clock_offset` is by how many seconds its machine's
    clock is ahead of the store's.
    """

    id: str
    machine: str
    pid: int
    release: str
    started: datetime
    seen: datetime
    until: datetime
    definitions: tuple[DefinitionRecord, ...] = ()
    schedules: bool = False
    leads: bool = False
    clock_offset: float = 0.0


@dataclass(frozen=True, slots=True)
class OpenCount:
    """How many instances of a definition have this status, which is not an ended one."""

    workflow_definition_id: str
    version: int
    status: WorkflowStatus
    count: int


@dataclass(frozen=True, slots=True)
class ParkedCount:
    """How many instances of a definition are parked for one reason, since when at the longest, and one."""

    workflow_definition_id: str
    version: int
    reason: str
    needs: str
    count: int
    since: datetime
    example: str


@dataclass(frozen=True, slots=True)
class OverdueCount:
    """How many instances of a definition are overdue, and the earliest `wake_at` of them."""

    workflow_definition_id: str
    version: int
    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Survey:
    """Counts over all instances, each list in order of id and version."""

    open: list[OpenCount]
    parked: list[ParkedCount]
    overdue: list[OverdueCount]
