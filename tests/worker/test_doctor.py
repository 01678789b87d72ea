"""What `liteflow doctor`, `definitions` and `retire` say of a cluster, well or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from liteflow.core import Settings, WorkflowHost, WorkflowStatus
from liteflow.core.commands import CommandServer, DeadLetter, DeadLetters
from liteflow.core.errors import SettingsError
from liteflow.core.findings import Finding, Severity, problem
from liteflow.core.memory_lock import LocalLockProvider
from liteflow.core.memory_queue import SingleNodeQueueProvider
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.models import DefinitionRecord, Event, Instance, Parked
from liteflow.core.parking import nobody_runs
from liteflow.core.providers import EVENTS_QUEUE, QueueState, workflow_queue
from liteflow.core.survey import ProcessRecord
from liteflow.worker.cli import main
from liteflow.worker.wiring import Servers

QUEUE = workflow_queue("order", 1)
ORDER_1, ORDER_2 = DefinitionRecord("order", 1, "x"), DefinitionRecord("order", 2, "y")


class Queue(SingleNodeQueueProvider, CommandServer):
    """Tells of its queues and of dead letters what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, QueueState] = {}
        self.dead = DeadLetters(0, [])

    def serve_commands(self, *_: Any) -> Any:
        raise NotImplementedError

    def dead_letters(self, limit: int) -> DeadLetters:
        return self.dead

    def inspect(self, queues: Any) -> list[QueueState]:
        return [self.states.get(state.queue, state) for state in super().inspect(queues)]


