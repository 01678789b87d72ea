"""The three contracts that a backend implements: persistence, queue, lock.

A provider stores, finds and compares; every decision is in core. All methods may be called from any
thread at once. They raise `StoreUnavailableError`, `QueueUnavailableError` or `LockUnavailableError`
for failures that trying again may cure, `ProviderError` for others; no driver's exception leaves a
provider. Calls take lists, because work arrives in batches and one trip for many is what makes it fast.

`liteflow.core.testing` has a suite for each contract; a provider that passes it works.
"""

from __future__ import annotations

import abc
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from liteflow.core.findings import Finding
from liteflow.core.models import (
    Activity,
    Claim,
    DefinitionRecord,
    ErrorRecord,
    Event,
    Instance,
    Parked,
    Pointer,
    Request,
    Wait,
    WorkflowStatus,
    WorkflowSummary,
)
from liteflow.core.survey import ProcessRecord, Survey
from liteflow.core.transition import Outcome, Transition


class Provider(abc.ABC):
    """What all three have in common."""

    shared: bool = True
    """False if its state lives in this process only. Mixing shared and process-local is refused."""

    @abc.abstractmethod
    def open(self) -> None:
        """Connect and make ready (indexes, topology). Calling it again does nothing.

        Does not fail because a server is away for a moment where the driver reconnects by itself; a
        wrong password or an impossible setting raises `ProviderError`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give back connections and threads. Safe at any time, also twice; `open` works again after."""

    def check(self) -> list[Finding]:
        """Look at the servers: do they answer, in a version, with settings and permissions that will do?

        Needs no `open`, and creates nothing that stays. What goes wrong is a finding, not an exception. A
        provider without servers has nothing to find.
        """
        return []

    def describe(self) -> str:
        """The server that an open provider is connected to, and its version, in a few words for people.

        Empty if there is nothing to tell. Without names or passwords of users.
        """
        return ""


# ---------------------------------------------------------------------------------------- persistence


