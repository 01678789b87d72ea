"""Whole workflows, over memory and over the real servers alike."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from scenarios.helpers import LONG_AGO, Hosts, finish, note, waiting, workflow
from servers import wait_for

from liteflow.core import (
    ExecutionResult,
    RetryPolicy,
    StepBody,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowNotFoundError,
    WorkflowStatus,
)


def test_data_of_every_step_is_stored(make_host: Hosts) -> None:
    def add(context: StepExecutionContext) -> None:
        context.data.total = getattr(context.data, "total", 0) + context.data.amount

    host = make_host(workflow(lambda b: b.start_with(add).then(add).then(add)))
    instance = finish(host, host.start_workflow("scenario", data={"amount": 5}, reference="r-1"))
    assert instance.data.total == 15
    assert instance.revision >= 3
    assert [i.reference for i in host.list_workflows(reference="r-1").items] == ["r-1"]


def test_nested_control_flow(make_host: Hosts) -> None:
    log: list[Any] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.start_with(note(log, "begin"))
            .for_each(lambda data: data.rows, run_parallel=False)
            .do(
                lambda row: row.if_(lambda data, context: context.item % 2 == 0).do(
                    lambda even: even.start_with(note(log, lambda context: context.item))
                )
            )
            .then(note(log, "end"))
        )

    host = make_host(workflow(build))
    finish(host, host.start_workflow("scenario", data={"rows": [1, 2, 3, 4]}))
    assert log == ["begin", 2, 4, "end"]


def test_for_each_over_many_items_keeps_the_document_small(make_host: Hosts) -> None:
    seen: list[int] = []
    host = make_host(
        workflow(
            lambda b: b.for_each(lambda data: list(range(300))).do(
                lambda item: item.start_with(note(seen, lambda context: context.item))
            )
        )
    )
    instance_id = host.start_workflow("scenario")
    instance = finish(host, instance_id, 60)
    assert sorted(seen) == list(range(300))
    assert len(instance.record.pointers) < 300
    assert len(instance.execution_pointers) == 301


def test_parallel_branches_run_side_by_side(make_host: Hosts) -> None:
    barrier = threading.Barrier(3, timeout=10)

    def meet(context: StepExecutionContext) -> None:
        barrier.wait()

    host = make_host(
        workflow(
            lambda b: (
                b.parallel()
                .do(lambda x: x.start_with(meet))
                .do(lambda x: x.start_with(meet))
                .do(lambda x: x.start_with(meet))
                .join()
            )
        )
    )
    finish(host, host.start_workflow("scenario"))


def test_an_event_before_during_and_after_the_wait_is_taken(make_host: Hosts) -> None:
    host = make_host(
        workflow(
            lambda b: b.wait_for("go", lambda data: data.key, effective_date=lambda data: LONG_AGO).output(
                "got", lambda step: step.event_data
            )
        )
    )
    host.publish_event("go", "before", 1)
    early = host.start_workflow("scenario", data={"key": "before"})
    late = host.start_workflow("scenario", data={"key": "after"})
    wait_for("the wait is stored", lambda: waiting(host, late))
    host.publish_event("go", "after", 2)
    during = host.start_workflow("scenario", data={"key": "during"})
    host.publish_event("go", "during", 3)
    assert [finish(host, i).data.got for i in (early, late, during)] == [1, 2, 3]


def test_events_of_a_burst_are_taken_once_and_in_order_of_time(make_host: Hosts) -> None:
    got: list[int] = []

    class Take(StepBody):
        value: Any = None

        def run(self, context: StepExecutionContext) -> ExecutionResult:
            got.append(self.value)
            return ExecutionResult.next()

    def build(b: WorkflowBuilder) -> None:
        b.while_(lambda data: getattr(data, "count", 0) < 5).do(
            lambda x: (
                x.wait_for("tick", "k", effective_date=lambda data: LONG_AGO)
                .output(lambda step, data: setattr(data, "last", step.event_data))
                .output(lambda step, data: setattr(data, "count", getattr(data, "count", 0) + 1))
                .then(Take)
                .input("value", lambda data: data.last)
            )
        )

    host = make_host(workflow(build))
    now = datetime.now(timezone.utc) - timedelta(hours=1)
    for number in (3, 1, 4, 0, 2):
        host.publish_event("tick", "k", number, effective_date=now + timedelta(seconds=number))
    finish(host, host.start_workflow("scenario"))
    assert got == [0, 1, 2, 3, 4]


def test_an_event_of_the_future_is_held_until_then(make_host: Hosts) -> None:
    # with a sweep that comes too late to be of help
    build = workflow(lambda b: b.wait_for("later", "k").then(lambda context: None))
    host = make_host(build, poll_interval=60.0, lease_ttl=60.0)
    instance_id = host.start_workflow("scenario")
    wait_for("the wait is stored", lambda: waiting(host, instance_id))
    when = host.persistence.now() + timedelta(seconds=0.5)
    host.publish_event("later", "k", effective_date=when)
    instance = finish(host, instance_id)
    assert instance.complete_time >= when


def test_a_sleep_ends_in_time_and_not_early(make_host: Hosts) -> None:
    build = workflow(lambda b: b.delay(0.3).then(lambda context: None))
    host = make_host(build, poll_interval=60.0, lease_ttl=60.0)
    instance = finish(host, host.start_workflow("scenario"))
    assert instance.complete_time - instance.create_time >= timedelta(seconds=0.3)


def test_a_failing_step_is_tried_again_and_its_errors_are_kept(make_host: Hosts) -> None:
    def flaky(context: StepExecutionContext) -> None:
        if context.attempt < 3:
            raise ValueError(f"attempt {context.attempt}")

    policy = RetryPolicy(max_attempts=3, interval=0.05)
    host = make_host(workflow(lambda b: b.start_with(flaky).on_error(WorkflowErrorHandling.RETRY, policy)))
    instance_id = host.start_workflow("scenario")
    finish(host, instance_id)
    assert [(e.attempt, e.message) for e in host.get_errors(instance_id)] == [
        (1, "attempt 1"),
        (2, "attempt 2"),
    ]


def test_exhausted_attempts_suspend_and_a_resume_runs_the_step_again(make_host: Hosts) -> None:
    broken = threading.Event()

    def step(context: StepExecutionContext) -> None:
        if not broken.is_set():
            raise RuntimeError("not now")

    policy = RetryPolicy(max_attempts=2, interval=0.01)
    host = make_host(workflow(lambda b: b.start_with(step).on_error(WorkflowErrorHandling.RETRY, policy)))
    instance_id = host.start_workflow("scenario")
    instance = host.wait_for_workflow(instance_id, 10)
    assert instance.status is WorkflowStatus.SUSPENDED
    assert "RuntimeError: not now" in (instance.reason or "")
    broken.set()
    assert host.resume_workflow(instance_id)
    wait_for("it is complete", lambda: host.get_workflow(instance_id).status is WorkflowStatus.COMPLETE)


def test_an_error_can_terminate(make_host: Hosts) -> None:
    def fail(context: StepExecutionContext) -> None:
        raise RuntimeError("no")

    host = make_host(workflow(lambda b: b.start_with(fail).on_error(WorkflowErrorHandling.TERMINATE)))
    instance = host.wait_for_workflow(host.start_workflow("scenario"), 10)
    assert instance.status is WorkflowStatus.TERMINATED


def test_a_long_body_can_be_terminated_and_is_told(make_host: Hosts) -> None:
    begun, told = threading.Event(), threading.Event()

    def long(context: StepExecutionContext) -> None:
        begun.set()
        if context.cancellation.wait(20):
            told.set()

    host = make_host(workflow(lambda b: b.start_with(long).then(lambda context: None)))
    instance_id = host.start_workflow("scenario")
    assert begun.wait(10)
    wait_for("the body is claimed", lambda: host.get_workflow(instance_id).record.claims)
    assert host.terminate_workflow(instance_id, "no longer needed")
    instance = host.wait_for_workflow(instance_id, 10)
    assert (instance.status, instance.reason) == (WorkflowStatus.TERMINATED, "no longer needed")
    assert told.wait(10)
    assert host.terminate_workflow(instance_id) is False


def test_a_long_body_goes_on_outside_the_lease(make_host: Hosts) -> None:
    release = threading.Event()

    def long(context: StepExecutionContext) -> None:
        release.wait(20)
        context.data.done = True

    host = make_host(
        workflow(
            lambda b: (
                b.parallel()
                .do(lambda x: x.start_with(long))
                .do(lambda x: x.wait_for("go", "k", effective_date=lambda data: LONG_AGO))
                .join()
            )
        )
    )
    instance_id = host.start_workflow("scenario")
    wait_for("the body is claimed", lambda: host.get_workflow(instance_id).record.claims)
    host.publish_event("go", "k")
    wait_for("the event arrived", lambda: not waiting(host, instance_id))
    release.set()
    assert finish(host, instance_id).data.done is True


def test_suspend_keeps_events_for_the_resume(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.wait_for("go", "k").output("got", lambda s: s.event_data)))
    instance_id = host.start_workflow("scenario")
    wait_for("the wait is stored", lambda: waiting(host, instance_id))
    assert host.suspend_workflow(instance_id)
    assert host.wait_for_workflow(instance_id, 10).status is WorkflowStatus.SUSPENDED
    host.publish_event("go", "k", "kept")
    assert host.resume_workflow(instance_id)
    wait_for("it is complete", lambda: host.get_workflow(instance_id).status is WorkflowStatus.COMPLETE)
    assert host.get_workflow(instance_id).data.got == "kept"


def test_the_same_idempotency_key_gives_the_same_instance(make_host: Hosts) -> None:
    runs: list[int] = []
    host = make_host(workflow(lambda b: b.start_with(note(runs, 1))))
    ids = {host.start_workflow("scenario", idempotency_key="k") for _ in range(3)}
    assert len(ids) == 1
    finish(host, ids.pop())
    assert runs == [1]


def test_outputs_that_cant_be_stored_fail_their_step_by_name(make_host: Hosts) -> None:
    class Bad(StepBody):
        def run(self, context: StepExecutionContext) -> ExecutionResult:
            self.good, self.bad = 1, threading.Lock()
            return ExecutionResult.next()

    host = make_host(
        workflow(
            lambda b: (
                b.start_with(Bad)
                .output("good", lambda s: s.good)
                .output("bad", lambda s: s.bad)
                .on_error(WorkflowErrorHandling.SUSPEND)
            )
        )
    )
    instance = host.wait_for_workflow(host.start_workflow("scenario"), 10)
    assert "data.bad" in (instance.reason or "")
    assert "good" not in instance.data


def test_async_bodies_run(make_host: Hosts) -> None:
    async def body(context: StepExecutionContext) -> None:
        context.data.ran = True

    host = make_host(workflow(lambda b: b.start_with(body)))
    assert finish(host, host.start_workflow("scenario")).data.ran is True


def test_a_changed_definition_parks_and_the_old_one_goes_on(make_host: Hosts) -> None:
    def old() -> Workflow:
        return workflow(lambda b: b.wait_for("go", "k").then(lambda context: None))

    host = make_host(old())
    instance_id = host.start_workflow("scenario")
    wait_for("the wait is stored", lambda: waiting(host, instance_id))
    host.stop()  # else whoever stored the wait may still look for the event, by the old definition
    host.registry.deregister("scenario", 1)
    host.registry.register_workflow(workflow(lambda b: b.wait_for("go", "k").id("another")))
    host.start()
    host.publish_event("go", "k")
    wait_for("it is parked", lambda: host.get_workflow(instance_id).parked)
    parked = host.get_workflow(instance_id)
    assert parked.parked is not None
    assert "has changed" in parked.parked.reason
    assert parked.status is WorkflowStatus.RUNNABLE
    host.registry.deregister("scenario", 1)
    host.register_workflow(old())
    finish(host, instance_id)


def test_unknown_instances_are_an_error(make_host: Hosts) -> None:
    host = make_host()
    with pytest.raises(WorkflowNotFoundError):
        host.get_workflow("nobody")
    with pytest.raises(WorkflowNotFoundError):
        host.terminate_workflow("nobody")


def test_the_host_can_be_started_again(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.start_with(lambda context: None)))
    finish(host, host.start_workflow("scenario"))
    assert host.stop()
    host.start()
    finish(host, host.start_workflow("scenario"))
