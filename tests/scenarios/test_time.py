"""The verbs of time: delay, schedule and recur."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from scenarios.helpers import (
    LONG_AGO,
    Hosts,
    Peak,
    finish,
    note,
    nothing,
    pointers,
    run,
    start,
    until,
    workflow,
)
from servers import wait_for

from liteflow.core import ExecutionResult, StepExecutionContext, WorkflowBuilder, WorkflowStatus


@pytest.mark.parametrize(
    "duration", [0.2, timedelta(seconds=0.2), lambda data: data.pause, lambda data, context: data.pause]
)
def test_a_delay_holds_the_path_for_its_duration(make_host: Hosts, duration: Any) -> None:
    log: list[str] = []
    host = make_host(
        workflow(lambda b: b.start_with(note(log, "a")).delay(duration).then(note(log, "b")).id("b"))
    )
    instance = run(host, {"pause": timedelta(seconds=0.2)})
    assert log == ["a", "b"]
    after = pointers(host, instance.id, "b")[0].start_time
    assert after is not None
    assert after - instance.create_time >= timedelta(seconds=0.2)


@pytest.mark.parametrize("duration", [0.2, lambda data: timedelta(seconds=0.2)])
def test_schedule_runs_its_block_later_beside_the_main_path(make_host: Hosts, duration: Any) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(note(log, "begin"))
        step.schedule(duration).do(lambda x: x.start_with(note(log, "later"))).then(note(log, "main"))

    instance = run(make_host(workflow(build)))
    assert log == ["begin", "main", "later"]
    assert instance.complete_time is not None
    assert instance.complete_time - instance.create_time >= timedelta(seconds=0.2)


def test_a_scheduled_block_runs_while_the_main_path_waits(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(nothing).schedule(0.05).do(lambda x: x.start_with(note(log, "later")))
        step.wait_for("go", "k", LONG_AGO).then(note(log, "main"))

    host = make_host(workflow(build))
    instance_id = start(host)
    wait_for("the block has run", lambda: log == ["later"], 20)
    host.publish_event("go", "k")
    finish(host, instance_id)
    assert log == ["later", "main"]


def test_recur_runs_its_block_until_the_condition_holds(make_host: Hosts) -> None:
    def more(context: StepExecutionContext) -> None:
        context.data.rounds += 1

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(nothing)
        step.recur(0.05, lambda data: data.rounds >= 3).do(lambda x: x.start_with(more)).then(nothing)

    assert run(make_host(workflow(build)), {"rounds": 0}).data.rounds == 3


def test_recur_begins_at_once_and_leaves_the_main_path_alone(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(nothing)
        step.recur(3600, lambda data: False).do(lambda x: x.then(note(log, "round"))).then(note(log, "main"))

    host = make_host(workflow(build))
    instance_id = start(host)
    wait_for("both have run", lambda: sorted(log) == ["main", "round"], 20)
    assert host.get_workflow(instance_id).status is WorkflowStatus.RUNNABLE
    host.terminate_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.TERMINATED)


def test_rounds_of_recur_never_overlap(make_host: Hosts) -> None:
    peak = Peak()
    rounds: list[int] = []

    def slow(context: StepExecutionContext) -> ExecutionResult:
        with peak:
            context.cancellation.wait(0.15)
            rounds.append(1)
        return ExecutionResult.next()

    def build(b: WorkflowBuilder) -> None:
        b.start_with(nothing).recur(0.05, lambda data: len(rounds) >= 3).do(lambda x: x.start_with(slow))

    run(make_host(workflow(build)))
    assert peak.most == 1
    assert len(rounds) >= 3