class RequestOutcome(enum.Enum):
    """What became of a request for an instance's inbox."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """A request of this id is in the inbox or was applied before: nothing to do."""
    ENDED = "ended"
    """The instance has ended; nothing was stored."""
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Due:
    """An instance that somebody has to look at now.

    `holds` counts how often in a row it was held by the scheduler without a commit since.
    `message_sent` tells that a message for it should be under way already.
    """

    instance_id: str
    workflow_definition_id: str
    version: int
    wake_at: datetime
    message_sent: bool
    holds: int


@dataclass(frozen=True, slots=True)
class Waiter:
    """An instance that waits for an event: what is needed to send it a wake-up."""

    instance_id: str
    workflow_definition_id: str
    version: int


@dataclass(frozen=True, slots=True)
class ClaimRenewal:
    """Asks to move the end of one claim. It is still mine if the stored token is `claim.token`."""

    instance_id: str
    pointer_id: str
    claim: Claim
    until: datetime


@dataclass(frozen=True, slots=True)
class WakeMove:
    """Asks to set `wake_at` to `new`, if revision, inbox_sequence and wake_at still are as they were read.

    Where it only lowers `wake_at`, that need not be as it was read. `message_sent` tells that a wake-up
    is being sent, so that `new` is when it counts as lost.
    """

    instance_id: str
    revision: int
    inbox_sequence: int
    expected: datetime | None
    new: datetime | None
    message_sent: bool = False


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Which instances a listing is to show; newest first. `cursor` is what the page before returned.

    Times are ``created_after <= create_time < created_before``.
    """

    status: WorkflowStatus | None = None
    workflow: str | None = None
    reference: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    parked: bool | None = None
    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, and the cursor for the next one (None after the last)."""

    items: list[WorkflowSummary]
    next: str | None


class PersistenceProvider(Provider):
    """Stores instances, events, activities, history, errors and the definitions that are known.

    What it has written when a method returns is durable (survives the crash of the server). No method
    but `commit` changes `revision`; what the others clear they clear by comparing.
    """

    embedded: bool = False
    """True if it also serves a single process, as a file does, with a lock and a queue of that process."""

    @abc.abstractmethod
    def now(self) -> datetime:
        """The store's clock, aware UTC, in microseconds. Cheap: a measured offset to the local one."""

    @property
    def clock_uncertainty(self) -> timedelta:
        """By how much `now` of two processes may differ for the same instant."""
        return timedelta(0)

    @abc.abstractmethod
    def create(self, instances: Sequence[Instance]) -> list[bool]:
        """Insert instances. False for each whose id exists already, which is left as it is.

        One that is there with the same token, not an empty one, is this very one, stored by a call whose
        answer got lost: that is True. `DataError`, before any is stored, for one that can't be.
        """

    @abc.abstractmethod
    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        """The working documents of those that exist, by id.

        One that can't be read stands there as its `InstanceUnreadableError` or `DataError`; it does
        not spoil the others. Callers own what they get: no two calls share an object.
        """

    @abc.abstractmethod
    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        """Apply each transition on its own, if its instance is at `revision` and `inbox_sequence`, and has
        the claims that it expects.

        Outcomes come in the order of the transitions. Error records of a transition are stored before
        it, by (instance, revision, pointer, attempt), once; attempts begin anew after a success or a
        resume. A transition that was stored already (same token) is COMMITTED. Never raises for a
        transition's own fault: see `Outcome`. An instance appears at most once in a call. Never an upsert.
        """

    @abc.abstractmethod
    def archive(self, pointers: Sequence[tuple[str, Pointer]]) -> None:
        """Copy ended pointers, each with its instance id, to the history. Copying again does no harm."""

    @abc.abstractmethod
    def history(self, instance_id: str) -> list[Pointer]:
        """The archived pointers of an instance, in order of their ids as numbers."""

    @abc.abstractmethod
    def request(self, instance_id: str, request: Request, wake_at: datetime) -> RequestOutcome:
        """Append to the inbox with the next sequence, and lower `wake_at` to the given time, in one act.

        A duplicate is told from what is in the inbox and in `applied`, also when the instance has ended.
        """

    @abc.abstractmethod
    def lower_wake(self, wakes: Mapping[str, datetime]) -> None:
        """Lower `wake_at` of running and suspended instances to these times, where it is later or empty.

        Clears `message_sent` and the count of holds: who asks for this has a wake-up in hand and will
        acknowledge it, so that there may be no other.
        """

    @abc.abstractmethod
    def move_wake(self, moves: Sequence[WakeMove]) -> None:
        """Set `wake_at` where nothing has changed since it was read, or where that lowers it.

        A request that came in between is a change, also where it found `wake_at` early enough: it relies
        on it. To lower it hides nothing, so only revision and inbox have to be as they were.
        Clears the hold, its count and `parked`: who asks for this has looked. Need not be durable: losing it
        costs a needless look. With `message_sent`, any `load` after it sees it; else that may take a moment.
        """

    @abc.abstractmethod
    def count_crash(self, instance_id: str, revision: int, by: int) -> None:
        """Change `crashes` by so many, if the instance still is at this revision. Durable when it returns."""

    @abc.abstractmethod
    def park(self, instance_id: str, revision: int, parked: Parked) -> None:
        """Mark an instance as parked and empty its `wake_at`, if it still is at this revision.

        `revision` -1 stands for any, for an instance that could not be read.
        """

    @abc.abstractmethod
    def parked(self, workflow_definition_id: str, version: int, after: str, limit: int) -> list[Waiter]:
        """Parked instances of a definition, to be looked at again, in order of id, those after `after`."""

    @abc.abstractmethod
    def hold_due(self, now: datetime, hold: Callable[[Due], datetime | Parked], limit: int) -> list[Due]:
        """Instances with `wake_at` up to now, earliest first, at most `limit`, each now held or parked.

        Where `hold(due)` is a time, `wake_at` is set to it, and the count of holds is raised. Where it is a
        reason to park, that is stored, and `wake_at` emptied. Both compare with the revision and the
        `wake_at` that were read; those that changed in between are left out of the answer. One for which
        neither a message nor a hold is there may also be held if it changed but is still due: the caller
        sends its id after that in any case.
        """

    @abc.abstractmethod
    def next_due(self) -> datetime | None:
        """The earliest `wake_at` of all instances, and times of unprocessed events, if any."""

    @abc.abstractmethod
    def renew_claims(self, renewals: Sequence[ClaimRenewal]) -> list[bool]:
        """Move the ends of claims that still have their token; False for those that are gone.

        Where `wake_at` was the earliest end of the instance's claims, it moves along to their new
        earliest end; otherwise it stays.
        """

    @abc.abstractmethod
    def add_event(self, event: Event) -> bool:
        """Append to the event log. False if an event of this id is there already."""

    @abc.abstractmethod
    def events(self, waits: Sequence[Wait], now: datetime, limit: int) -> list[Event]:
        """Logged events that fit any of the waits: same name and key, since <= time <= now.

        In order of time, then id. At most `limit` for each wait.
        """

    @abc.abstractmethod
    def event(self, event_id: str) -> Event | None:
        """One event of the log."""

    @abc.abstractmethod
    def waiting_for(self, name: str, key: str, after: str, limit: int) -> list[Waiter]:
        """Instances with an open wait for this name and key, in order of id, those after `after`."""

    @abc.abstractmethod
    def hold_events(self, now: datetime, hold_until: datetime, limit: int) -> list[Event]:
        """Unprocessed events whose time has come and that nobody holds, each now held until then."""

    @abc.abstractmethod
    def mark_processed(self, event_ids: Sequence[str]) -> None:
        """Their waiters have been woken."""

    @abc.abstractmethod
    def offer_activities(self, activities: Sequence[Activity]) -> None:
        """Insert those whose id is not there; one that is, done or not, is left as it is.

        `DataError`, before any is stored, for one that can't be.
        """

    @abc.abstractmethod
    def take_activity(
        self, name: str, worker: str, token: str, now: datetime, until: datetime
    ) -> Activity | None:
        """Lease the oldest (time, then id) activity of this name that is neither done nor leased at `now`.

        One act: no two callers get the same one. `token` is random and not empty; a lease ends at its
        `until`, from when on another may begin.
        """

    @abc.abstractmethod
    def activity(self, token: str) -> Activity | None:
        """The activity that is leased under this token and not done, even if the lease has run out.

        None once it is done, given back, or leased anew under another token.
        """

    @abc.abstractmethod
    def finish_activity(self, activity_id: str) -> None:
        """Mark it as done, whoever has it: nobody takes it any more, and its token is void."""

    @abc.abstractmethod
    def release_activity(self, token: str) -> bool:
        """Give an activity back, for anybody to take. False if none is leased under this token."""

    @abc.abstractmethod
    def withdraw_activities(self, activity_ids: Sequence[str]) -> None:
        """Delete these, done or not."""

    @abc.abstractmethod
    def purge(self, status: WorkflowStatus, older_than: datetime, limit: int) -> int:
        """Delete at most `limit` instances of this status that ended before then, the earliest first.

        All that belongs to them goes too: history, errors, activities. It goes first, so that what a
        crash leaves is found again. An instance with something in its outbox is left for later. Returns
        how many instances were deleted. `ProviderError` if the status is not that of an ended instance.
        """

    @abc.abstractmethod
    def purge_events(self, before: datetime, limit: int, unless_awaited: Sequence[str] = ()) -> int:
        """Delete at most `limit` events that were processed before this; returns how many it has dealt with.

        How old they say they are does not count: an event of long ago may have come just now. Those of the
        names `unless_awaited` for which some instance waits count as processed now, and are kept.
        """

    @abc.abstractmethod
    def errors(self, instance_id: str, limit: int) -> list[ErrorRecord]:
        """The kept errors of an instance, oldest first, at most the last `limit`."""

    @abc.abstractmethod
    def record_definitions(self, definitions: Sequence[DefinitionRecord]) -> None:
        """Remember definitions, so that any process accepts starts of them."""

    @abc.abstractmethod
    def definitions(self, workflow_definition_id: str | None = None) -> list[DefinitionRecord]:
        """The recorded definitions, all or of one id."""

    @abc.abstractmethod
    def forget_definition(self, workflow_definition_id: str, version: int) -> bool:
        """Accept no more starts of a definition. False if it is not recorded."""

    @abc.abstractmethod
    def beat(self, process: ProcessRecord) -> None:
        """Store the heartbeat of a process over its last one. `processes` shows it when this returns."""

    @abc.abstractmethod
    def processes(self) -> list[ProcessRecord]:
        """The last heartbeats of all processes, in order of id; also of those that are dead."""

    @abc.abstractmethod
    def forget_processes(self, process_ids: Sequence[str]) -> None:
        """Delete their records: they have ended."""

    @abc.abstractmethod
    def survey(self, overdue_since: datetime) -> Survey:
        """Count the open instances, the parked ones, and those with `wake_at` up to a time.

        For people: it may take a second for every million instances.
        """

    @abc.abstractmethod
    def list(self, query: ListFilter) -> Page:
        """Summaries of instances, newest first (create_time, then id, both descending)."""


