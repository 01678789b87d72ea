"""The promises, each as a check of the evidence that names every place where it was broken."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from chaos.evidence import Evidence, Run
from chaos.faults import LEASE_TTL
from chaos.workflows import RAN, expected_steps

from liteflow.core import PointerStatus, WorkflowStatus

EARLY = 0.002
"""Seconds that clocks and their reading are apart."""

RUNNABLE, SUSPENDED = int(WorkflowStatus.RUNNABLE), int(WorkflowStatus.SUSPENDED)
COMPLETE, TERMINATED = int(WorkflowStatus.COMPLETE), int(WorkflowStatus.TERMINATED)


@dataclass(frozen=True)
class Violation:
    """A broken promise, with what shows it."""

    promise: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.evidence}"


Check = Callable[[Evidence], Iterator[str]]


def nothing_accepted_is_lost(evidence: Evidence) -> Iterator[str]:
    references: Counter[str] = Counter(d.get("reference") for d in evidence.documents.values())
    for line in evidence.lines("started"):
        if line["instance"] not in evidence.documents:
            yield f"{line['workflow']} {line['instance']}, accepted at {line['mono']:.3f}, is not stored"
        elif references[line["reference"]] != 1:
            yield f"the start {line['reference']} made {references[line['reference']]} instances"
    for line in evidence.lines("failed"):
        yield f"{line['slot']}: {line['call']} was never accepted: {line['error']}"


def every_instance_ends(evidence: Evidence) -> Iterator[str]:
    for key, document in evidence.documents.items():
        if document["status"] not in (COMPLETE, TERMINATED):
            blocked = [
                f"{pointer['step_id']} {PointerStatus(pointer['status']).name}"
                for pointer in document.get("pointers", {}).values()
                if not pointer.get("end_time")
            ]
            yield (
                f"{document['workflow_definition_id']} {key} is {WorkflowStatus(document['status']).name}"
                f" at revision {document['revision']}, wake_at {document.get('wake_at')},"
                f" reason {document.get('reason')}, parked {document.get('parked')}, open: {blocked}"
            )


def every_step_of_a_completed_instance_has_run(evidence: Evidence) -> Iterator[str]:
    for key, document in evidence.documents.items():
        if document["status"] != COMPLETE:
            continue
        ran = Counter(name.split("_", 2)[2] for name in document.get("data", {}) if name.startswith(RAN))
        wanted = expected_steps(document["workflow_definition_id"], document.get("data", {}))
        if ran != Counter(wanted):
            yield f"{document['workflow_definition_id']} {key} has run {dict(ran)}, not {wanted}"
        for name, run in document.get("data", {}).items():
            if name.startswith(RAN) and (run not in evidence.runs or evidence.runs[run].end is None):
                yield f"{key}: {name} says that run {run} counted, which has not come to its end"


def no_step_runs_after_its_end_was_stored(evidence: Evidence) -> Iterator[str]:
    """Hard: what began when its lease must have known. Soft: what began later without any excuse."""
    for run in evidence.runs.values():
        stored = evidence.logs.get(run.instance)
        ended = stored.ended.get(run.pointer) if stored is not None else None
        if ended is None or run.begin <= evidence.mono(ended) + EARLY:
            continue
        at = evidence.mono(ended)
        late = run.begin - at - sum(
            max(0.0, min(d.until, run.begin) - max(d.since, at))
            for d in evidence.excuses([run.slot], at, run.begin)
        )  # fmt: skip
        if late > LEASE_TTL or not evidence.excuses(_slots(evidence, run), at - 3 * LEASE_TTL, run.begin):
            yield f"{run.workflow} {run.instance} {run} began {run.begin - at:.3f} s after its end was stored"


def _slots(evidence: Evidence, run: Run) -> set[str]:
    """The processes that ran a pointer."""
    return {one.slot for one in evidence.by_instance[run.instance] if one.pointer == run.pointer}


def a_step_runs_twice_only_after_a_death_or_a_lost_lease(evidence: Evidence) -> Iterator[str]:
    activations: dict[object, list[Run]] = defaultdict(list)
    for run in evidence.runs.values():
        activations[run.activation].append(run)
    for runs in activations.values():
        for first, second in pairwise(runs):
            since = first.begin - LEASE_TTL
            # Who lost its lease may still be the first to commit; then it is the new holder's run that is
            # dropped, and repeated.
            at_it = {run.slot for run in evidence.by_instance[first.instance]}
            if not evidence.excuses(at_it, since, second.begin):
                again = f"again in {second.slot} at {second.begin:.3f}"
                yield f"{first.workflow} {first.instance} {first}, and {again}"


def there_is_one_history(evidence: Evidence) -> Iterator[str]:
    for key, stored in evidence.logs.items():
        for wrong in stored.wrong:
            yield f"{key}: {wrong}"
        if (found := evidence.documents.get(key)) != stored.document:
            yield f"{key}: the store has {found}, and the log of commits ends with {stored.document}"


def events_come_once_and_in_order(evidence: Evidence) -> Iterator[str]:
    published: dict[str, int] = Counter(line["key"] for line in evidence.lines("published"))
    for key, document in evidence.documents.items():
        if document["workflow_definition_id"] != "readings" or document["status"] != COMPLETE:
            continue
        data = document["data"]
        if data["readings"] != list(range(published[data["key"]])):
            yield f"{key} took the events {data['readings']} of {published[data['key']]} that were published"


def no_timer_is_early(evidence: Evidence) -> Iterator[str]:
    for run in evidence.runs.values():
        if "after" not in run.more:
            continue
        early = evidence.mono(run.more["due"]) - run.begin if "due" in run.more else 0.0
        slept_from = evidence.runs.get(run.more["after"])
        if slept_from is not None:
            early = max(early, slept_from.begin + slept_from.more["seconds"] - run.begin)
        if early > EARLY:
            yield f"{run.workflow} {run.instance} {run} began {early:.3f} s before it was due"


def control_always_lands(evidence: Evidence) -> Iterator[str]:
    for line in evidence.lines("requested"):
        document = evidence.documents.get(line["instance"])
        if document is None or not line["accepted"]:
            continue
        what = f"{line['instance']}: the {line['kind']} that was accepted at {line['mono']:.3f}"
        if document.get("inbox"):
            yield f"{what} is unread in its inbox"
        elif line["id"] not in document.get("applied", []):
            yield f"{what} was not applied"
        elif line["kind"] == "terminate" and document["status"] != TERMINATED:
            yield f"{what} left it {WorkflowStatus(document['status']).name}"
    for line in evidence.lines("suspended"):
        log = evidence.logs[line["instance"]]
        # Where nobody had looked until the resume came, both were applied in one commit.
        at_once = any(len(requests) > 1 for requests in log.requests)
        if not line["seen"] and not at_once and SUSPENDED not in [status for status, _ in log.statuses]:
            yield f"{line['instance']} was never suspended, though that was accepted"
    asked = {line["instance"] for line in evidence.lines("requested") if line["kind"] == "terminate"}
    for key, document in evidence.documents.items():
        if document["status"] == TERMINATED and key not in asked:
            yield f"{key} is TERMINATED and nobody asked for that: {document.get('reason')}"


def suspended_instances_run_nothing(evidence: Evidence) -> Iterator[str]:
    """Nothing begins while an instance is suspended, or after its end, but what was on its way already."""
    for key, stored in evidence.logs.items():
        spans = zip(stored.statuses, [*stored.statuses[1:], (None, float("inf"))], strict=True)
        for (status, since), (_, until) in spans:
            if status == RUNNABLE:
                continue
            for run in evidence.by_instance.get(key, []):
                at = evidence.mono(since)
                if at + EARLY < run.begin < evidence.mono(until) and not evidence.excuses(
                    [run.slot], at - 3 * LEASE_TTL, run.begin
                ):
                    name = WorkflowStatus(status).name
                    yield f"{key} {run} began {run.begin - at:.3f} s after it was {name}"


def sagas_undo_backwards_and_once(evidence: Evidence) -> Iterator[str]:
    order = ["undo_car", "undo_flight", "undo_hotel", "after"]
    for key, document in evidence.documents.items():
        if document["workflow_definition_id"] != "booking" or document["status"] != COMPLETE:
            continue
        runs = [
            evidence.runs[run]
            for name, run in document["data"].items()
            if name.startswith(RAN) and run in evidence.runs and evidence.runs[run].step in order
        ]
        undone = [run.step for run in sorted(runs, key=lambda run: run.begin)]
        if undone != (order if document["data"]["fails"] else order[-1:]):
            yield f"{key} undid {undone}"


def answers_belong_to_their_questions(evidence: Evidence) -> Iterator[str]:
    for key, document in evidence.documents.items():
        data, workflow = document.get("data", {}), document["workflow_definition_id"]
        factor = {"translation": 2, "parent": 1}.get(workflow)
        if factor and document["status"] == COMPLETE and data.get("answer") != data["number"] * factor:
            yield f"{workflow} {key} asked for {data['number']} and got {data.get('answer')}"


def nothing_is_left_in_queues(evidence: Evidence) -> Iterator[str]:
    for queue, count in evidence.leftovers.items():
        if count:
            yield f"{count} messages are in {queue} after everything has ended"


def wrong_commands_are_refused_with_a_reason(evidence: Evidence) -> Iterator[str]:
    """None is lost, and nothing that was right is refused. After a death one may be refused twice."""
    wrong = {line["command"] for line in evidence.lines("wrong")}
    for command in sorted(wrong - {letter.message_id for letter in evidence.dead}):
        yield f"the wrong command {command} was accepted, and is not among the dead letters"
    for letter in evidence.dead:
        if letter.message_id not in wrong:
            yield f"{letter.body} was refused: {letter.error}: {letter.reason}"
        elif not letter.error or not letter.reason:
            yield f"the wrong command {letter.message_id} was refused without a reason"


def processes_live_on(evidence: Evidence) -> Iterator[str]:
    yield from evidence.exits
    yield from evidence.noise
    for error in evidence.errors:
        yield f"a step failed with an error that is not its own: {error}"


PROMISES: tuple[Check, ...] = (
    nothing_accepted_is_lost,
    every_instance_ends,
    every_step_of_a_completed_instance_has_run,
    no_step_runs_after_its_end_was_stored,
    a_step_runs_twice_only_after_a_death_or_a_lost_lease,
    there_is_one_history,
    events_come_once_and_in_order,
    no_timer_is_early,
    control_always_lands,
    suspended_instances_run_nothing,
    sagas_undo_backwards_and_once,
    answers_belong_to_their_questions,
    nothing_is_left_in_queues,
    wrong_commands_are_refused_with_a_reason,
    processes_live_on,
)


def broken(evidence: Evidence, promises: Iterable[Check] = PROMISES) -> list[Violation]:
    """Every place where a promise was broken."""
    return [
        Violation(promise.__name__.replace("_", " "), found)
        for promise in promises
        for found in promise(evidence)
    ]
