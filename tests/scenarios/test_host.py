"""What the host offers around instances: idempotent starts, lists, purging, lifecycle events."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from scenarios.helpers import (
    LONG_AGO,
    Hosts,
    fail,
    failing,
    finish,
    note,
    nothing,
    run,
    start,
    until,
    until_waiting,
    workflow,
)
from servers import wait_for

from liteflow.core import (
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowHost,
    WorkflowNotFoundError,
    WorkflowStatus,
)

TERMINAL = {"completed", "terminated"}


# ----------------------------------------------------------------------------------------- starts and lists


def test_racing_starts_with_one_key_give_one_instance(make_host: Hosts) -> None:
    runs: list[int] = []
    ids: list[str] = []
    barrier = threading.Barrier(8, timeout=20)
    host = make_host(workflow(lambda b: b.start_with(note(runs, 1)).wait_for("go", "k", LONG_AGO)))

    def caller() -> None:
        barrier.wait()
        ids.append(host.start_workflow("scenario", idempotency_key="order-7"))

    callers = [threading.Thread(target=caller) for _ in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(20)
    assert len(ids) == 8
    assert len(set(ids)) == 1
    host.publish_event("go", "k")
    finish(host, ids[0])
    assert host.start_workflow("scenario", idempotency_key="order-7") == ids[0]
    assert len(host.list_workflows().items) == 1
    assert runs == [1]


def test_different_keys_and_none_give_instances_of_their_own(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.start_with(nothing)))
    ids = {host.start_workflow("scenario", idempotency_key=key) for key in ("a", "b", None, None)}
    assert len(ids) == 4


def test_instances_do_not_share_their_data(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        def double(step: Any, data: Any) -> None:
            data.values.append(data.values[-1] * 2)

        b.wait_for("go", "k", LONG_AGO).output(double)

    host = make_host(workflow(build))
    shared = {"values": [10]}
    ids = [start(host, shared) for _ in range(2)]
    host.publish_event("go", "k")
    assert [finish(host, instance_id).data.values for instance_id in ids] == [[10, 20], [10, 20]]


def test_the_highest_version_is_started_unless_one_is_named(make_host: Hosts) -> None:
    def version(number: int) -> Any:
        return workflow(lambda b: b.start_with(nothing).output("ran", lambda step: number), version=number)

    host = make_host(version(2), version(1))
    assert run(host).data.ran == 2
    assert finish(host, host.start_workflow("scenario", version=1)).data.ran == 1


def test_lists_filter_by_status_workflow_reference_and_time(make_host: Hosts) -> None:
    host = make_host(
        workflow(lambda b: b.start_with(nothing)), workflow(lambda b: b.wait_for("go", "k"), "waiting")
    )
    first = host.start_workflow("scenario", reference="r-1")
    finish(host, first)
    second = host.start_workflow("waiting", reference="r-2")
    until_waiting(host, second)
    middle = host.get_workflow(second).create_time

    def ids(**filters: Any) -> list[str]:
        return [item.id for item in host.list_workflows(**filters).items]

    assert sorted(ids()) == sorted([first, second])
    assert ids(status=WorkflowStatus.COMPLETE) == [first]
    assert ids(status=WorkflowStatus.RUNNABLE) == [second]
    assert ids(status=WorkflowStatus.SUSPENDED) == []
    assert ids(workflow="waiting") == [second]
    assert ids(reference="r-1") == [first]
    assert ids(reference="r-1", workflow="waiting") == []
    assert ids(created_before=middle - timedelta(microseconds=1)) == [first]
    assert first not in ids(created_after=middle - timedelta(microseconds=1))
    assert ids(created_after=middle + timedelta(hours=1)) == []
    [item] = host.list_workflows(reference="r-2").items
    assert (item.status, item.workflow_definition_id, item.version) == (WorkflowStatus.RUNNABLE, "waiting", 1)
    assert (item.reference, item.create_time) == ("r-2", middle)


def test_lists_come_in_pages(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.start_with(nothing)))
    ids = [run(host).id for _ in range(5)]
    seen: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        page = host.list_workflows(limit=2, cursor=cursor)
        seen += [item.id for item in page.items]
        cursor, pages = page.next, pages + 1
        assert len(page.items) <= 2
        assert pages < 10
    assert sorted(seen) == sorted(ids)


# -------------------------------------------------------------------------------------------------- purging


def test_purging_removes_old_ended_instances_and_all_that_belongs_to_them(make_host: Hosts) -> None:
    log: list[str] = []
    host = make_host(
        workflow(lambda b: b.start_with(failing(log, "x", 1)).on_error(WorkflowErrorHandling.RETRY, 0.01)),
        workflow(lambda b: b.wait_for("go", "k"), "waiting"),
    )
    old = [run(host).id for _ in range(3)]
    assert host.get_errors(old[0])
    terminated, open_ = start(host, name="waiting"), start(host, name="waiting")
    until_waiting(host, open_)
    host.terminate_workflow(terminated)
    until(host, terminated, WorkflowStatus.TERMINATED)
    wait_for("a while has passed", lambda: host.persistence.now() > ended(host, terminated))
    cut = host.persistence.now()
    young = run(host).id

    assert host.purge_workflows(WorkflowStatus.COMPLETE, cut) == 3
    for instance_id in old:
        with pytest.raises(WorkflowNotFoundError):
            host.get_workflow(instance_id)
        assert host.get_errors(instance_id) == []
    left = {item.id for item in host.list_workflows().items}
    assert left == {terminated, open_, young}
    assert host.purge_workflows(WorkflowStatus.COMPLETE, cut) == 0
    assert host.purge_workflows(WorkflowStatus.TERMINATED, cut) == 1
    host.publish_event("go", "k")
    finish(host, open_)


def ended(host: WorkflowHost, instance_id: str) -> Any:
    complete_time = host.get_workflow(instance_id).complete_time
    assert complete_time is not None
    return complete_time


def test_purging_goes_on_until_nothing_is_left(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.start_with(nothing)))
    ids = [start(host) for _ in range(120)]
    for instance_id in ids:
        finish(host, instance_id)
    assert host.purge_workflows(WorkflowStatus.COMPLETE, host.persistence.now() + timedelta(hours=1)) == 120
    assert host.list_workflows().items == []


# ------------------------------------------------------------------------------------------ lifecycle events


class Told:
    """The lifecycle events that a host told, by instance."""

    def __init__(self, host: WorkflowHost) -> None:
        self.events: list[Any] = []
        host.on_lifecycle_event(self.events.append)

    def of(self, instance_id: str) -> list[Any]:
        return [event for event in self.events if event.workflow_id == instance_id]

    def kinds(self, instance_id: str, *without: str) -> list[str]:
        return [event.kind for event in self.of(instance_id) if event.kind not in without]

    def all_of(self, instance_id: str) -> list[Any]:
        """Its events, once it has ended."""
        wait_for("the end is told", lambda: TERMINAL & set(self.kinds(instance_id)), 20)
        return self.of(instance_id)


def test_the_life_of_an_instance_is_told_in_order(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.start_with(nothing).id("a").then(nothing).id("b")))
    told = Told(host)
    instance_id = host.start_workflow("scenario", reference="r-9")
    finish(host, instance_id)
    events = told.all_of(instance_id)
    assert [(event.kind, event.step_id) for event in events] == [
        ("started", None),
        ("step_started", "a"),
        ("step_completed", "a"),
        ("step_started", "b"),
        ("step_completed", "b"),
        ("completed", None),
    ]
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    times = [event.time for event in events]
    assert times == sorted(times)
    for event in events:
        assert (event.workflow_definition_id, event.version, event.reference) == ("scenario", 1, "r-9")


def test_suspending_resuming_errors_and_termination_are_told(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        b.start_with(failing([], "x", 1)).id("x").on_error(WorkflowErrorHandling.RETRY, 0.02).wait_for(
            "go", "k"
        )

    host = make_host(workflow(build))
    told = Told(host)
    instance_id = start(host)
    until_waiting(host, instance_id)
    host.suspend_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    host.resume_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.RUNNABLE)
    host.terminate_workflow(instance_id)
    [error] = [event for event in told.all_of(instance_id) if event.kind == "error"]
    assert told.kinds(instance_id, "step_started", "step_completed") == [
        "started",
        "error",
        "suspended",
        "resumed",
        "terminated",
    ]
    assert error.step_id == "x"
    assert "boom" in str(error.error)


@pytest.mark.parametrize("way", ["last step", "two end_workflow", "error", "terminate twice"])
def test_each_instance_has_exactly_one_terminal_event(make_host: Hosts, way: str) -> None:
    barrier = threading.Barrier(2, timeout=20)

    def both(context: Any) -> None:
        barrier.wait()

    def build(b: WorkflowBuilder) -> None:
        match way:
            case "two end_workflow":
                branches = b.parallel().do(lambda x: x.start_with(both).end_workflow())
                branches.do(lambda x: x.start_with(both).end_workflow()).join()
            case "error":
                b.start_with(fail).on_error(WorkflowErrorHandling.TERMINATE)
            case "terminate twice":
                b.wait_for("never", "k")
            case _:
                b.parallel().do(lambda x: x.start_with(both)).do(lambda x: x.start_with(both)).join()

    host = make_host(workflow(build), workflow(lambda b: b.start_with(nothing), "after"))
    told = Told(host)
    instance_id = start(host)
    if way == "terminate twice":
        until_waiting(host, instance_id)
        for _ in range(2):
            host.terminate_workflow(instance_id)
    told.all_of(instance_id)
    told.all_of(run(host, name="after").id)  # a second one would have come before
    kinds = told.kinds(instance_id)
    assert [kind for kind in kinds if kind in TERMINAL] == kinds[-1:]


def test_a_callback_that_fails_harms_neither_others_nor_the_instance(make_host: Hosts) -> None:
    def broken(event: Any) -> None:
        raise LookupError("in the callback")

    host = make_host(workflow(lambda b: b.start_with(nothing)))
    host.on_lifecycle_event(broken)
    told = Told(host)
    assert told.all_of(run(host).id)[-1].kind == "completed"