# ---------------------------------------------------------------------------------------------- queue


@dataclass(frozen=True, slots=True)
class Message:
    """A wake-up or another short message. `queue` is a logical name (see `workflow_queue`).

    `body` is an id, or several (see `bundled`): below a thousand bytes.

    `early` tells that it was sent while the instance was still being stored: see `liteflow.core.early`.
    `recalled` tells that it replaces one that was lost with the process that had it, and may have died of it;
    that is so with queues in a process only, so that no other has to carry it.
    """

    queue: str
    body: str
    traceparent: str | None = None
    early: bool = False
    recalled: bool = False


EVENTS_QUEUE = "events"
"""Carries ids of events whose waiters are to be woken."""


def workflow_queue(workflow_definition_id: str, version: int) -> str:
    """Name of the queue of one definition: only processes that have it consume from it."""
    return f"workflows.{workflow_definition_id}.{version}"


class Delivery(abc.ABC):
    """One message in this process's hands. Exactly one of `ack` and `nack` is called, once, by anyone.

    Both return at once and never raise: after a lost connection they do nothing, since the server
    delivers again by itself.
    """

    message: Message
    redelivered: bool

    @abc.abstractmethod
    def ack(self) -> None:
        """Done with it: it is never delivered again."""

    @abc.abstractmethod
    def nack(self) -> None:
        """Give it back, for anybody to take."""


