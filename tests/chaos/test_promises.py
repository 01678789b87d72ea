"""The checks themselves: a run in which all went well passes; each promise that is broken in it is found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from chaos.evidence import Evidence, Refused
from chaos.nemesis import Disturbance
from chaos.oplog import Stored, applied
from chaos.promises import broken

Document = dict[str, Any]

STEPS = ("before", "hotel", "flight", "car", "undo_car", "undo_flight", "undo_hotel", "after")


def run(number: int, instance: str, step: str, begin: float, **more: Any) -> list[dict[str, Any]]:
    """The two lines of one run."""
    line = {
        "what": "begin", "run": f"{instance}-{number}", "slot": "worker-1", "instance": instance,
        "workflow": "booking", "pointer": str(number), "step": step, "attempt": 1, "part": 1, "mono": begin,
    }  # fmt: skip
    end = {"what": "end", "run": line["run"], "mono": begin + 0.01, "slot": "worker-1"}
    return [{**line, **more}, end]


class World:
    """Evidence under construction: a saga that failed, a terminated instance, a burst of events, a nap."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.documents: dict[str, Document] = {}
        self.logs: dict[str, Stored] = {}
        self.more: dict[str, Any] = {"dead": [Refused("w", "unknown_workflow", "there is none", "{}")]}
        self.history.append({"what": "wrong", "command": "w", "mono": 1.0})
        self.add("saga", "booking", {"fails": True}, [s for s in STEPS if s != "car"])
        self.history += run(99, "saga", "car", 13.5)[:1]
        self.add(
            "events", "readings", {"key": "k", "count": 2, "readings": [0, 1]}, ["taken"] * 2 + ["after"]
        )
        self.history += [{"what": "published", "key": "k", "number": n, "mono": 1.0} for n in (0, 1)]
        self.add("steered", "steered", {"rounds": 1}, ["round"], status=3, applied=["r1"])
        self.history.append(
            {"what": "requested", "instance": "steered", "kind": "terminate", "id": "r1", "accepted": True,
             "mono": 11.0}
        )  # fmt: skip
        self.add("answer", "translation", {"number": 4, "answer": 8}, ["after"])
        self.history += run(50, "nap", "nap", 10.0, seconds=2.0)
        self.history += run(51, "nap", "nap", 12.1, part=2, after="nap-50", due=12.05)

    def add(
        self, key: str, workflow: str, data: Document, steps: list[str], status: int = 2, **more: Any
    ) -> None:
        """An instance whose steps ran one after another, a second each, from 10 on."""
        first = {"_id": key, "workflow_definition_id": workflow, "reference": key, "revision": 0, "status": 0,
                 "token": "0", "pointers": {}, "data": data}  # fmt: skip
        stored = self.logs[key] = Stored()
        stored.put(first, 10.0)
        for number, step in enumerate(steps):
            self.history += run(number, key, step, 10.0 + number, workflow=workflow)
            after = copy.deepcopy(stored.document)
            after["revision"] += 1
            after["token"] = str(after["revision"])
            after["pointers"][str(number)] = {"step_id": step, "status": 3, "end_time": f"{number}"}
            after["data"][f"ran_{number}_{step}"] = f"{key}-{number}"
            if number == len(steps) - 1:
                after |= {"status": status, **more}
            stored.put(after, 10.5 + number)
        self.documents[key] = copy.deepcopy(stored.document)
        self.history.append(
            {"what": "started", "instance": key, "workflow": workflow, "reference": key, "mono": 9.0}
        )

    def evidence(self) -> Evidence:
        history = sorted(self.history, key=lambda line: float(line["mono"]))
        return Evidence(history, self.documents, self.logs, **self.more)


def lost(world: World) -> None:
    del world.documents["saga"], world.logs["saga"]


def doubled(world: World) -> None:
    world.documents["other"] = {**world.documents["saga"], "_id": "other"}


def refused(world: World) -> None:
    world.history.append(
        {"what": "failed", "slot": "producer-1", "call": "start", "error": "no", "mono": 1.0}
    )


