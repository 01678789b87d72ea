"""Waiting for events: which ones a wait takes, how often, in what order, and until when."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from scenarios.helpers import (
    LONG_AGO,
    Hosts,
    errors,
    finish,
    note,
    nothing,
    run,
    start,
    until,
    until_waiting,
    waiting,
    workflow,
)
from servers import wait_for

from liteflow.core import ExecutionResult, StepExecutionContext, WorkflowBuilder, WorkflowStatus


def take(step: Any, data: Any) -> None:
    """An output that adds the event's data to a list in the workflow's data."""
    data.got = [*getattr(data, "got", []), step.event_data]


def test_two_waits_in_a_row_take_their_own_events(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        b.start_with(nothing).wait_for("one", lambda data: data.key).output(take).wait_for(
            "two", lambda data, context: data.key
        ).output(take)

    host = make_host(workflow(build))
    key = f"{uuid.uuid4()}{'.' * 150}"
    instance_id = start(host, {"key": key})
    for number, name in enumerate(("one", "two")):
        until_waiting(host, instance_id, name)
        host.publish_event(name, key, number)
    assert finish(host, instance_id).data.got == [0, 1]
    assert errors(host, instance_id) == []


# ----------------------------------------------------------------------------------------- effective dates


def test_a_wait_takes_no_event_from_before_it_began(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k").output(take)))
    host.publish_event("go", "k", "old", effective_date=host.persistence.now() - timedelta(hours=1))
    instance_id = start(host)
    until_waiting(host, instance_id)
    host.publish_event("go", "k", "new")
    assert finish(host, instance_id).data.got == ["new"]


def test_a_wait_with_an_effective_date_takes_what_came_at_or_after_it(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k", lambda data: data.since).output(take)))
    since = host.persistence.now() - timedelta(hours=1)
    host.publish_event("go", "k", "before", effective_date=since - timedelta(microseconds=1))
    host.publish_event("go", "k", "at", effective_date=since)
    assert run(host, {"since": since}).data.got == ["at"]


def test_a_wait_for_the_future_ignores_what_comes_before(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k", lambda data: data.since).output(take)))
    since = host.persistence.now() + timedelta(seconds=0.5)
    instance_id = start(host, {"since": since})
    until_waiting(host, instance_id)
    host.publish_event("go", "k", "now", effective_date=since - timedelta(seconds=0.4))
    host.publish_event("go", "k", "then", effective_date=since + timedelta(seconds=0.1))
    assert finish(host, instance_id).data.got == ["then"]


def test_waits_with_effective_dates_take_one_event_each(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        step: Any = b.start_with(nothing)
        for number in range(5):
            step = step.wait_for("ordered", "", LONG_AGO + timedelta(minutes=number)).output(take)

    host = make_host(workflow(build))
    for number in range(5):
        host.publish_event("ordered", "", number, LONG_AGO + timedelta(minutes=number, seconds=1))
    assert run(host).data.got == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------------------------------ once, in order


def test_an_event_is_not_taken_again_by_a_later_wait(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        b.wait_for("go", "k", LONG_AGO).output(take).then(nothing).id("between").wait_for(
            "go", "k", LONG_AGO
        ).id("second").output(take)

    host = make_host(workflow(build))
    host.publish_event("go", "k", 1)
    instance_id = start(host)
    wait_for(
        "the second wait is stored",
        lambda: waiting(host, instance_id) and len(host.get_workflow(instance_id).execution_pointers) == 3,
    )
    host.publish_event("go", "k", 2)
    assert finish(host, instance_id).data.got == [1, 2]


def loop(rounds: int) -> Any:
    def build(b: WorkflowBuilder) -> None:
        b.while_(lambda data: len(getattr(data, "got", [])) < rounds).do(
            lambda x: x.wait_for("tick", "k", LONG_AGO).output(take)
        )

    return workflow(build)


def test_a_burst_is_taken_by_a_loop_in_order_of_event_time(make_host: Hosts) -> None:
    host = make_host(loop(8))
    for number in (5, 0, 7, 2, 6, 1, 4, 3):
        host.publish_event("tick", "k", number, LONG_AGO + timedelta(days=number))
    assert run(host).data.got == list(range(8))


def test_an_event_stored_late_with_an_earlier_time_is_not_skipped(make_host: Hosts) -> None:
    host = make_host(loop(3))
    instance_id = start(host)
    for count, day in enumerate((5, 1, 3), start=1):
        host.publish_event("tick", "k", day, LONG_AGO + timedelta(days=day))
        wait_for(
            "it is taken",
            lambda count=count: len(getattr(host.get_workflow(instance_id).data, "got", [])) == count,
        )
    assert finish(host, instance_id).data.got == [5, 1, 3]


def test_one_event_feeds_all_parallel_waits_of_an_instance(make_host: Hosts) -> None:
    def branch(name: str) -> Any:
        return lambda x: x.wait_for("go", "k").output(name, lambda step: step.event_data)

    def build(b: WorkflowBuilder) -> None:
        b.parallel().do(branch("one")).do(branch("two")).join().wait_for("go", "k").output(take)

    host = make_host(workflow(build))
    instance_id = start(host)
    until_waiting(host, instance_id, "go", 2)
    host.publish_event("go", "k", "both")
    wait_for("both have it", lambda: hasattr(host.get_workflow(instance_id).data, "two"))
    until_waiting(host, instance_id, "go")
    host.publish_event("go", "k", "next")
    data = finish(host, instance_id).data
    assert (data.one, data.two, data.got) == ("both", "both", ["next"])


def test_one_event_reaches_every_instance_that_waits(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k").output(take)))
    ids = [start(host) for _ in range(5)]
    for instance_id in ids:
        until_waiting(host, instance_id)
    host.publish_event("go", "k", "all")
    assert [finish(host, instance_id).data.got for instance_id in ids] == [["all"]] * 5


def test_parallel_branches_each_take_their_own_event_and_work_on_it(make_host: Hosts) -> None:
    log: list[str] = []

    def branch(name: str, seconds: float) -> Any:
        async def work(context: StepExecutionContext) -> None:
            await asyncio.sleep(seconds)
            log.append(name)

        return lambda x: x.wait_for(name, "k", LONG_AGO).then(work)

    def build(b: WorkflowBuilder) -> None:
        parallel = b.start_with(nothing).parallel()
        for name, seconds in (("1", 0.2), ("2", 0.2), ("3", 0.3), ("4", 0.01), ("5", 0.01)):
            parallel.do(branch(name, seconds))
        parallel.join().then(note(log, "end"))

    host = make_host(workflow(build))
    instance_id = start(host)
    for name in "12345":
        host.publish_event(name, "k")
    finish(host, instance_id)
    assert sorted(log[:-1]) == list("12345")
    assert log[-1] == "end"


def test_a_body_can_wait_for_events_itself_several_times(make_host: Hosts) -> None:
    def body(context: StepExecutionContext) -> ExecutionResult:
        context.data.round += 1
        if context.data.round > 1:
            context.data.last = context.execution_pointer.event_data
        if context.data.round > 3:
            return ExecutionResult.next()
        return ExecutionResult.wait_for_event("go", str(context.data.round), context.workflow.create_time)

    host = make_host(workflow(lambda b: b.start_with(body)))
    instance_id = start(host, {"round": 0})
    for number in range(1, 4):
        wait_for("it waits", lambda n=number: host.get_workflow(instance_id).record.waits()[0].key == str(n))
        host.publish_event("go", str(number), f"event {number}")
    data = finish(host, instance_id).data
    assert (data.round, data.last) == (4, "event 3")


# ------------------------------------------------------------------------------------------------ timeouts


def patient(log: list[str], timeout: Any) -> Any:
    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(nothing)
            .wait_for("go", "k", timeout=timeout)
            .output("got", lambda step: step.event_data)
            .on_timeout()
            .do(lambda x: x.start_with(note(log, "late")).then(note(log, "told")))
            .then(note(log, "end"))
        )

    return workflow(build)


@pytest.mark.parametrize("timeout", [0.2, timedelta(seconds=0.2), lambda data: 0.2])
def test_a_wait_that_times_out_runs_on_timeout_and_goes_on(make_host: Hosts, timeout: Any) -> None:
    log: list[str] = []
    instance = run(make_host(patient(log, timeout)))
    assert log == ["late", "told", "end"]
    assert instance.complete_time is not None
    assert instance.complete_time - instance.create_time >= timedelta(seconds=0.2)


def test_an_event_in_time_leaves_on_timeout_alone(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(patient(log, 30))
    instance_id = start(host)
    until_waiting(host, instance_id)
    host.publish_event("go", "k", "in time")
    assert finish(host, instance_id).data.got == "in time"
    assert log == ["end"]


def test_without_on_timeout_the_path_just_goes_on(make_host: Hosts) -> None:
    log: list[str] = []
    run(make_host(workflow(lambda b: b.wait_for("go", "k", timeout=0.1).then(note(log, "end")))))
    assert log == ["end"]


def test_an_event_after_the_timeout_is_not_the_waits_own(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        step = b.wait_for("go", "k", timeout=0.1).output("first", lambda step: step.event_data)
        step.wait_for("other", "k").wait_for("go", "k", LONG_AGO).output("second", lambda s: s.event_data)

    host = make_host(workflow(build))
    instance_id = start(host)
    until_waiting(host, instance_id, "other")
    host.publish_event("go", "k", "late")
    host.publish_event("other", "k")
    data = finish(host, instance_id).data
    assert getattr(data, "first", None) is None
    assert data.second == "late"


# --------------------------------------------------------------------------------------- nothing left behind


def test_a_terminated_wait_takes_no_event(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k").output(take)))
    instance_id = start(host)
    until_waiting(host, instance_id)
    host.terminate_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    assert not waiting(host, instance_id)
    other = start(host)
    until_waiting(host, other)
    host.publish_event("go", "k")
    finish(host, other)
    assert not hasattr(host.get_workflow(instance_id).data, "got")


def test_a_cancelled_wait_has_not_consumed_what_comes_later(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        first = b.wait_for("go", "k")
        first.cancel_condition(lambda data: data.impatient, proceed_after_cancel=True).wait_for(
            "go", "k"
        ).output(take)

    host = make_host(workflow(build))
    instance_id = start(host, {"impatient": True})
    wait_for(
        "the second wait is stored",
        lambda: waiting(host, instance_id) and len(host.get_workflow(instance_id).execution_pointers) == 2,
    )
    host.publish_event("go", "k", "taken by the second")
    assert finish(host, instance_id).data.got == ["taken by the second"]