class Consumer(abc.ABC):
    """A running subscription to some queues."""

    @abc.abstractmethod
    def limit(self, prefetch: int) -> None:
        """At most so many unacknowledged messages for each queue from now on; 0 takes no more.

        What was pushed beyond a new, lower limit and not handed to the callback goes back. Returns
        at once.
        """

    @abc.abstractmethod
    def cancel(self) -> None:
        """End it; returns when no callback runs any more. Unacknowledged messages stay the holder's."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What is known of a queue. `queue` is its logical name; None is what the provider can't tell.

    `kind` is the server's word for the kind of queue. `consumer_timeout` is after how many seconds the server
    takes a message for lost that a consumer has not acknowledged. One that does not exist has all counts 0.
    """

    queue: str
    exists: bool | None
    ready: int
    unacknowledged: int | None = None
    consumers: int | None = None
    kind: str | None = None
    consumer_timeout: float | None = None


class QueueProvider(Provider):
    """Durable queues of short messages, and a broadcast."""

    prompt: bool = False
    """True if a broadcast is heard within about a millisecond, and costs next to nothing.

    Then the end of a lone instance is also broadcast while it is being stored, and looked for from then on.
    """

    @abc.abstractmethod
    def send(self, messages: Sequence[Message]) -> None:
        """Returns when all are stored durably (confirmed). Creates queues that don't exist yet."""

    def begin_send(self, messages: Sequence[Message]) -> Callable[[], None]:
        """Begin to send; what is returned waits until all are stored, and raises what `send` would.

        Returns at once and never raises. A provider that can send without waiting overrides it, and then
        delivers `Message.early` as it was sent; this one sends when it is waited for.
        """
        return partial(self.send, messages)

    @abc.abstractmethod
    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """Push messages to `callback`, which must return quickly, from a thread of the provider.

        Creates the queues. Survives reconnections: the subscription is set up anew.
        """

    @abc.abstractmethod
    def depth(self, queue: str) -> int:
        """Messages ready for delivery in a queue, about; 0 for one that does not exist."""

    def inspect(self, queues: Sequence[str]) -> list[QueueState]:
        """What can be told of these queues, in their order. Creates none."""
        return [QueueState(queue, None, self.depth(queue)) for queue in queues]

    @abc.abstractmethod
    def notify(self, topic: str, body: str = "") -> None:
        """Broadcast to all subscribers of a topic, in every process. Returns at once; may get lost."""

    @abc.abstractmethod
    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with the body of each broadcast on the topic. Returns what ends the subscription.

        When it returns, the subscription is in force. The callback must return quickly.
        """


# ----------------------------------------------------------------------------------------------- lock


@dataclass(slots=True)
class Lease:
    """A lease that was got: its name, random token, and when it ends by this process's monotonic clock.

    `expires` is lowered by the provider's drift bound and moves with each renewal.
    """

    name: str
    token: str
    expires: float
    held: bool = field(default=True)


@dataclass(frozen=True, slots=True)
class Taken:
    """Somebody else has the lease, and a mark was left for them.

    `expires_in` is about how many seconds at most it still runs if they die. `resend` tells that
    undoing a partly acquired lease met a mark: somebody was turned away by us, so the id has to be
    sent again.
    """

    expires_in: float
    resend: bool = False


class LockProvider(Provider):
    """Leases by name. Failing to get one and leaving a mark for its holder are one atomic act.

    Where the server can't do both at once, the order of its calls has to come to the same.
    """

    shortest_ttl: float = 0.0
    """Seconds: a lease for less than that is made for that long."""

    longest_ttl: float = math.inf
    """Seconds: a lease for more than that is refused, and so is a host with such a `lease_ttl`."""

    @abc.abstractmethod
    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        """Try once for each name, for `ttl` seconds; never waits for a holder.

        `LockUnavailableError` if no decision was possible (no majority answers).
        """

    @abc.abstractmethod
    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Extend leases that are still ours, and their `expires`. False: lost (`held` becomes False).

        If the servers can't be asked, a lease counts as held until `expires`.
        """

    @abc.abstractmethod
    def release(self, leases: Sequence[Lease]) -> list[bool]:
        """Give leases back. True only for a clean release: ours, and unmarked, by a majority.

        Anything else (marked, not ours any more, servers restarted or away) is False: the holder has
        to look again or have somebody look. Never raises.
        """