def stuck(world: World) -> None:
    world.documents["answer"]["status"] = 0


def skipped_step(world: World) -> None:
    del world.documents["saga"]["data"]["ran_0_before"]


def late_run(world: World) -> None:
    world.history += run(0, "saga", "before", 10.6, run="x", attempt=2)


def late_run_of_a_hurt_process(world: World) -> None:
    late = run(0, "saga", "before", 20.0, run="x", attempt=2)
    world.history += late
    world.more["disturbances"] = [Disturbance("kill", "worker-1", 10.0, 11.0)]


def second_run(world: World) -> None:
    world.history += run(0, "saga", "before", 10.2, run="x")


def second_run_beside_a_brokers_restart(world: World) -> None:
    second_run(world)
    world.more["disturbances"] = [Disturbance("restart_rabbit", "rabbit", 9.0, 12.0)]


def second_run_beside_one_lock_servers_restart(world: World) -> None:
    second_run(world)
    world.more["disturbances"] = [Disturbance("empty_redis", "redis-1", 9.0, 12.0)]


def two_histories(world: World) -> None:
    again = copy.deepcopy(world.logs["saga"].document)
    again["token"] = "another"
    world.logs["saga"].put(again, 30.0)


def back_from_the_end(world: World) -> None:
    again = {**world.logs["saga"].document, "status": 0}
    again["revision"] += 1
    world.logs["saga"].put(again, 30.0)


def event_twice(world: World) -> None:
    world.documents["events"]["data"]["readings"] = [0, 0, 1]


def events_swapped(world: World) -> None:
    world.documents["events"]["data"]["readings"] = [1, 0]


def early_timer(world: World) -> None:
    world.history += run(52, "nap", "nap", 12.0, part=2, after="nap-50", due=12.05)


def early_by_a_wrong_clock(world: World) -> None:
    world.history += run(52, "nap", "nap", 11.0, part=2, after="nap-50", due=10.5)


def early_by_its_length(world: World) -> None:
    world.history += run(52, "nap", "nap", 11.0, part=2, after="nap-50")


def terminated_in_vain(world: World) -> None:
    world.documents["steered"]["applied"] = []


def unread_request(world: World) -> None:
    world.documents["steered"]["inbox"] = [{"id": "r2"}]


def never_suspended(world: World) -> None:
    asked_to_suspend(world, [["s1"], ["s1", "s2"]])


def asked_to_suspend(world: World, applied: list[list[str]]) -> None:
    """A suspend, and a resume as it was not seen; `applied` after each of the last commits."""
    for commit in applied:
        document = copy.deepcopy(world.logs["steered"].document)
        document |= {"revision": document["revision"] + 1, "applied": [*document["applied"], *commit]}
        document["token"] = str(document["revision"])
        world.logs["steered"].put(document, 20.0)
    world.history.append({"what": "suspended", "instance": "steered", "seen": False, "mono": 12.0})
    world.documents["steered"] = copy.deepcopy(world.logs["steered"].document)


def terminated_for_nothing(world: World) -> None:
    world.documents["answer"]["status"] = 3


def run_after_the_end(world: World) -> None:
    world.history += run(7, "steered", "round", 15.0, workflow="steered", pointer="7")


def undone_forwards(world: World) -> None:
    for line in world.history:
        if line.get("step") == "undo_car" and line["what"] == "begin":
            line["mono"] = 16.9


def wrong_answer(world: World) -> None:
    world.documents["answer"]["data"]["answer"] = 9


def left_over(world: World) -> None:
    world.more["leftovers"] = {"chaos.commands": 1}


def refused_for_no_reason(world: World) -> None:
    world.more["dead"] = [*world.more["dead"], Refused("right", "bad_data", "malformed", "{}")]


def refused_without_a_word(world: World) -> None:
    world.more["dead"] = [Refused("w", "", "", "{}")]


def refusal_lost(world: World) -> None:
    world.more["dead"] = []


