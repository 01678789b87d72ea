"""Activities: work that processes outside fetch under a lease, and answer with a token."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from scenarios.helpers import (
    Hosts,
    errors,
    finish,
    note,
    nothing,
    start,
    until,
    workflow,
)
from servers import wait_for

from liteflow import core
from liteflow.core import (
    PointerStatus,
    RetryPolicy,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowHost,
    WorkflowStatus,
)


def approval(b: WorkflowBuilder) -> Any:
    """One activity with parameters from the data, and its result into the data."""
    return (
        b.start_with(nothing)
        .activity("approve", lambda data: data.given)
        .output("answer", lambda step: step.result)
    )


def fetch(host: WorkflowHost, name: str = "approve") -> Any:
    """The next pending activity, which has to come."""
    found = host.get_pending_activity(name, "tester", timeout=20)
    assert found is not None
    return found


def until_offered(host: WorkflowHost, instance_id: str) -> None:
    """Block until the instance waits for its activity."""
    wait_for(
        "the activity is offered",
        lambda: any(
            pointer.active and pointer.status is PointerStatus.WAITING_FOR_EVENT
            for pointer in host.get_workflow(instance_id).execution_pointers
        ),
    )


def until_withdrawn(host: WorkflowHost) -> None:
    """Block until nothing is offered, on a host whose leases are so short that it would be offered again.

    An activity is withdrawn right after the commit that ends its wait, not in it.
    """
    wait_for(
        "it is withdrawn", lambda: host.get_pending_activity("approve", "tester", timeout=0.4) is None, 20
    )


def test_parameters_go_out_and_the_result_comes_back(make_host: Hosts) -> None:
    host = make_host(workflow(approval))
    instance_id = start(host, {"given": {"text": "a", "number": 1}})
    activity = fetch(host)
    assert activity.parameters == {"text": "a", "number": 1}
    host.submit_activity_success(activity.token, {"text": "a1", "number": 2})
    assert finish(host, instance_id).data.answer == {"text": "a1", "number": 2}
    assert errors(host, instance_id) == []


def test_the_name_may_be_a_function(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        b.activity(lambda data, context: f"approve-{context.workflow.id}", lambda data: data.given).output(
            "answer", lambda step: step.result
        )

    host = make_host(workflow(build))
    instance_id = start(host, {"given": 1})
    activity = fetch(host, f"approve-{instance_id}")
    host.submit_activity_success(activity.token, activity.parameters + 1)
    assert finish(host, instance_id).data.answer == 2


def test_parameters_may_be_left_out(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: b.activity("approve")))
    instance_id = start(host)
    activity = fetch(host)
    assert activity.parameters is None
    host.submit_activity_success(activity.token, None)
    finish(host, instance_id)


def test_nothing_pending_is_none(make_host: Hosts) -> None:
    host = make_host(workflow(approval))
    assert host.get_pending_activity("approve", "tester", timeout=0) is None
    start(host, {"given": 1})
    fetch(host)
    assert host.get_pending_activity("another", "tester", timeout=0) is None
    assert host.get_pending_activity("approve", "tester", timeout=0) is None  # it is leased


def test_the_oldest_is_offered_first(make_host: Hosts) -> None:
    host = make_host(workflow(approval))
    for number in range(4):
        until_offered(host, start(host, {"given": number}))
    assert [fetch(host).parameters for _ in range(4)] == [0, 1, 2, 3]


def test_activities_of_parallel_branches_are_offered_side_by_side(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        b.for_each([1, 2, 3]).do(lambda x: x.activity("approve", lambda data, context: context.item))

    host = make_host(workflow(build))
    instance_id = start(host)
    activities = [fetch(host) for _ in range(3)]
    assert sorted(activity.parameters for activity in activities) == [1, 2, 3]
    for activity in reversed(activities):
        host.submit_activity_success(activity.token, None)
    finish(host, instance_id)


def test_an_answer_chooses_the_path(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        yes = b.create_branch().start_with(note(log, "yes"))
        no = b.create_branch().start_with(note(log, "no"))
        approval(b).decide(lambda data: data.answer).branch("yes", yes).branch("no", no)

    host = make_host(workflow(build))
    instance_id = start(host, {"given": {"prompt": "do you approve?", "options": ["yes", "no"]}})
    activity = fetch(host)
    assert activity.parameters["options"] == ["yes", "no"]
    host.submit_activity_success(activity.token, "yes")
    finish(host, instance_id)
    assert log == ["yes"]
    assert host.get_pending_activity("approve", "tester", timeout=0) is None


# ------------------------------------------------------------------------------------------------ failures


def test_a_failure_is_the_step_s_error_and_retry_offers_it_anew(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: approval(b).on_error(WorkflowErrorHandling.RETRY, 0.05)))
    instance_id = start(host, {"given": 7})
    first = fetch(host)
    host.submit_activity_failure(first.token, "the printer burns")
    second = fetch(host)
    assert second.parameters == 7
    assert second.token != first.token
    host.submit_activity_success(second.token, "printed")
    assert finish(host, instance_id).data.answer == "printed"
    [(kind, message)] = errors(host, instance_id)
    assert kind == "ActivityFailedError"
    assert "the printer burns" in message


def test_failures_use_up_the_attempts(make_host: Hosts) -> None:
    policy = RetryPolicy(max_attempts=2, interval=0.05)
    host = make_host(workflow(lambda b: approval(b).on_error(WorkflowErrorHandling.RETRY, policy)))
    instance_id = start(host, {"given": 1})
    for _ in range(2):
        host.submit_activity_failure(fetch(host).token, "no")
    until(host, instance_id, WorkflowStatus.SUSPENDED)
    assert host.resume_workflow(instance_id)
    host.submit_activity_success(fetch(host).token, "after all")
    until(host, instance_id, WorkflowStatus.COMPLETE)


def test_a_failure_can_terminate(make_host: Hosts) -> None:
    host = make_host(workflow(lambda b: approval(b).on_error(WorkflowErrorHandling.TERMINATE)))
    instance_id = start(host, {"given": 1})
    host.submit_activity_failure(fetch(host).token, "no")
    until(host, instance_id, WorkflowStatus.TERMINATED)


# ---------------------------------------------------------------------------------------- tokens and leases


def answer(host: WorkflowHost, how: str, token: str) -> None:
    match how:
        case "success":
            host.submit_activity_success(token, 1)
        case "failure":
            host.submit_activity_failure(token, "no")
        case _:
            host.release_activity_token(token)


ANSWERS = pytest.mark.parametrize("how", ["success", "failure", "release"])


@ANSWERS
def test_a_wrong_token_is_refused(make_host: Hosts, how: str) -> None:
    host = make_host(workflow(approval))
    instance_id = start(host, {"given": 1})
    activity = fetch(host)
    for wrong in ("", "nonsense", activity.token[:-1], activity.token + "0"):
        with pytest.raises(core.ActivityTokenError):
            answer(host, how, wrong)
    host.submit_activity_success(activity.token, "right")
    assert finish(host, instance_id).data.answer == "right"


@ANSWERS
def test_a_token_is_spent_once_its_activity_has_ended(make_host: Hosts, how: str) -> None:
    host = make_host(workflow(approval))
    instance_id = start(host, {"given": 1})
    activity = fetch(host)
    host.submit_activity_success(activity.token, "first")
    finish(host, instance_id)
    with pytest.raises(core.ActivityTokenError):
        answer(host, how, activity.token)
    assert host.get_workflow(instance_id).data.answer == "first"


def test_an_expired_lease_is_offered_again_and_its_token_refused(make_host: Hosts) -> None:
    host = make_host(workflow(approval), activity_lease=0.3)
    instance_id = start(host, {"given": 1})
    before = host.persistence.now()
    first = fetch(host)
    assert before < first.expires <= host.persistence.now() + timedelta(seconds=0.4)
    second = fetch(host)
    assert host.persistence.now() + timedelta(seconds=0.05) > first.expires
    with pytest.raises(core.ActivityTokenError):
        host.submit_activity_success(first.token, "too late")
    host.submit_activity_success(second.token, "in time")
    assert finish(host, instance_id).data.answer == "in time"


def test_an_expired_token_is_refused_also_if_nobody_took_the_activity_since(make_host: Hosts) -> None:
    host = make_host(workflow(approval), activity_lease=0.1)
    instance_id = start(host, {"given": 1})
    activity = fetch(host)
    wait_for("the lease is over", lambda: host.persistence.now() > activity.expires + timedelta(seconds=0.1))
    with pytest.raises(core.ActivityTokenError):
        host.submit_activity_success(activity.token, "too late")
    assert host.get_workflow(instance_id).status is WorkflowStatus.RUNNABLE


def test_a_released_activity_is_offered_again_at_once(make_host: Hosts) -> None:
    host = make_host(workflow(approval), activity_lease=3600.0)
    instance_id = start(host, {"given": 5})
    first = fetch(host)
    host.release_activity_token(first.token)
    second = fetch(host)
    assert (second.parameters, second.token != first.token) == (5, True)
    with pytest.raises(core.ActivityTokenError):
        host.submit_activity_success(first.token, "given back")
    host.submit_activity_success(second.token, "done")
    assert finish(host, instance_id).data.answer == "done"
    assert errors(host, instance_id) == []


# ------------------------------------------------------------------------------------------ ended otherwise


def test_a_terminated_instance_offers_nothing(make_host: Hosts) -> None:
    host = make_host(workflow(approval), activity_lease=0.1)
    instance_id = start(host, {"given": 1})
    until_offered(host, instance_id)
    host.terminate_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    until_withdrawn(host)


def test_a_terminated_instance_takes_no_answer(make_host: Hosts) -> None:
    host = make_host(workflow(approval))
    instance_id = start(host, {"given": 1})
    activity = fetch(host)
    host.terminate_workflow(instance_id)
    until(host, instance_id, WorkflowStatus.TERMINATED)
    with pytest.raises(core.ActivityTokenError):
        host.submit_activity_success(activity.token, "late")


def test_an_activity_can_time_out(make_host: Hosts) -> None:
    log: list[str] = []

    def build(b: WorkflowBuilder) -> None:
        (
            b.activity("approve", timeout=0.2)
            .on_timeout()
            .do(lambda x: x.start_with(note(log, "nobody came")))
            .then(note(log, "end"))
        )

    host = make_host(workflow(build), activity_lease=0.1)
    finish(host, start(host))
    assert log == ["nobody came", "end"]
    until_withdrawn(host)


def test_an_activity_is_cancelled_by_its_condition(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        (
            b.parallel()
            .do(lambda x: x.activity("approve", cancel_condition=lambda data: hasattr(data, "stop")))
            .do(lambda x: x.wait_for("stop", "k").output("stop", lambda step: True))
            .join()
        )

    host = make_host(workflow(build))
    instance_id = start(host)
    activity = fetch(host)
    host.publish_event("stop", "k")
    finish(host, instance_id)
    with pytest.raises(core.ActivityTokenError):
        host.submit_activity_success(activity.token, "late")
