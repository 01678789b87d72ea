"""What the store keeps: instances, execution pointers, events, activities, and the records inside them.

These are the *stored* forms. Values that belong to the user (data, items, event data, outcomes) are in
the encoded form of `codec.Plain` throughout; `views.py` shows them decoded. Everything here is plain
data: the rules are in `engine.py`, reading and writing in the providers.

Times are aware UTC datetimes by the store's clock, in microseconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime, timezone

from liteflow.core.codec import Plain

FORMAT_VERSION = 1
"""Version of the stored form. A process parks what has a higher one (design: nothing is guessed)."""


class WorkflowStatus(enum.IntEnum):
    """State of an instance. The numbers are those of the original library."""

    RUNNABLE = 0
    SUSPENDED = 1
    COMPLETE = 2
    TERMINATED = 3

    ended: bool
    """True for COMPLETE and TERMINATED, after which nothing changes any more."""

    def __init__(self, number: int) -> None:
        self.ended = number >= 2


class PointerStatus(enum.IntEnum):
    """State of one activation of a step. The numbers are those of Workflow Core."""

    PENDING = 1
    RUNNING = 2
    COMPLETE = 3
    SLEEPING = 4
    WAITING_FOR_EVENT = 5
    FAILED = 6
    COMPENSATED = 7
    CANCELLED = 8
    PENDING_PREDECESSOR = 9


@dataclass
class Pointer:
    """One activation of a step in an instance.

    `id` is unique in the instance: a number in order of creation, as a string. `scope` holds the ids of
    the enclosing container pointers, outermost first. `sleep_until` is the due time of a sleep or a
    retry pause. `open_children` counts the pointers directly in this container that have not ended, and
    `next_item` the items of a for_each that have begun. `retry_count` is the number of runs that failed
    since the last success or resume. `error` is the last failure in one line, for people. `deadline` is
    when the step's time is up; `timed_out` tells that a wait ended without its event, whose time-out is
    in `sleep_until` meanwhile. `activity` names the activity that is waited for. `completion` orders the
    steps that a saga may have to undo. `compensating` tells that the pointer's block was given up, and
    `undo` whose compensations are to run, the one at work first.
    """

    id: str
    step_id: str
    status: PointerStatus = PointerStatus.PENDING
    scope: tuple[str, ...] = ()
    predecessor_id: str | None = None
    context_item: Plain = None
    persistence_data: Plain = None
    sleep_until: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    event_name: str | None = None
    event_key: str | None = None
    event_since: datetime | None = None
    event_published: bool = False
    event_data: Plain = None
    outcome: Plain = None
    retry_count: int = 0
    open_children: int = 0
    next_item: int = 0
    error: str | None = None
    deadline: datetime | None = None
    timed_out: bool = False
    activity: str | None = None
    completion: int = 0
    compensating: bool = False
    undo: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """True when the activation is over and only history is left of it.

        A FAILED pointer without an end is one that a resume runs again.
        """
        return self.end_time is not None

    def copy(self) -> Pointer:
        """A pointer of its own with the same values. (`copy.copy` takes ten times as long.)"""
        taken = Pointer.__new__(Pointer)
        taken.__dict__ = self.__dict__.copy()
        return taken


FIRST_POINTER = "1"
"""Id of the pointer that an instance begins with."""

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""Before anything that happened here."""

GIVEN_BACK = EPOCH
"""The end of a claim that its process has given up in good order: anybody may take it; nobody has died."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who runs a long step outside the instance's lease: the process, a random token, until when."""

    by: str
    token: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """One entry of an instance's inbox: something asked of it from outside its lease.

    `kind` is suspend, resume, terminate or result. `id` makes it idempotent. `sequence` is given by the
    store. `arguments` belong to the kind.
    """

    kind: str
    id: str
    time: datetime
    by: str = ""
    why: str = ""
    arguments: Plain = None
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A message that a commit has caused and that is sent after it, at least once, in order."""

    sequence: int
    kind: str
    time: datetime
    body: Plain = None


@dataclass(frozen=True, slots=True)
class Parked:
    """Why an instance can't go on for a reason outside the workflow, since when, what it needs."""

    reason: str
    since: datetime
    needs: str


@dataclass(frozen=True, slots=True)
class Wait:
    """An open wait of an instance, in the form that is indexed: events of name and key since then."""

    name: str
    key: str
    since: datetime
    pointer_id: str


