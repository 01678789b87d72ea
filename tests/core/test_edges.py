"""What happens at the seams: requests before a begin, withdrawn bodies, stops, outages of what is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from core.player import Player, build
from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    QueueUnavailableError,
    SingleNodeQueueProvider,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowHost,
    WorkflowStatus,
    configure_workflow_host,
    parking,
)
from liteflow.core.draft import Draft
from liteflow.core.lifecycle import LifecyclePublisher
from liteflow.core.models import Claim, Instance, Parked

Providers = tuple[MemoryPersistenceProvider, SingleNodeQueueProvider, LocalLockProvider]
Make = Callable[..., WorkflowHost]


@pytest.fixture
def providers() -> Providers:
    return MemoryPersistenceProvider(), SingleNodeQueueProvider(), LocalLockProvider()


@pytest.fixture
def make(providers: Providers) -> Iterator[Make]:
    """Makes hosts, not started, on the same providers."""
    made: list[WorkflowHost] = []

    def make_one(*workflows: Workflow, **options: Any) -> WorkflowHost:
        host = configure_workflow_host(*providers, **options)
        for workflow in workflows:
            host.register_workflow(workflow)
        made.append(host)
        return host

    yield make_one
    for host in made:
        host.stop(timeout=5)


def status(host: WorkflowHost, instance_id: str) -> WorkflowStatus:
    return host.get_workflow(instance_id).status


def one_step(body: Callable[[StepExecutionContext], Any], name: str = "one") -> Workflow:
    class One(Workflow):
        id = name

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(body)

    return One()


@pytest.mark.parametrize("kind", ["terminate", "suspend"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_request_that_came_first_counts_first(make: Make, kind: str, begun: bool) -> None:
    ran: list[str] = []
    workflow = one_step(lambda context: ran.append("ran"))
    knows = make(workflow)
    client = knows if begun else make()
    knows.start()
    knows.stop()  # so that the definition is recorded
    instance_id = client.start_workflow("one")
    assert client.request(instance_id, kind)
    knows.start()
    ends = WorkflowStatus.TERMINATED if kind == "terminate" else WorkflowStatus.SUSPENDED
    wait_for("it is applied", lambda: status(knows, instance_id) is ends, 10)
    assert ran == []


def test_bodies_that_found_no_slot_leave_no_timer(make: Make) -> None:
    class Slow(Workflow):
        def __init__(self, name: str) -> None:
            self.id = name

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(lambda context: context.cancellation.wait(0.04)).timeout(6)

    names = [f"slow{n}" for n in range(5)]
    host = make(*[Slow(name) for name in names], concurrency=2)
    host.start()
    ids = [host.start_workflow(name) for name in names for _ in range(4)]
    wait_for("all end", lambda: all(status(host, i) is WorkflowStatus.COMPLETE for i in ids), 30)
    runner = host._runner
    assert runner is not None
    wait_for("no timer is left", lambda: not [t for t in runner._loop._timers if t.action], 10)


def test_a_body_that_uses_the_host_can_end_while_the_host_stops(make: Make) -> None:
    begun, may_end = threading.Event(), threading.Event()
    runs: list[int] = []

    def body(context: StepExecutionContext) -> None:
        runs.append(1)
        begun.set()
        may_end.wait(10)
        host.publish_event("done", "k")

    host = make(one_step(body))
    host.start()
    host.start_workflow("one")
    assert begun.wait(10)
    stopped: list[bool] = []
    stopper = threading.Thread(target=lambda: stopped.append(host.stop(timeout=20)))
    stopper.start()
    runner = host._runner
    wait_for("it is stopping", lambda: host._runner is None or host._runner is not runner, 10)
    may_end.set()
    stopper.join(20)
    assert (stopped, runs) == ([True], [1])


def test_a_condition_is_looked_at_also_when_no_slot_was_free_for_it(make: Make) -> None:
    gate = threading.Event()

    class Waits(Workflow):
        id = "waits"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.parallel().do(
                lambda p: p.wait_for("never", "k").cancel_condition(lambda data: data.flag)
            ).do(lambda p: p.wait_for("go", "k").output("flag", lambda step: True)).join()

    host = make(Waits(), one_step(lambda context: gate.wait(10)), concurrency=1)
    host.start()
    instance_id = host.start_workflow("waits", data={"flag": False})
    wait_for("it waits", lambda: len(host.get_workflow(instance_id).record.waits()) == 2, 10)
    host.publish_event("go", "k")
    host.start_workflow("one")
    gate.set()
    wait_for("it is complete", lambda: status(host, instance_id) is WorkflowStatus.COMPLETE, 10)


def test_a_commit_that_may_fulfil_a_condition_has_somebody_look_again() -> None:
    player = Player(build(lambda b: b.delay(3600).cancel_condition(lambda data: data.flag)), {"flag": False})
    player.body(player.steps("delay")[0])
    assert player.instance.wake_at == player.now, "the holder's lease, not the end of the delay"


def test_restarts_in_good_order_are_no_deaths(make: Make, providers: Providers) -> None:
    gate, ran = threading.Event(), threading.Event()
    workflows = (
        one_step(lambda context: gate.wait(20), "busy"),
        one_step(lambda context: ran.set(), "waits"),
    )
    host = make(*workflows, concurrency=1, shutdown_timeout=0.2)
    host.start()
    host.start_workflow("busy")
    waits = host.start_workflow("waits")
    for _ in range(4):
        host.stop()
        host.start()
    gate.set()
    assert ran.wait(20)
    wait_for("it is complete", lambda: status(host, waits) is WorkflowStatus.COMPLETE, 20)


def test_a_parent_that_is_resumed_starts_a_child_of_its_own_again(make: Make) -> None:
    failures = iter([True, False])

    def child(context: StepExecutionContext) -> None:
        if next(failures):
            raise ValueError("down")

    class Child(Workflow):
        id = "child"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(child).on_error(WorkflowErrorHandling.TERMINATE)

    class Parent(Workflow):
        id = "parent"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_child("child").on_error(WorkflowErrorHandling.SUSPEND)

    host = make(Child(), Parent())
    host.start()
    parent = host.start_workflow("parent")
    wait_for("it is suspended", lambda: status(host, parent) is WorkflowStatus.SUSPENDED, 10)
    host.resume_workflow(parent)
    wait_for("it is complete", lambda: status(host, parent) is WorkflowStatus.COMPLETE, 10)
    assert len(host.list_workflows(workflow="child").items) == 2


def test_all_parked_instances_are_looked_at_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "REDRIVE_AT_ONCE", 2)
    one, two = one_step(lambda context: None), one_step(lambda context: None)
    starter = make(one)
    ids = [starter.start_workflow("one") for _ in range(5)]
    for instance_id in ids:
        revision = starter.get_workflow(instance_id).revision
        record = starter.get_workflow(instance_id).record
        starter.persistence.park(instance_id, revision, Parked("test", record.create_time, "a host"))
    host = make(two)
    host.start()
    wait_for("all end", lambda: all(status(host, i) is WorkflowStatus.COMPLETE for i in ids), 10)


class Publishing(SingleNodeQueueProvider, LifecyclePublisher):
    """Takes no lifecycle events at first."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    def publish_lifecycle(self, messages: Any) -> None:
        self.tries += 1
        if self.tries == 1:
            raise QueueUnavailableError("away")

    def unheard(self, workflow_definition_id: str, version: int) -> frozenset[str]:
        return frozenset()


