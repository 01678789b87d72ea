"""Suspend, resume and terminate, whatever the instance is doing; and stopping the host."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from scenarios.helpers import (
    LONG_AGO,
    Gate,
    Hosts,
    fail,
    failing,
    finish,
    note,
    nothing,
    pointer_is,
    run,
    start,
    until,
    until_waiting,
    waiting,
    workflow,
)
from servers import wait_for

from liteflow.core import (
    PointerStatus,
    StepExecutionContext,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowHost,
    WorkflowNotFoundError,
    WorkflowStatus,
)

RETRY = WorkflowErrorHandling.RETRY
KINDS = ["suspend", "resume", "terminate"]


def control(host: WorkflowHost, kind: str, instance_id: str) -> bool:
    match kind:
        case "suspend":
            return host.suspend_workflow(instance_id)
        case "resume":
            return host.resume_workflow(instance_id)
        case _:
            return host.terminate_workflow(instance_id)


def is_sleeping(host: WorkflowHost, instance_id: str, step_id: str) -> None:
    wait_for("it sleeps", lambda: pointer_is(host, instance_id, step_id, PointerStatus.SLEEPING), 20)


# --------------------------------------------------------------------------------------------------- suspend


def test_a_running_step_ends_and_nothing_follows_until_the_resume(make_host: Hosts) -> None:
    gate, log = Gate(), list[str]()
    host = make_host(workflow(lambda b: b.start_with(gate.run).then(note(log, "next"))))
    instance_id = start(host)
    assert gate.begun.wait(20)
    assert host.suspend_workflow(instance_id)
    gate.opened.set()
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert gate.left.wait(20)
    assert log == []
    assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert (gate.runs, log) == (1, ["next"])


def test_a_suspended_sleep_goes_on_with_the_resume(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(workflow(lambda b: b.delay(1).id("sleep").then(note(log, "next"))))
    instance_id = start(host)
    is_sleeping(host, instance_id, "sleep")
    assert host.suspend_workflow(instance_id)
    suspended = until(host, instance_id, WorkflowStatus.SUSPENDED)
    due = next(pointer.sleep_until for pointer in suspended.execution_pointers)
    assert due is not None
    wait_for("the time is over", lambda: host.persistence.now() > due)
    run(host)  # whatever is due has been looked at by then
    assert log == ["next"]
    assert host.get_workflow(instance_id).status is WorkflowStatus.SUSPENDED
    assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert log == ["next", "next"]


def test_a_suspended_retry_pause_goes_on_with_the_resume(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(workflow(lambda b: b.start_with(failing(log, "x", 1)).id("x").on_error(RETRY, 1)))
    instance_id = start(host)
    is_sleeping(host, instance_id, "x")
    assert host.suspend_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert log == ["x"]
    assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert log == ["x", "x"]


def test_all_branches_of_a_parallel_block_stop_and_go_on(make_host: Hosts) -> None:
    gate, log = Gate(), list[str]()

    def build(b: WorkflowBuilder) -> None:
        (
            b.parallel()
            .do(lambda x: x.start_with(gate.run).then(note(log, "ran")))
            .do(lambda x: x.delay(1).id("sleep").then(note(log, "slept")))
            .do(lambda x: x.wait_for("go", "k", LONG_AGO).then(note(log, "waited")))
            .join()
            .then(note(log, "end"))
        )

    host = make_host(workflow(build))
    instance_id = start(host)
    assert gate.begun.wait(20)
    is_sleeping(host, instance_id, "sleep")
    assert host.suspend_workflow(instance_id)
    gate.opened.set()
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    host.publish_event("go", "k")
    assert log == []
    assert host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert sorted(log[:-1]) == ["ran", "slept", "waited"]
    assert (log[-1], gate.runs) == ("end", 1)


# ------------------------------------------------------------------------------------------------- terminate


@pytest.mark.parametrize("busy", ["body", "sleep", "event", "retry", "suspended", "parallel"])
def test_terminate_ends_it_whatever_it_is_doing(make_host: Hosts, busy: str) -> None:
    gate, log = Gate(), list[str]()

    def build(b: WorkflowBuilder) -> None:
        step: Any = b.start_with(nothing)
        match busy:
            case "body":
                step = step.then(gate.run)
            case "sleep":
                step = step.delay(3600).id("sleep")
            case "retry":
                step = step.then(fail).id("sleep").on_error(RETRY, 3600)
            case "parallel":
                step = (
                    step.parallel().do(lambda x: x.then(gate.run)).do(lambda x: x.wait_for("go", "k")).join()
                )
            case _:
                step = step.wait_for("go", "k")
        step.then(note(log, "next"))

    host = make_host(workflow(build))
    instance_id = start(host)
    if busy in ("body", "parallel"):
        assert gate.begun.wait(20)
    if busy in ("sleep", "retry"):
        is_sleeping(host, instance_id, "sleep")
    if busy in ("event", "suspended", "parallel"):
        until_waiting(host, instance_id)
    if busy == "suspended":
        host.suspend_workflow(instance_id)
        until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert host.terminate_workflow(instance_id, "enough")
    instance = until(host, instance_id, WorkflowStatus.TERMINATED)
    assert instance.reason == "enough"
    assert instance.complete_time is not None
    assert not [pointer for pointer in instance.execution_pointers if pointer.active]
    assert not waiting(host, instance_id)
    if busy in ("body", "parallel"):
        assert gate.told.wait(20)
    assert log == []


# ------------------------------------------------------------------------------------- answers and repetition


def test_the_same_request_twice_does_the_same_as_once(make_host: Hosts) -> None:
    gate, log = Gate(), list[str]()
    host = make_host(
        workflow(lambda b: b.wait_for("go", "k", LONG_AGO).then(gate.run).then(note(log, "next")))
    )
    instance_id = start(host)
    until_waiting(host, instance_id)
    assert [host.suspend_workflow(instance_id) for _ in range(2)] == [True, True]
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert host.suspend_workflow(instance_id)
    host.publish_event("go", "k")
    assert [host.resume_workflow(instance_id) for _ in range(2)] == [True, True]
    gate.opened.set()
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert log == ["next"]


def test_requests_are_applied_in_their_order(make_host: Hosts) -> None:
    gate, log = Gate(), list[str]()
    host = make_host(workflow(lambda b: b.start_with(gate.run).then(note(log, "next"))))
    instance_id = start(host)
    assert gate.begun.wait(20)
    for _ in range(3):
        assert host.suspend_workflow(instance_id)
        assert host.resume_workflow(instance_id)
    gate.opened.set()
    until(host, instance_id, WorkflowStatus.COMPLETE)
    assert (gate.runs, log) == (1, ["next"])


def test_a_resume_of_what_runs_does_no_harm(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k", LONG_AGO)))
    instance_id = start(host)
    until_waiting(host, instance_id)
    assert host.resume_workflow(instance_id)
    host.publish_event("go", "k")
    finish(host, instance_id)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ended", [WorkflowStatus.COMPLETE, WorkflowStatus.TERMINATED])
def test_an_ended_instance_answers_false_and_stays_as_it_is(
    make_host: Hosts, ended: WorkflowStatus, kind: str
) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k", LONG_AGO)))
    instance_id = start(host)
    if ended is WorkflowStatus.COMPLETE:
        host.publish_event("go", "k")
    else:
        host.terminate_workflow(instance_id)
    until(host, instance_id, ended)
    assert control(host, kind, instance_id) is False
    assert host.get_workflow(instance_id).status is ended


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_instance_is_an_error(make_host: Hosts, kind: str) -> None:
    with pytest.raises(WorkflowNotFoundError):
        control(make_host(), kind, "nobody")


def test_waiting_for_an_instance_gives_up_in_time(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k")))
    with pytest.raises(TimeoutError):
        host.wait_for_workflow(start(host), 0.1)


# -------------------------------------------------------------------------------------------- the host's stop


def test_stop_waits_for_running_steps(make_host: Hosts) -> None:
    gate = Gate()
    stopped: list[bool] = []
    host = make_host(workflow(lambda b: b.start_with(gate.run)))
    instance_id = start(host)
    assert gate.begun.wait(20)
    stopper = threading.Thread(target=lambda: stopped.append(host.stop(timeout=20)))
    stopper.start()
    stopper.join(0.3)
    assert stopper.is_alive()
    gate.opened.set()
    stopper.join(20)
    assert stopped == [True]
    assert gate.left.is_set()
    assert not gate.told.is_set()
    host.start()
    finish(host, instance_id)
    assert gate.runs == 1


def test_stop_gives_up_on_a_step_that_does_not_end(make_host: Hosts) -> None:
    gate = Gate()

    def deaf(context: StepExecutionContext) -> None:
        gate.begun.set()
        gate.opened.wait(20)

    host = make_host(workflow(lambda b: b.start_with(deaf)))
    start(host)
    assert gate.begun.wait(20)
    assert host.stop(timeout=0.1) is False
    gate.opened.set()


def test_a_host_can_be_stopped_by_a_lifecycle_callback(make_host: Hosts) -> None:
    stopped = threading.Event()
    host = make_host(workflow(lambda b: b.start_with(nothing)))

    def callback(event: Any) -> None:
        if event.kind == "completed":
            host.stop(timeout=5)
            stopped.set()

    host.on_lifecycle_event(callback)
    instance_id = start(host)
    assert stopped.wait(20)
    assert host.get_workflow(instance_id).status is WorkflowStatus.COMPLETE
