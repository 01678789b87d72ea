"""What is looked at in a cluster whose servers answer: who is there, what waits, and for whom.

Each check gets the cluster as it was read once, and gives its findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from liteflow.core.commands import CommandServer, DeadLetters
from liteflow.core.findings import Finding, problem, warning, well
from liteflow.core.host import WorkflowHost
from liteflow.core.models import DefinitionRecord, WorkflowStatus
from liteflow.core.presence import DefinitionKey, clock_offset
from liteflow.core.providers import EVENTS_QUEUE, QueueState, workflow_queue
from liteflow.core.survey import ProcessRecord, Survey

OVERDUE_AFTER = 5.0
"""Seconds for which `wake_at` may be over before it counts as overdue: the scheduler looks sooner."""

CLOCK_TOLERANCE = 1.0
"""Seconds by which a clock may differ from the store's."""

CONSUMER_TIMEOUT = 60.0
"""Seconds for which a busy worker may hold a message: far less than a step takes, but not nothing."""

REASONS_SHOWN = 5
"""So many dead letters are told of one by one."""

BACKLOG = 10_000
"""Messages that wait in one queue; with more of them the workers can't keep up."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What is known of a recorded definition, or of one that instances have without its being recorded."""

    id: str
    version: int
    fingerprint: str
    recorded: bool
    workers: int
    runnable: int = 0
    suspended: int = 0
    parked: int = 0

    @property
    def open(self) -> int:
        """Instances that have not ended."""
        return self.runnable + self.suspended

    @property
    def waits_for_worker(self) -> bool:
        """True if there are instances and nobody to run them."""
        return self.open > 0 and self.workers == 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """All that the checks look at. `now` is the store's time."""

    now: datetime
    local_offset: float
    processes: list[ProcessRecord]
    survey: Survey
    definitions: list[Definition]
    next_due: datetime | None
    queues: list[QueueState] = field(default_factory=list)
    dead: DeadLetters | None = None

    @property
    def alive(self) -> list[ProcessRecord]:
        """Processes whose heartbeat is not over."""
        return [process for process in self.processes if process.until > self.now]

    @property
    def workers(self) -> list[ProcessRecord]:
        """Living processes that run workflows."""
        return [process for process in self.alive if process.definitions]


def definitions(
    records: Sequence[DefinitionRecord], processes: Sequence[ProcessRecord], survey: Survey
) -> list[Definition]:
    """What there is of each definition, in order. `processes` are the living ones."""
    recorded = {(record.id, record.version): record.fingerprint for record in records}
    workers: dict[DefinitionKey, int] = {}
    for process in processes:
        for known in process.definitions:
            workers[known.id, known.version] = workers.get((known.id, known.version), 0) + 1
    status: dict[tuple[str, int, WorkflowStatus], int] = {
        (one.workflow_definition_id, one.version, one.status): one.count for one in survey.open
    }
    parked: dict[DefinitionKey, int] = {}
    for group in survey.parked:
        key = group.workflow_definition_id, group.version
        parked[key] = parked.get(key, 0) + group.count
    keys = {*recorded, *((workflow, version) for workflow, version, _ in status)}
    return [
        Definition(
            *key,
            fingerprint=recorded.get(key, ""),
            recorded=key in recorded,
            workers=workers.get(key, 0),
            runnable=status.get((*key, WorkflowStatus.RUNNABLE), 0),
            suspended=status.get((*key, WorkflowStatus.SUSPENDED), 0),
            parked=parked.get(key, 0),
        )
        for key in sorted(keys)
    ]


def look(host: WorkflowHost, *, with_queues: bool = True) -> Cluster:
    """Read what the checks need, from the store and, if it answers, from the queue server."""
    persistence = host.persistence
    now = persistence.now()
    processes = persistence.processes()
    survey = persistence.survey(now - timedelta(seconds=OVERDUE_AFTER))
    known = definitions(
        persistence.definitions(), [process for process in processes if process.until > now], survey
    )
    queues: list[QueueState] = []
    dead = None
    if with_queues:
        names = [EVENTS_QUEUE, *(workflow_queue(one.id, one.version) for one in known)]
        queues = host.queue.inspect(names)
        if isinstance(host.queue, CommandServer):
            dead = host.queue.dead_letters(REASONS_SHOWN)
    return Cluster(now, clock_offset(now), processes, survey, known, persistence.next_due(), queues, dead)