def test_what_can_not_be_published_is_told_nobody_twice_and_tried_again_after_a_while() -> None:
    queue = Publishing()
    told: list[str] = []
    post: list[str] = []
    host = configure_workflow_host(queue_service=queue, poll_interval=0.05, wake_grace=0.3)
    host.register_workflow(one_step(lambda context: None))
    host.on_lifecycle_event(lambda event: told.append(event.kind))
    host.add_workflow_middleware("post", lambda instance, next: post.append(instance.id))
    with host:
        instance_id = host.start_workflow("one")
        wait_for("it is told", lambda: post, 10)
        assert queue.tries == 2
        assert told == ["started", "step_started", "step_completed", "completed"]
        assert post == [instance_id]


def test_an_event_for_a_suspended_wait_counts_if_it_came_in_time(make: Make) -> None:
    class Waits(Workflow):
        id = "waits"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.wait_for("go", "k", timeout=0.3).output("late", lambda step: step.timed_out)

    host = make(Waits())
    host.start()
    instance_id = host.start_workflow("waits")
    wait_for("it waits", lambda: host.get_workflow(instance_id).record.waits(), 10)
    host.suspend_workflow(instance_id)
    wait_for("it is suspended", lambda: status(host, instance_id) is WorkflowStatus.SUSPENDED, 10)
    host.publish_event("go", "k")
    over = host.get_workflow(instance_id).next_execution
    assert over is not None
    wait_for("its time is up", lambda: host.persistence.now() > over, 10)
    host.resume_workflow(instance_id)
    wait_for("it is complete", lambda: status(host, instance_id) is WorkflowStatus.COMPLETE, 10)
    assert host.get_workflow(instance_id).data.late is False


def test_an_event_after_the_time_out_comes_too_late_also_if_both_are_met_at_once() -> None:
    player = Player(build(lambda b: b.wait_for("go", "k", timeout=10).output("late", lambda s: s.timed_out)))
    player.body(player.steps("wait_for:go")[0])
    player.now = player.after(30)
    player.event("go", "k", time=player.after(20))
    assert player.steps("wait_for:go")[0].timed_out


def test_a_claim_that_was_replaced_and_removed_is_gone() -> None:
    now = Player(build(lambda b: b.then(lambda context: None))).now
    instance = Instance("i", "w", 1, now, claims={"1": Claim("a", "old", now)})
    draft = Draft(instance, now)
    draft.set_claim("1", Claim("b", "new", now))
    draft.remove_claim("1")
    draft.transition.apply(instance)
    assert instance.claims == {}


def test_a_huge_message_of_an_error_is_cut() -> None:
    def fail(context: StepExecutionContext) -> None:
        raise ValueError("x" * 1_000_000)

    player = Player(build(lambda b: b.then(fail)))
    assert player.run().status is WorkflowStatus.TERMINATED
    assert len(player.instance.reason or "") < 3000


def test_data_in_the_place_of_the_version_is_refused_with_a_sentence(make: Make) -> None:
    with pytest.raises(TypeError, match="version is a number, not dict; data goes to data="):
        make().start_workflow("any", {"key": "a"})  # type: ignore[arg-type]
