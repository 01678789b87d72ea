from __future__ import annotations

import itertools
import threading

import pytest
from servers import wait_for

from liteflow.core import Settings, StepExecutionContext, Workflow, WorkflowBuilder, engine
from liteflow.core.bodies import BodyRunner, Job
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.models import Instance
from liteflow.core.slots import Slots


class Gated(Workflow):
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = threading.Event()

    def build(self, builder: WorkflowBuilder) -> None:
        def body(context: StepExecutionContext) -> None:
            self.begun.append(context.workflow.id)
            self.gate.wait(10)

        builder.start_with(body)


def job(workflow: Gated, name: str) -> Job:
    definition = workflow.definition()
    now = MemoryPersistenceProvider().now()
    instance = Instance(name, definition.id, 1, now, begun=False)
    transition = engine.advance(instance, definition, now)
    assert transition is not None
    transition.apply(instance)
    return Job(instance, definition, definition.first, instance.pointers["1"])


def test_jobs_that_wait_behind_a_slow_body_are_begun_by_other_threads() -> None:
    workflow, done = Gated(), threading.Semaphore(0)
    bodies = BodyRunner(MemoryPersistenceProvider().now, Settings())
    slots = Slots(4, bodies, lambda job, ended: done.release())
    for name in "abc":
        slots.submit(job(workflow, name))
    assert not slots.begin()  # one thread is woken for all of them
    wait_for("all run", lambda: slots.overdue() and sorted(workflow.begun) == ["a", "b", "c"])
    workflow.gate.set()
    for _ in "abc":
        assert done.acquire(timeout=10)
    slots.close()


def test_bodies_that_end_at_once_are_run_by_the_thread_that_is_awake() -> None:
    workflow, threads, done = Gated(), set[str](), threading.Semaphore(0)
    workflow.gate.set()
    bodies = BodyRunner(MemoryPersistenceProvider().now, Settings())

    def ended(job: object, outcome: object) -> None:
        threads.add(threading.current_thread().name)
        done.release()

    slots = Slots(4, bodies, ended)
    for number in range(50):
        slots.submit(job(workflow, str(number)))
    slots.begin()
    for _ in range(50):
        assert done.acquire(timeout=10)
    assert len(threads) == 1
    slots.close()


def test_a_body_that_nobody_wants_any_more_is_not_begun_when_its_turn_comes() -> None:
    workflow, done = Gated(), threading.Semaphore(0)
    slots = Slots(
        1, BodyRunner(MemoryPersistenceProvider().now, Settings()), lambda job, ended: done.release()
    )
    unwanted = job(workflow, "unwanted")
    for one in (job(workflow, "first"), unwanted, job(workflow, "last")):
        slots.submit(one)
    slots.begin()
    wait_for("the first one runs", lambda: workflow.begun == ["first"])
    unwanted.dropped = True  # its workflow was terminated meanwhile
    workflow.gate.set()
    for _ in ("first", "last"):
        assert done.acquire(timeout=10)
    assert workflow.begun == ["first", "last"]
    slots.close()


def test_while_a_thread_is_on_its_way_no_other_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is short of CPU it may be long on its way: more of them would only make it longer."""
    workflow, woken, done = Gated(), list[int](), threading.Semaphore(0)
    workflow.gate.set()
    looks = itertools.count()  # each is a second after the one before
    bodies = BodyRunner(MemoryPersistenceProvider().now, Settings())
    slots = Slots(4, bodies, lambda job, ended: done.release(), clock=lambda: float(next(looks)))
    wait_for("all threads sleep", lambda: slots._sleeping == 4)
    with monkeypatch.context() as patch:
        patch.setattr(slots._condition, "notify", woken.append)
        for name in "abc":
            slots.submit(job(workflow, name))
            slots.begin()
            slots.overdue()
    assert woken == [1]
    with slots._lock:
        slots._condition.notify(1)  # here it comes
    for _ in "abc":
        assert done.acquire(timeout=10)
    slots.close()