def examine(cluster: Cluster) -> list[Finding]:
    """All findings."""
    return [
        *_clocks(cluster),
        *_processes(cluster),
        *_schedulers(cluster),
        *_definitions(cluster),
        *_parked(cluster),
        *_overdue(cluster),
        *_queues(cluster),
        *_dead_letters(cluster),
    ]


def _clocks(cluster: Cluster) -> Iterator[Finding]:
    off = [
        f"{process.machine} (process {process.pid}) by {process.clock_offset:+.1f} s"
        for process in cluster.alive
        if abs(process.clock_offset) > CLOCK_TOLERANCE
    ]
    if abs(cluster.local_offset) > CLOCK_TOLERANCE:
        off.append(f"this machine by {cluster.local_offset:+.1f} s")
    if off:
        yield warning(
            "clocks",
            f"clocks differ from the store's: {', '.join(off)}",
            "have all machines keep time by NTP; due times go by the store's clock, but logs and the"
            " times that steps write do not",
        )
    else:
        yield well("clocks", f"all within {CLOCK_TOLERANCE:g} s of the store's")


def _processes(cluster: Cluster) -> Iterator[Finding]:
    if not cluster.workers:
        yield problem("workers", "no worker is alive: no workflow goes on", "start `liteflow worker MODULE`")
    else:
        machines = len({process.machine for process in cluster.workers})
        yield well("workers", f"{len(cluster.workers)} alive, on {_count(machines, 'machine')}")
    for process in cluster.processes:
        if process.until <= cluster.now:
            yield warning(
                "workers",
                f"process {process.pid} on {process.machine} has not been heard of since"
                f" {process.seen:%Y-%m-%d %H:%M:%S} UTC, and did not say that it ends",
                "look into its log; it is forgotten after a day",
            )
    releases = sorted({process.release for process in cluster.alive})
    if len(releases) > 1:
        yield well("workers", f"releases of liteflow side by side: {', '.join(releases)}")


def _schedulers(cluster: Cluster) -> Iterator[Finding]:
    schedulers = [process for process in cluster.alive if process.schedules]
    if not schedulers:
        yield problem(
            "scheduler",
            "no scheduler is alive: timers do not fire, and what gets lost is not found again",
            "start two of `liteflow scheduler`",
        )
    elif not any(process.leads for process in schedulers):
        yield warning(
            "scheduler",
            f"{len(schedulers)} alive, but none of them leads",
            "wait for the lease of the last one to end (--lease-ttl); if it stays so, check the lock server",
        )
    elif len(schedulers) == 1:
        yield warning(
            "scheduler", "a single one is alive, and leads: if it ends, timers wait", "start a second one"
        )
    else:
        yield well("scheduler", f"{len(schedulers)} alive, one leads")


def _definitions(cluster: Cluster) -> Iterator[Finding]:
    orphans = [one for one in cluster.definitions if one.waits_for_worker]
    for one in orphans:
        yield problem(
            "definitions",
            f"{_count(one.open, 'open instance')} of {one.id} version {one.version} "
            f"{'waits' if one.open == 1 else 'wait'} for a worker: none that is alive knows it",
            "start a worker that has this version; or let them end with `liteflow terminate` once one runs",
        )
    for newest in _newest(cluster.definitions):
        if newest.workers == 0 and newest.recorded and not newest.waits_for_worker:
            yield warning(
                "definitions",
                f"{newest.id} version {newest.version} is the newest that is recorded, so that starts without"
                " a version get it, but no worker that is alive knows it",
                f"start one, or, if it was rolled back, `liteflow retire {newest.id} {newest.version}`",
            )
    yield from _changed(cluster)
    if not orphans:
        yield well(
            "definitions",
            f"{len(cluster.definitions)} known; every open instance has a worker that knows its definition",
        )


def _newest(known: Sequence[Definition]) -> list[Definition]:
    return list({one.id: one for one in known if one.recorded}.values())


def _changed(cluster: Cluster) -> Iterator[Finding]:
    """One version, two structures: each worker sets aside what the other has begun."""
    prints: dict[DefinitionKey, set[str]] = {}
    for process in cluster.workers:
        for known in process.definitions:
            prints.setdefault((known.id, known.version), set()).add(known.fingerprint)
    for (workflow, version), found in sorted(prints.items()):
        if len(found) > 1:
            yield warning(
                "definitions",
                f"workers have {len(found)} different definitions of {workflow} version {version}",
                "give a changed structure a new version; each worker goes on with its own instances alone",
            )