def died(world: World) -> None:
    world.more["exits"] = ["worker-1 ended by itself with 1"]


def failed_step(world: World) -> None:
    world.more["errors"] = ["saga hotel: KeyError: 'x'"]


BROKEN: list[tuple[Callable[[World], None], str]] = [
    (lost, "nothing accepted is lost"),
    (doubled, "nothing accepted is lost"),
    (refused, "nothing accepted is lost"),
    (stuck, "every instance ends"),
    (skipped_step, "every step of a completed instance has run"),
    (late_run, "no step runs after its end was stored"),
    (late_run_of_a_hurt_process, "no step runs after its end was stored"),
    (second_run, "a step runs twice only after a death or a lost lease"),
    (second_run_beside_a_brokers_restart, "a step runs twice only after a death or a lost lease"),
    (second_run_beside_one_lock_servers_restart, "a step runs twice only after a death or a lost lease"),
    (two_histories, "there is one history"),
    (back_from_the_end, "there is one history"),
    (event_twice, "events come once and in order"),
    (events_swapped, "events come once and in order"),
    (early_timer, "no timer is early"),
    (early_by_a_wrong_clock, "no timer is early"),
    (early_by_its_length, "no timer is early"),
    (terminated_in_vain, "control always lands"),
    (unread_request, "control always lands"),
    (never_suspended, "control always lands"),
    (terminated_for_nothing, "control always lands"),
    (run_after_the_end, "suspended instances run nothing"),
    (undone_forwards, "sagas undo backwards and once"),
    (wrong_answer, "answers belong to their questions"),
    (left_over, "nothing is left in queues"),
    (refused_for_no_reason, "wrong commands are refused with a reason"),
    (refused_without_a_word, "wrong commands are refused with a reason"),
    (refusal_lost, "wrong commands are refused with a reason"),
    (died, "processes live on"),
    (failed_step, "processes live on"),
]


def test_a_run_in_which_all_went_well_breaks_nothing() -> None:
    assert broken(World().evidence()) == []


@pytest.mark.parametrize(("harm", "promise"), [pytest.param(*b, id=b[0].__name__) for b in BROKEN])
def test_a_broken_promise_is_found(harm: Callable[[World], None], promise: str) -> None:
    world = World()
    harm(world)
    assert promise in {violation.promise for violation in broken(world.evidence())}


@pytest.mark.parametrize(
    "excuse",
    [
        [Disturbance("kill", "worker-1", 10.1, 10.15)],
        [Disturbance("stop", "worker-1", 9.0, 10.15)],
        [Disturbance("stall", "worker-1>redis-0", 9.0, 10.15)],
        [Disturbance("kill_two_redis", "redis-0+redis-1", 9.0, 10.15)],
        [Disturbance("empty_redis", "redis-0", 9.0, 9.1), Disturbance("empty_redis", "redis-1", 10.0, 10.1)],
    ],
)
def test_a_second_run_after_a_death_or_a_lost_lease_is_no_broken_promise(excuse: list[Disturbance]) -> None:
    world = World()
    second_run(world)
    world.more["disturbances"] = excuse
    assert broken(world.evidence()) == []


def test_suspended_and_resumed_in_one_commit_is_no_broken_promise() -> None:
    world = World()
    asked_to_suspend(world, [["s1", "s2"]])
    assert broken(world.evidence()) == []


def test_differences_of_the_log_are_applied() -> None:
    document = {"a": 1, "b": {"c": 2, "d": [1, 2, 3]}, "gone": True}
    diff = {
        "d": {"gone": False},
        "u": {"a": 5},
        "i": {"new": [1]},
        "sb": {"u": {"c": 3}, "sd": {"a": True, "l": 2, "u1": 9}},
    }
    assert applied(document, diff) == {"a": 5, "b": {"c": 3, "d": [1, 9]}, "new": [1]}
    assert document == {"a": 1, "b": {"c": 2, "d": [1, 2, 3]}, "gone": True}
