"""What was being run by a process that died: taken over, counted, and suspended when it kills everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from servers import wait_for

from liteflow.core import (
    ExecutionResult,
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
from liteflow.core.providers import Lease, Message, PersistenceProvider, Taken, workflow_queue
from liteflow.core.slots import Slots
from liteflow.core.transition import Outcome

RUNS: list[str] = []


class OneStep(Workflow):
    id = "one-step"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(self.run).id("work")

    @staticmethod
    def run(context: StepExecutionContext) -> None:
        RUNS.append(context.workflow.id)


class Occupying(Workflow):
    """Keeps a slot until it may go on."""

    id = "occupying"

    def __init__(self) -> None:
        self.began, self.going = threading.Event(), threading.Event()

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: (self.began.set(), self.going.wait(10)))


class Returns(MemoryPersistenceProvider):
    """`returned` are the counts that were taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: list[int] = []

    def count_crash(self, instance_id: str, revision: int, by: int) -> None:
        super().count_crash(instance_id, revision, by)
        self.returned.extend([by] if by < 0 else [])


STORES: list[MemoryPersistenceProvider] = []


def _loaded(store: PersistenceProvider, instance_id: str) -> Instance:
    found = store.load([instance_id])[instance_id]
    assert isinstance(found, Instance)
    return found


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


def test_a_body_that_did_not_begin_before_the_lease_was_lost_counts_for_no_death() -> None:
    crashes: list[int] = []

    class Lock(LocalLockProvider):
        def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
            got = super().acquire(names, ttl)
            leases.extend(one for one in got if isinstance(one, Lease) and one.name == "workflow:left")
            return got

    class Slow(MemoryPersistenceProvider):
        def count_crash(self, instance_id: str, revision: int, by: int) -> None:
            super().count_crash(instance_id, revision, by)
            if by > 0 and len(leases) == 1:
                leases[0].expires = 0.0  # it took longer than the lease

    class Watched(Workflow):
        id = "one-step"

        def build(self, builder: WorkflowBuilder) -> None:
            def run(context: StepExecutionContext) -> None:
                found = store.load(["left"])["left"]
                assert isinstance(found, Instance)
                crashes.append(found.crashes)

            builder.start_with(run).id("work")

    leases: list[Lease] = []
    store = Slow()
    options = {"poll_interval": 0.05, "lease_ttl": 0.5}
    with configure_workflow_host(store, SingleNodeQueueProvider(), Lock(), **options) as host:
        host.register_workflow(Watched)
        ended(host, left_behind(host, crashes=1), WorkflowStatus.COMPLETE)
    assert crashes == [2]  # the death before, and this run as long as it is not over


def test_a_suspect_that_found_no_slot_stays_one() -> None:
    """It is given back in good order, but what it is suspected of has not been tried."""
    crashes: list[int] = []

    class Watched(Workflow):
        id = "one-step"

        def build(self, builder: WorkflowBuilder) -> None:
            def run(context: StepExecutionContext) -> None:
                crashes.append(_loaded(store, "left").crashes)

            builder.start_with(run).id("work")

    store, occupying = Returns(), Occupying()
    with configure_workflow_host(store, poll_interval=0.05, long_step=0.5, concurrency=1) as host:
        host.register_workflow(occupying)
        host.register_workflow(Watched)
        host.start_workflow("occupying")
        assert occupying.began.wait(10)
        instance_id = left_behind(host)
        wait_for("it was given back", lambda: store.returned, 10)
        occupying.going.set()
        ended(host, instance_id, WorkflowStatus.COMPLETE)
    assert crashes == [1]


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