def _parked(cluster: Cluster) -> Iterator[Finding]:
    known = {(one.id, one.version) for process in cluster.workers for one in process.definitions}
    for group in cluster.survey.parked:
        key = group.workflow_definition_id, group.version
        what = (
            f"{_count(group.count, 'instance')} of {key[0]} version {key[1]} parked since"
            f" {group.since:%Y-%m-%d %H:%M:%S} UTC at the longest: {group.reason}"
        )
        advice = f"provide {group.needs}; `liteflow show {group.example}` shows one of them"
        if key in known and group.reason.startswith("no worker with"):
            advice = "a worker that has it is alive: restart it, and it looks at them again"
        yield problem("parked", what, advice)
    if not cluster.survey.parked:
        yield well("parked", "no instance is parked")


def _overdue(cluster: Cluster) -> Iterator[Finding]:
    leads = any(process.leads for process in cluster.alive)
    why = "the scheduler does not keep up" if leads else "no scheduler is at work"
    advice = "look into its log, and at the load of the store" if leads else "start `liteflow scheduler`"
    for group in cluster.survey.overdue:
        late = (cluster.now - group.oldest).total_seconds()
        yield problem(
            "overdue",
            f"{_count(group.count, 'instance')} of {group.workflow_definition_id} version {group.version}"
            f" should have been looked at, the oldest {late:.0f} s ago: {why}",
            advice,
        )
    if cluster.survey.overdue:
        return
    late = 0.0 if cluster.next_due is None else (cluster.now - cluster.next_due).total_seconds()
    if late > OVERDUE_AFTER:
        yield problem("overdue", f"events wait to be delivered, the oldest for {late:.0f} s: {why}", advice)
    else:
        yield well("overdue", "nothing is overdue")


def _queues(cluster: Cluster) -> Iterator[Finding]:
    workers = {workflow_queue(one.id, one.version): one.workers for one in cluster.definitions}
    sound = True
    for state in cluster.queues:
        for finding in _queue(state, workers.get(state.queue, len(cluster.workers))):
            sound = False
            yield finding
    if cluster.queues and sound:
        waiting = sum(state.ready for state in cluster.queues)
        what = f"{len(cluster.queues)} queues, {_count(waiting, 'message')} waiting"
        if all(state.unacknowledged is not None for state in cluster.queues):
            what += f", {sum(state.unacknowledged or 0 for state in cluster.queues)} unacknowledged"
        yield well("queues", what)


def _queue(state: QueueState, workers: int) -> Iterator[Finding]:
    name = f"queue {state.queue!r}"
    if state.exists is False:
        if workers:
            yield problem(
                "queues", f"{name} is missing, though workers should consume from it", "restart the workers"
            )
        return
    if workers and state.consumers == 0 and state.ready:
        yield warning(
            "queues",
            f"{name} has {_count(state.ready, 'message')} and no consumer, though {workers} workers know"
            " the definition",
            "all their slots may be taken by long steps: add workers or --concurrency; else see their logs",
        )
    if state.ready > BACKLOG:
        yield warning("queues", f"{name} has a backlog of {state.ready} messages", "add workers")
    if state.consumer_timeout is not None and state.consumer_timeout < CONSUMER_TIMEOUT:
        yield warning(
            "queues",
            f"{name} has a consumer time-out of {state.consumer_timeout:g} s: a busy worker may lose its"
            " connection",
            f"make it {CONSUMER_TIMEOUT:g} s or more",
        )
    if state.kind == "classic":
        yield warning(
            "queues",
            f"{name} is a classic queue: its messages are lost with their node (and found again after some"
            " seconds)",
            "delete it while it is empty; workers declare it anew as a quorum queue",
        )


def _dead_letters(cluster: Cluster) -> Iterator[Finding]:
    if cluster.dead is None:
        return
    if cluster.dead.count == 0:
        yield well("dead letters", "no command was refused")
        return
    reasons = "; ".join(
        f"{letter.routing_key or '?'}: {letter.error or 'unknown'} ({letter.reason})"
        for letter in cluster.dead.first
    )
    yield warning(
        "dead letters",
        f"{_count(cluster.dead.count, 'refused command')}, the first: {reasons}",
        "mend their senders; send again what is right by now, and remove it from the queue of dead letters",
    )


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
