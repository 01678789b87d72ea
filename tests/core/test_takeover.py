"""What was being run by a process that died: taken over, counted, and suspended when it kills everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    Settings,
    SingleNodeQueueProvider,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowStatus,
    configure_workflow_host,
    engine,
)
from liteflow.core.bodies import BodyRunner, Job
from liteflow.core.inputs import BodyClaimed
from liteflow.core.models import GIVEN_BACK, Claim, Instance
from liteflow.core.providers import Message, workflow_queue
from liteflow.core.slots import Slots

RUNS: list[str] = []


class OneStep(Workflow):
    id = "one-step"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(self.run).id("work")

    @staticmethod
    def run(context: StepExecutionContext) -> None:
        RUNS.append(context.workflow.id)


@pytest.fixture
def host() -> Iterator[WorkflowHost]:
    RUNS.clear()
    made = configure_workflow_host(
        MemoryPersistenceProvider(), SingleNodeQueueProvider(), LocalLockProvider(), poll_interval=0.05
    )
    made.register_workflow(OneStep)
    yield made
    made.stop()


def left_behind(host: WorkflowHost, claimed_until: Any = None, crashes: int = 0) -> str:
    """An instance as a process leaves it that dies while it runs the step, with or without a claim."""
    definition = host.registry.get_definition("one-step")
    now = host.persistence.now()
    instance = Instance("left", "one-step", 1, now, begun=False)
    inputs = []
    if claimed_until is not None:
        inputs = [BodyClaimed("1", Claim("somebody", "their-token", claimed_until))]
    transition = engine.advance(instance, definition, now, inputs, lease_until=now)
    assert transition is not None
    transition.apply(instance)
    instance.crashes = crashes
    instance.wake_at = now
    host.persistence.create([instance])
    return instance.id


def ended(host: WorkflowHost, instance_id: str, status: WorkflowStatus) -> Any:
    wait_for(f"it is {status.name}", lambda: host.get_workflow(instance_id).status is status, 10)
    return host.get_workflow(instance_id)


@pytest.mark.parametrize("claimed", [True, False])
def test_a_dead_process_s_step_is_run_once_by_another(host: WorkflowHost, claimed: bool) -> None:
    until = host.persistence.now() - timedelta(seconds=1) if claimed else None
    instance_id = left_behind(host, until)
    host.start()
    instance = ended(host, instance_id, WorkflowStatus.COMPLETE)
    assert len(RUNS) == 1
    assert instance.record.crashes == 0
    assert instance.record.claims == {}


def test_a_claim_that_lives_is_left_alone(host: WorkflowHost) -> None:
    instance_id = left_behind(host, host.persistence.now() + timedelta(seconds=0.5))
    host.start()
    ended(host, instance_id, WorkflowStatus.COMPLETE)
    assert len(RUNS) == 1
    assert host.get_workflow(instance_id).record.complete_time is not None


@pytest.mark.parametrize("claimed", [True, False])
def test_what_killed_three_processes_is_suspended_and_runs_after_a_resume(
    host: WorkflowHost, claimed: bool
) -> None:
    until = host.persistence.now() - timedelta(seconds=1) if claimed else None
    instance_id = left_behind(host, until, crashes=2)
    host.start()
    instance = ended(host, instance_id, WorkflowStatus.SUSPENDED)
    assert instance.record.reason == "poison: the process that ran step work died 3 times in a row"
    assert not RUNS
    assert host.resume_workflow(instance_id)
    ended(host, instance_id, WorkflowStatus.COMPLETE)
    assert len(RUNS) == 1


def test_a_claim_given_back_in_good_order_counts_for_no_death(host: WorkflowHost) -> None:
    instance_id = left_behind(host, GIVEN_BACK, crashes=2)
    host.start()
    ended(host, instance_id, WorkflowStatus.COMPLETE)


def test_an_instance_that_was_never_begun_can_be_poison_too(host: WorkflowHost) -> None:
    now = host.persistence.now()
    host.persistence.create([Instance("fresh", "one-step", 1, now, begun=False, crashes=2, wake_at=now)])
    host.start()
    instance = ended(host, "fresh", WorkflowStatus.SUSPENDED)
    assert "poison" in instance.record.reason
    assert not RUNS


def test_a_suspect_runs_with_nothing_beside_it() -> None:
    gates = {name: threading.Event() for name in ("first", "suspect", "last")}
    begun: list[str] = []
    done = threading.Semaphore(0)

    class Gated(Workflow):
        def build(self, builder: WorkflowBuilder) -> None:
            def body(context: StepExecutionContext) -> None:
                begun.append(context.workflow.id)
                gates[context.workflow.id].wait(10)

            builder.start_with(body)

    definition = Gated().definition()
    persistence = MemoryPersistenceProvider()
    bodies = BodyRunner(persistence.now, Settings())
    slots = Slots(3, bodies, lambda job, ended: done.release())

    def job(name: str) -> Job:
        instance = Instance(name, "Gated", 1, persistence.now(), begun=False)
        transition = engine.advance(instance, definition, persistence.now())
        assert transition is not None
        transition.apply(instance)
        return Job(instance, definition, definition.first, instance.pointers["1"])

    slots.submit(job("first"))
    slots.begin()
    wait_for("the first runs", lambda: begun == ["first"], 10)
    suspect = job("suspect")
    slots.submit(suspect, alone=True)
    slots.submit(job("last"))
    slots.begin()
    assert begun == ["first"]
    gates["first"].set()
    wait_for("the suspect runs", lambda: begun == ["first", "suspect"], 10)
    slots.claimed(suspect)  # it takes long: the others need not wait for it
    wait_for("the last runs", lambda: begun == ["first", "suspect", "last"], 10)
    for gate in gates.values():
        gate.set()
    for _ in gates:
        assert done.acquire(timeout=10)
    slots.close()


def test_of_many_suspects_only_the_one_that_runs_is_counted() -> None:
    gates = {name: threading.Event() for name in ("a", "b", "c")}
    begun: list[str] = []

    class Gated(Workflow):
        id = "gated"

        def build(self, builder: WorkflowBuilder) -> None:
            def body(context: StepExecutionContext) -> None:
                begun.append(context.workflow.id)
                gates[context.workflow.id].wait(10)

            builder.start_with(body)

    host = configure_workflow_host(long_step=30)
    host.register_workflow(Gated)
    store = host.persistence
    host.open()
    for name in gates:  # its process has died at it once, and nobody knows of a message
        instance = Instance(name, "gated", 1, store.now(), begun=False)
        transition = engine.advance(instance, Gated().definition(), store.now())
        assert transition is not None
        transition.apply(instance)
        instance.crashes = 1
        store.create([instance])
    host.start()
    host.queue.send([Message(workflow_queue("gated", 1), name) for name in gates])

    def crashes() -> list[int]:
        return sorted(one.crashes for one in store.load(list(gates)).values() if isinstance(one, Instance))

    for count in range(1, 4):
        wait_for("one runs", lambda count=count: len(begun) == count, 10)
        assert crashes() == [0] * (count - 1) + [1] * (3 - count) + [2]
        gates[begun[-1]].set()
    for name in gates:
        assert host.wait_for_workflow(name, 10).status is WorkflowStatus.COMPLETE
    host.stop()