class _Pointers:
    """The pointers of an instance, and what is remembered of them while they stay as they are."""

    pointers: dict[str, Pointer]
    _open: list[Pointer] | None = None

    def open_pointers(self) -> list[Pointer]:
        """The pointers that have not ended, in order of creation. The list is not the caller's to change."""
        if self._open is not None:
            return self._open
        return [pointer for pointer in self.pointers.values() if pointer.end_time is None]

    def settle(self) -> list[Pointer]:
        """The open pointers, which from here on need not be looked for: all pointers stay as they are now."""
        self._open = [pointer for pointer in self.pointers.values() if pointer.end_time is None]
        return self._open

    def unsettle(self) -> None:
        """The pointers are about to be changed."""
        self._open = None


@dataclass
class Instance(_Pointers):
    """One run of a definition, as stored.

    `data` maps the (escaped) top-level attribute names to their encoded values. `revision` counts
    commits. `wake_at` is when, at the latest, somebody has to look at the instance; None when only an
    event or a request can move it. `message_sent` tells that a wake-up is believed to be under way, so
    that a sweep need not send another one into a backlog. `inbox_sequence` counts the requests ever
    received. `crashes` counts the runs in a row that ended with their process instead of a commit.
    `applied` are the ids of the requests applied lately. `consumed` maps name and key (see
    `wait_key`) to the ids of the events taken. `items` holds the collections of for_each containers by
    pointer id. `begun` is False as long as no process that knows the definition has looked at it.
    `deadline` is when its time is up, until that has been dealt with. `completions` counts what
    `Pointer.completion` orders. `parent` is the id of the instance that started this one as its child and
    waits for its end.
    """

    id: str
    workflow_definition_id: str
    version: int
    create_time: datetime
    fingerprint: str = ""
    status: WorkflowStatus = WorkflowStatus.RUNNABLE
    data: dict[str, Plain] = field(default_factory=dict)
    reference: str | None = None
    description: str | None = None
    complete_time: datetime | None = None
    reason: str | None = None
    revision: int = 0
    token: str = ""
    begun: bool = True
    wake_at: datetime | None = None
    next_execution: datetime | None = None
    message_sent: bool = False
    pointers: dict[str, Pointer] = field(default_factory=dict)
    pointer_sequence: int = 0
    items: dict[str, list[Plain]] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    inbox: list[Request] = field(default_factory=list)
    inbox_sequence: int = 0
    applied: list[str] = field(default_factory=list)
    outbox: list[OutboxItem] = field(default_factory=list)
    outbox_sequence: int = 0
    consumed: dict[str, list[str]] = field(default_factory=dict)
    crashes: int = 0
    parked: Parked | None = None
    traceparent: str | None = None
    deadline: datetime | None = None
    completions: int = 0
    parent: str | None = None

    def waits(self) -> list[Wait]:
        """The open waits; what the store indexes is this list."""
        return [
            Wait(p.event_name, p.event_key, p.event_since, p.id)
            for p in self.pointers.values()
            if p.status is PointerStatus.WAITING_FOR_EVENT
            and not p.event_published
            and p.event_name is not None
            and p.event_key is not None
            and p.event_since is not None
        ]

    def copy(self) -> Instance:
        """An instance of its own as far as commits change it: containers are copied, values shared.

        Pointers are shared too: whoever changes one takes a copy of it first.
        """
        taken = Instance.__new__(Instance)
        taken.__dict__ = self.__dict__.copy()
        taken._open = None
        taken.data = dict(self.data)
        taken.pointers = dict(self.pointers)
        taken.items = dict(self.items)
        taken.claims = dict(self.claims)
        return taken


def wait_key(name: str, key: str) -> str:
    """One string for an event name and key, for the keys of `Instance.consumed`. Unambiguous."""
    return f"{len(name)}:{name}:{key}"


@dataclass(slots=True)
class Event:
    """An entry of the event log. `time` is the effective date; one in the future holds it until then.

    `processed` is when those were woken who waited for it; from then on it is kept for who waits later.
    """

    id: str
    name: str
    key: str
    time: datetime
    data: Plain = None
    processed: datetime | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class Activity:
    """A piece of work that an instance offers to workers outside, who lease it and send a result.

    `id` is also the key of the event that ends the instance's wait for it. `time` is since when it is
    offered. `token`, `worker` and `until` are of the lease under which somebody has it; without one they
    are empty. `done` ones are kept as a mark, so that offering them again does nothing.
    """

    id: str
    name: str
    parameters: Plain
    time: datetime
    instance_id: str
    token: str = ""
    worker: str = ""
    until: datetime | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """One failed attempt of a step. `attempt` counts from 1."""

    instance_id: str
    pointer_id: str
    step_id: str
    attempt: int
    time: datetime
    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class DefinitionRecord:
    """What the store knows of a definition: enough to accept a start of it from anywhere."""

    id: str
    version: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """One row of a listing."""

    id: str
    status: WorkflowStatus
    workflow_definition_id: str
    version: int
    reference: str | None
    create_time: datetime
    complete_time: datetime | None = None
    parked: str | None = None