class Cluster:
    """A store and a queue that the commands look at, as the processes of a cluster may have left them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.queue, self.lock = MemoryPersistenceProvider(), Queue(), LocalLockProvider()
        monkeypatch.setattr(
            Servers,
            "host",
            lambda servers, settings: WorkflowHost(self.store, self.queue, self.lock, Settings()),
        )

    def well(self) -> Cluster:
        """With a worker and two schedulers, one of which leads."""
        self.store.record_definitions([ORDER_1])
        self.beat("w1", definitions=(ORDER_1,))
        self.beat("s1", schedules=True, leads=True)
        self.beat("s2", schedules=True)
        self.queue.open()
        self.queue.consume(
            [EVENTS_QUEUE, QUEUE, workflow_queue("order", 2)], 1, lambda delivery: None
        ).cancel()
        return self

    def beat(self, process_id: str, seconds_ago: float = 0, **more: Any) -> None:
        now = self.store.now()
        seen = now - timedelta(seconds=seconds_ago)
        until = seen + timedelta(seconds=15)
        self.store.beat(ProcessRecord(process_id, "node-1", 4711, "0.1.0", now, seen, until, **more))

    def open(self, count: int, version: int = 1, **more: Any) -> list[str]:
        """Open instances."""
        now = self.store.now()
        made = [Instance(f"{version}-{n}", "order", version, now, **more) for n in range(count)]
        self.store.create(made)
        return [one.id for one in made]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    def found(self) -> dict[str, list[dict[str, str]]]:
        """The findings of the doctor that are not well, by area; and its exit code has to fit."""
        result = self.run("doctor", "--json")
        findings = json.loads(result.stdout)["findings"]
        assert result.exit_code == max(Severity[one["severity"]] for one in findings), result.output
        by_area: dict[str, list[dict[str, str]]] = {}
        for one in findings:
            if one["severity"] != "OK":
                assert one["advice"]
                by_area.setdefault(one["area"], []).append(one)
        return by_area

    def only(self, area: str, severity: str) -> dict[str, str]:
        """The one thing that is not well."""
        found = self.found()
        assert list(found) == [area]
        ((one,),) = found.values()
        assert one["severity"] == severity
        return one


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_all_is_well(cluster: Cluster) -> None:
    cluster.well().open(3)
    result = cluster.run("doctor")
    assert result.exit_code == 0, result.output
    assert "ok       workers: 1 alive" in result.stdout
    assert "PROBLEM" not in result.stdout
    assert cluster.run("doctor", "--quiet").stdout == ""


def test_nobody_is_there(cluster: Cluster) -> None:
    found = cluster.found()
    assert "no worker is alive" in found["workers"][0]["message"]
    assert "no scheduler is alive" in found["scheduler"][0]["message"]
    text = cluster.run("doctor").stdout
    assert "PROBLEM  scheduler: no scheduler is alive" in text
    assert "-> start two of `liteflow scheduler`" in text


@pytest.mark.parametrize(
    ("schedulers", "words"),
    [
        ({"s1": True}, "a single one is alive, and leads"),
        ({"s1": False, "s2": False}, "2 alive, but none of them leads"),
    ],
)
def test_schedulers(cluster: Cluster, schedulers: dict[str, bool], words: str) -> None:
    cluster.well().store.forget_processes(["s1", "s2"])
    for name, leads in schedulers.items():
        cluster.beat(name, schedules=True, leads=leads)
    assert words in cluster.only("scheduler", "WARNING")["message"]


def test_a_process_that_died_without_a_word(cluster: Cluster) -> None:
    cluster.well().beat("w0", 60, definitions=(ORDER_1,))
    one = cluster.only("workers", "WARNING")
    assert "process 4711 on node-1 has not been heard of since" in one["message"]


def test_a_clock_that_is_off(cluster: Cluster) -> None:
    cluster.well().beat("w2", definitions=(ORDER_1,), clock_offset=-7.25)
    assert "node-1 (process 4711) by -7.2 s" in cluster.only("clocks", "WARNING")["message"]


def test_instances_without_a_worker_are_counted(cluster: Cluster) -> None:
    cluster.well().store.record_definitions([ORDER_2])
    cluster.open(3, version=2)
    cluster.open(2)
    one = cluster.only("definitions", "PROBLEM")
    assert one["message"].startswith("3 open instances of order version 2 wait for a worker")
    cluster.beat("w2", definitions=(ORDER_2,))
    assert cluster.found() == {}


def test_instances_whose_definition_nobody_has_recorded_are_counted_too(cluster: Cluster) -> None:
    cluster.well().open(1, version=7)
    one = cluster.only("definitions", "PROBLEM")
    assert one["message"].startswith("1 open instance of order version 7 waits for a worker")


def test_the_newest_version_was_rolled_back(cluster: Cluster) -> None:
    cluster.well().store.record_definitions([ORDER_2])
    one = cluster.only("definitions", "WARNING")
    assert "order version 2 is the newest that is recorded" in one["message"]
    assert "`liteflow retire order 2`" in one["advice"]
    assert cluster.run("retire", "order", "2").exit_code == 0
    assert cluster.found() == {}


def test_two_structures_under_one_version(cluster: Cluster) -> None:
    cluster.well().beat("w2", definitions=(replace(ORDER_1, fingerprint="z"),))
    one = cluster.only("definitions", "WARNING")
    assert "2 different definitions of order version 1" in one["message"]


def test_parked_ones_are_told_by_definition_and_reason(cluster: Cluster) -> None:
    ids = cluster.well().open(3)
    now = cluster.store.now()
    for instance_id in ids[:2]:
        cluster.store.park(instance_id, -1, Parked("the definition has changed", now, "the old one"))
    cluster.store.park(ids[2], -1, nobody_runs("order", 1, now))
    changed, left = cluster.found()["parked"]
    if "changed" not in changed["message"]:
        changed, left = left, changed
    assert changed["message"].startswith("2 instances of order version 1 parked since ")
    assert "provide the old one; `liteflow show 1-0`" in changed["advice"]
    assert "restart it" in left["advice"]


@pytest.mark.parametrize("leads", [True, False])
def test_overdue_ones_are_told_with_the_reason(cluster: Cluster, leads: bool) -> None:
    cluster.well().open(2, wake_at=cluster.store.now() - timedelta(seconds=60))
    cluster.beat("s1", schedules=True, leads=leads)
    (one,) = cluster.found()["overdue"]
    assert one["message"].startswith(
        "2 instances of order version 1 should have been looked at, the oldest 60 s"
    )
    assert ("does not keep up" if leads else "no scheduler is at work") in one["message"]


def test_what_is_due_just_now_is_not_overdue(cluster: Cluster) -> None:
    cluster.well().open(2, wake_at=cluster.store.now() - timedelta(seconds=1))
    assert cluster.found() == {}


def test_overdue_events(cluster: Cluster) -> None:
    cluster.well().store.add_event(Event("e", "paid", "k", cluster.store.now() - timedelta(seconds=60)))
    assert "events wait to be delivered" in cluster.only("overdue", "PROBLEM")["message"]


@pytest.mark.parametrize(
    ("state", "severity", "words"),
    [
        (QueueState(QUEUE, False, 0, 0, 0), "PROBLEM", "is missing"),
        (QueueState(QUEUE, True, 5, 0, 0, "quorum"), "WARNING", "has 5 messages and no consumer"),
        (QueueState(QUEUE, True, 10_001, 0, 1, "quorum"), "WARNING", "backlog of 10001"),
        (QueueState(QUEUE, True, 0, 0, 1, "classic"), "WARNING", "classic queue"),
        (QueueState(QUEUE, True, 0, 0, 1, "quorum", 10.0), "WARNING", "consumer time-out of 10 s"),
    ],
)
def test_queues(cluster: Cluster, state: QueueState, severity: str, words: str) -> None:
    cluster.well().queue.states[QUEUE] = state
    assert words in cluster.only("queues", severity)["message"]


def test_management_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(SettingsError, match="http://user:password@host:15672"):
        Servers(management="nonsense").host(Settings())


def test_dead_letters(cluster: Cluster) -> None:
    cluster.well().queue.dead = DeadLetters(12, [DeadLetter("workflow.start", "malformed", "not JSON")])
    message = cluster.only("dead letters", "WARNING")["message"]
    assert message == "12 refused commands, the first: workflow.start: malformed (not JSON)"


def test_servers_that_are_away(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(area: str) -> Callable[[], list[Finding]]:
        return lambda: [problem(area, f"the {area} is away", "start it")]

    cluster.well().open(1)
    monkeypatch.setattr(cluster.queue, "check", away("queue"))
    assert cluster.only("queue", "PROBLEM")["message"] == "the queue is away"
    assert json.loads(cluster.run("doctor", "--json").stdout)["definitions"][0]["runnable"] == 1
    monkeypatch.setattr(cluster.store, "check", away("store"))
    monkeypatch.setattr(cluster.lock, "check", away("lock"))
    assert list(cluster.found()) == ["store", "queue", "lock"]


def test_the_document_has_the_numbers(cluster: Cluster) -> None:
    cluster.well()
    cluster.open(2, status=WorkflowStatus.SUSPENDED)
    cluster.queue.states[QUEUE] = QueueState(QUEUE, True, 1, 2, 3, "quorum")
    document = json.loads(cluster.run("doctor", "--json").stdout)
    assert document["status"] == "OK"
    assert document["definitions"] == [
        {
            **{"id": "order", "version": 1, "fingerprint": "x", "recorded": True, "workers": 1},
            **{"runnable": 0, "suspended": 2, "parked": 0, "waits_for_worker": False},
        }
    ]
    assert [(one["id"], one["alive"], one["leads"]) for one in document["processes"]] == [
        ("s1", True, True),
        ("s2", True, False),
        ("w1", True, False),
    ]
    assert {one["queue"]: one["ready"] for one in document["queues"]} == {"events": 0, QUEUE: 1}
    assert document["dead_letters"] == {"count": 0, "first": []}


def test_definitions_say_who_waits(cluster: Cluster) -> None:
    cluster.well().store.record_definitions([ORDER_2])
    cluster.open(3, version=2)
    lines = cluster.run("definitions").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["WORKFLOW", "VERSION", "WORKERS", "RUNNABLE", "SUSPENDED", "PARKED"],
        ["order", "1", "1", "0", "0", "0"],
        ["order", "2", "0", "3", "0", "0", "waits", "for", "a", "worker"],
    ]
    items = json.loads(cluster.run("definitions", "--json").stdout)["items"]
    assert [one["waits_for_worker"] for one in items] == [False, True]


def test_what_a_worker_runs_is_not_retired(cluster: Cluster) -> None:
    cluster.well()
    result = cluster.run("retire", "order", "1")
    assert (result.exit_code, "process 4711 on node-1 runs order version 1" in result.stderr) == (1, True)
    assert "not recorded" in cluster.run("retire", "order", "9").stderr
    cluster.store.forget_processes(["w1"])
    assert cluster.run("retire", "order", "1").stdout == "order version 1 is retired\n"
    assert cluster.store.definitions() == []


def test_list_shows_parked_ones(cluster: Cluster) -> None:
    ids = cluster.well().open(2)
    cluster.store.park(ids[1], -1, nobody_runs("order", 1, cluster.store.now()))
    items = json.loads(cluster.run("list", "--parked", "--json").stdout)["items"]
    assert [(one["id"], one["parked"]) for one in items] == [
        (ids[1], "no worker with order version 1 is alive")
    ]