def test_a_process_that_dies_with_many_claims_of_an_instance_dies_once() -> None:
    """They expire one after the other, and each is taken over by a commit."""
    began, going = threading.Semaphore(0), threading.Event()
    crashes: list[int] = []

    class Parallel(Workflow):
        id = "parallel"

        def build(self, builder: WorkflowBuilder) -> None:
            def work(context: StepExecutionContext) -> None:
                crashes.append(_loaded(STORES[-1], context.workflow.id).crashes)
                began.release()
                going.wait(30)

            items = builder.start_with(lambda context: None).for_each(lambda data: [1, 2, 3])
            items.do(lambda block: block.start_with(work))

    def host() -> WorkflowHost:
        STORES.append(MemoryPersistenceProvider())
        made = configure_workflow_host(STORES[-1], poll_interval=0.05, long_step=0.01)
        made.register_workflow(Parallel)
        return made

    with host() as first:
        instance_id = first.start_workflow("parallel")
        wait_for("all are claimed", lambda: len(_loaded(STORES[0], instance_id).claims) == 3, 10)
        left = _loaded(STORES[0], instance_id)
        going.set()
    going.clear()
    crashes.clear()
    second, began = host(), threading.Semaphore(0)
    for number, key in enumerate(sorted(left.claims)):
        over = second.persistence.now() + timedelta(seconds=0.3 * number)
        left.claims[key] = Claim("dead", f"token {number}", over)
    left.wake_at = second.persistence.now()
    second.persistence.create([left])
    with second:
        try:
            for _ in range(3):
                assert began.acquire(timeout=10)
        finally:
            going.set()
        ended(second, instance_id, WorkflowStatus.COMPLETE)
    assert crashes == [0, 0, 1]


@pytest.mark.parametrize("recalled", [False, True])
def test_a_suspect_that_the_store_can_not_hold_is_parked(host: WorkflowHost, recalled: bool) -> None:
    store = host.persistence
    store.commit = lambda transitions: [Outcome.REJECTED for _ in transitions]  # type: ignore[method-assign]
    host.open()
    store.create([Instance("big", "one-step", 1, store.now(), begun=False, message_sent=True)])
    queue = workflow_queue("one-step", 1)
    host.queue.send([Message(queue, "big", recalled=recalled)])
    host.start()
    wait_for("it is parked", lambda: _loaded(store, "big").parked, 10)
    wait_for("it is let go", lambda: not host.queue.inspect([queue])[0].unacknowledged, 10)
    assert host.stop(10)


def test_a_suspect_that_slept_and_found_no_slot_stays_one() -> None:
    crashes: list[int] = []

    class Sleeps(Workflow):
        id = "sleeps"

        def build(self, builder: WorkflowBuilder) -> None:
            def run(context: StepExecutionContext) -> ExecutionResult:
                if context.persistence_data is None:
                    return ExecutionResult.sleep(0.2, "slept")
                crashes.append(_loaded(store, context.workflow.id).crashes)
                return ExecutionResult.next()

            builder.start_with(run)

    store, queue, occupying = Returns(), SingleNodeQueueProvider(), Occupying()
    settings = Settings(long_step=0.5, concurrency=1)
    host = WorkflowHost(store, queue, LocalLockProvider(), settings, scheduler=False)
    for workflow in (Sleeps(), occupying):
        host.register_workflow(workflow)
    with host:
        instance_id = host.start_workflow("sleeps")
        due = wait_for("it sleeps", lambda: _loaded(store, instance_id).next_execution, 10)
        wait_for("it is due", lambda: store.now() > due, 10)
        host.start_workflow("occupying")
        try:
            assert occupying.began.wait(10)
            queue.send([Message(workflow_queue("sleeps", 1), instance_id, recalled=True)])
            wait_for("it was given back", lambda: store.returned, 10)
        finally:
            occupying.going.set()
        ended(host, instance_id, WorkflowStatus.COMPLETE)
    assert crashes == [1]


def test_nothing_of_a_suspect_begins_before_its_count_is_stored() -> None:
    counting, may_count = threading.Event(), threading.Event()

    class Slow(MemoryPersistenceProvider):
        shared = True  # so that its calls are made beside the runner's loop

        def count_crash(self, instance_id: str, revision: int, by: int) -> None:
            counting.set()
            assert may_count.wait(10)
            super().count_crash(instance_id, revision, by)

    store, queue, busy = Slow(), SingleNodeQueueProvider(), list[int]()
    host = WorkflowHost(store, queue, LocalLockProvider(), Settings(allow_local_lock=True), scheduler=False)
    host.register_workflow(OneStep)
    with host:
        store.create([Instance("left", "one-step", 1, store.now(), begun=False, message_sent=True)])
        queue.send([Message(workflow_queue("one-step", 1), "left", recalled=True)])
        runner = host._runner
        assert runner is not None and counting.wait(10)

        def something_else_happens() -> None:
            act = runner._acts["left"]
            runner._go(act)
            busy.append(len(act.busy))

        runner._loop.post(something_else_happens)
        wait_for("it has happened", lambda: busy, 10)
        may_count.set()
        ended(host, "left", WorkflowStatus.COMPLETE)
    assert busy == [0]
