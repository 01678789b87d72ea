"""The simulator itself: it repeats itself exactly, and what it makes is worth something."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections import Counter

import pytest

from liteflow.core import Workflow, WorkflowBuilder, WorkflowStatus
from liteflow.core.testing.simulation import (
    Explored,
    Fault,
    Faults,
    Producer,
    PromiseBroken,
    explore,
    simulate,
)
from liteflow.core.testing.simulation.__main__ import main
from liteflow.core.testing.simulation.workloads import WORKLOADS, history_of
from liteflow.worker.gateway import Gateway

CALM = Faults(kinds=())
SEEDS = 6000
BUDGET = 270.0
"""Seconds after which the long test makes do with the histories it has, if they are enough."""
ENOUGH = 5000


class TwoSteps(Workflow):
    id = "two-steps"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None).id("first").then(lambda context: None).id("second")


class Unlucky(Workflow):
    """Draws an id and a number in its step, as users do."""

    id = "unlucky"

    def build(self, builder: WorkflowBuilder) -> None:
        def draw(context: object) -> None:
            context.data.drawn = str(uuid.uuid4())  # type: ignore[attr-defined]

        builder.start_with(draw)


def test_the_same_seed_gives_the_same_history() -> None:
    for seed in range(26):
        once, again = history_of(seed), history_of(seed, verbose=False)
        assert once.moves == again.moves
        assert once.fingerprint == again.fingerprint


def test_other_seeds_give_other_histories() -> None:
    workload = WORKLOADS[0]
    assert len({history_of(seed, workload).fingerprint for seed in range(50)}) == 50


def test_a_history_is_the_same_in_another_process_with_other_hashes() -> None:
    code = (
        "from liteflow.core.testing.simulation.workloads import history_of;"
        "print(*(history_of(seed).fingerprint for seed in range(39)))"
    )
    found = set()
    for hashes in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        found.add(run.stdout)
    assert len(found) == 1
    assert found.pop().split() == [history_of(seed).fingerprint for seed in range(39)]


def test_the_log_in_a_trace_does_not_change_the_history() -> None:
    plain, verbose = history_of(3), history_of(3, verbose=True)
    assert plain.moves == [move for move in verbose.moves if not move.call.startswith("  log:")]
    assert "log: this scheduler leads" in verbose.trace()


def test_ids_that_bodies_draw_come_from_the_seed_and_only_there() -> None:
    first, again = (simulate([Unlucky], seed=1).instances for _ in range(2))
    other = simulate([Unlucky], seed=2).instances
    drawn = [instance.data.drawn for found in (first, again, other) for instance in found.values()]
    assert drawn[0] == drawn[1] != drawn[2]
    assert uuid.uuid4() != uuid.uuid4()


def test_without_faults_each_step_runs_once() -> None:
    history = simulate([TwoSteps], seed=1, faults=CALM)
    assert history.calm and not history.broken
    assert [run.step_id for run in history.runs] == ["first", "second"]
    (instance,) = history.instances.values()
    assert instance.status is WorkflowStatus.COMPLETE


def test_crashes_make_steps_run_twice_and_nothing_else_is_wrong() -> None:
    runs: Counter[str] = Counter()
    for seed in range(150):
        history = simulate([TwoSteps], seed=seed, faults=Faults(kinds=(Fault.CRASH,), rate=0.1))
        history.check()
        runs[f"{len(history.runs_of('first'))} runs"] += 1
        assert history.faults.keys() <= {Fault.CRASH}
    assert runs["2 runs"] > 0


def test_faults_of_every_kind_happen() -> None:
    explored = Explored()
    for seed in range(5000):
        explored.add(history_of(seed))
        if explored.faults.keys() == set(Fault):
            break
    assert explored.faults.keys() == set(Fault)


def test_what_a_check_finds_is_a_broken_promise_with_the_way_to_see_it_again() -> None:
    def check(history: object) -> None:
        raise AssertionError("the shelf is empty")

    with pytest.raises(PromiseBroken, match=r"seed 7:(.|\n)*the check: the shelf is empty(.|\n)*commit"):
        explore([TwoSteps], seeds=[7], check=check)


def test_what_never_ends_is_found() -> None:
    class Forgotten(Workflow):
        id = "forgotten"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(lambda context: None).wait_for("never", "k")

    history = simulate([Forgotten], seed=1, faults=CALM)
    assert [one.promise for one in history.broken] == ["nothing is stuck"]


def test_a_scenario_that_does_not_end_is_found() -> None:
    def scenario(producer: Producer) -> None:
        producer.sleep(1e6)

    history = simulate([TwoSteps], scenario, seed=1, faults=CALM)
    assert "1 scenarios have not come to their end" in history.broken[0].how


def test_the_command_counts_and_replays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "20", "--workload", "chains"]) == 0
    assert capsys.readouterr().out.startswith("20 histories, ")
    assert main(["--replay", "3", "--workload", "chains"]) == 0
    assert "producer-1     create" in capsys.readouterr().out


def test_random_is_left_as_it_was() -> None:
    import random

    random.seed(1)
    expected = random.random()
    random.seed(1)
    simulate([TwoSteps], seed=1)
    assert random.random() == expected


def test_nothing_is_broken_with_the_gateway_in_front() -> None:
    for seed in range(300):
        history_of(seed, gateway=lambda host: Gateway(host).handle).check()


@pytest.mark.timeout(600)
def test_thousands_of_histories_break_no_promise() -> None:
    began, explored = time.monotonic(), Explored()
    for seed in range(1_000_000, 1_000_000 + SEEDS):
        history = history_of(seed)
        history.check()
        explored.add(history)
        if time.monotonic() - began > BUDGET and explored.histories >= ENOUGH:
            break
    assert explored.histories >= ENOUGH
