"""Suspend, resume and terminate in any order, at any moment of an instance's life, on the pure engine."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from liteflow.core import (
    MemoryPersistenceProvider,
    RetryPolicy,
    Settings,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowStatus,
    engine,
)
from liteflow.core.bodies import BodyRunner, Job
from liteflow.core.engine import EngineOptions
from liteflow.core.inputs import BodyClaimed, BodyEnded, EventsFound
from liteflow.core.models import Claim, Event, Instance, OutboxItem, Request
from liteflow.core.providers import RequestOutcome
from liteflow.core.transition import Outcome

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
TERMINAL = {"lifecycle.completed", "lifecycle.terminated"}


def fail(context: StepExecutionContext) -> None:
    raise ValueError("no")


def fail_once(context: StepExecutionContext) -> None:
    if context.attempt == 1:
        raise ValueError("not yet")


def nothing(context: StepExecutionContext) -> None:
    pass


class Everything(Workflow):
    """Something of all that an instance can be at when it is told to stop."""

    def build(self, builder: WorkflowBuilder) -> None:
        retry = RetryPolicy(max_attempts=2, interval=5)
        (
            builder.start_with(nothing)
            .parallel()
            .do(lambda b: b.delay(3).then(nothing))
            .do(lambda b: b.wait_for("go", "k", timeout=20).on_timeout().do(lambda t: t.then(nothing)))
            .do(lambda b: b.then(fail_once).on_error(WorkflowErrorHandling.RETRY, retry))
            .do(
                lambda b: b.saga(
                    lambda s: s.then(nothing).compensate_with(nothing).then(nothing).then(fail)
                ).compensate_with(fail_once)
            )
            .join()
            .for_each(lambda data: [1, 2, 3], max_parallel=2)
            .do(lambda b: b.then(nothing))
        )


class Control(RuleBasedStateMachine):
    """One instance in a store. Somebody may be at it: bodies run while requests come."""

    def __init__(self) -> None:
        super().__init__()
        self.definition = Everything().definition()
        self.now = START
        self.store = MemoryPersistenceProvider(lambda: self.now)
        self.bodies = BodyRunner(lambda: self.now, Settings())
        self.options = EngineOptions(lifecycle=True)
        self.store.create([Instance("i", "Everything", 1, START, begun=False)])
        self.held = self.load()
        self.running: list[Job] = []
        self.told: dict[int, OutboxItem] = {}
        self.requests = self.claims = 0
        self.ended_at: int | None = None
        self.commit([])

    def load(self) -> Instance:
        found = self.store.load(["i"])["i"]
        assert isinstance(found, Instance)
        return found

    def commit(self, inputs: list[Any]) -> None:
        """As the holder does: a commit that meets a new request is made again with it."""
        while True:
            transition = engine.advance(self.held, self.definition, self.now, inputs, options=self.options)
            if transition is None:
                return
            transition.token = f"t{self.held.revision}"
            (outcome,) = self.store.commit([transition])
            if outcome is Outcome.COMMITTED:
                transition.apply(self.held)
                self.told.update({item.sequence: item for item in self.held.outbox})
                return
            found = self.load()
            assert found.revision == self.held.revision, "nobody else commits here"
            self.held.inbox, self.held.inbox_sequence = found.inbox, found.inbox_sequence

    @rule(kind=st.sampled_from(["suspend", "resume", "terminate", "suspend", "resume"]), twice=st.booleans())
    def request(self, kind: str, twice: bool) -> None:
        was = self.load().status
        for _ in range(1 + twice):
            self.requests += 1
            request = Request(kind, f"r{self.requests}", self.now)
            outcome = self.store.request("i", request, self.now)
            assert outcome is (RequestOutcome.ENDED if was.ended else RequestOutcome.STORED)
        assert was.ended or self.load().wake_at is not None, "nobody would look at it"

    @rule()
    def look(self) -> None:
        self.held = self.load()
        self.commit([])
        assert self.held.inbox == []

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        pointer = data.draw(st.sampled_from(self.ready()))
        assert self.load().status is WorkflowStatus.RUNNABLE or self.load().revision == self.held.revision
        step = self.definition.by_id[pointer.step_id]
        self.running.append(Job(self.held.copy(), self.definition, step, pointer))

    def ready(self) -> list[Any]:
        busy = {job.pointer.id for job in self.running}
        return [p for p in engine.ready(self.held, self.now) if p.id not in busy]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.running))
        self.running.remove(job)
        ended: BodyEnded = self.bodies.run(job)
        self.commit([replace(ended, claim=job.claim.token) if job.claim else ended])

    @precondition(lambda self: any(job.claim is None for job in self.running))
    @rule()
    def claim(self) -> None:
        job = next(job for job in self.running if job.claim is None)
        self.claims += 1
        job.claim = Claim("me", f"c{self.claims}", self.now + timedelta(days=1))
        self.commit([BodyClaimed(job.pointer.id, job.claim)])

    @rule()
    def event(self) -> None:
        self.commit([EventsFound([Event(f"e{self.requests}", "go", "k", self.now)])])

    @rule(seconds=st.sampled_from([1, 5, 60]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.commit([])

    @invariant()
    def one_end_and_nothing_after_it(self) -> None:
        items = [self.told[sequence] for sequence in sorted(self.told)]
        ends = [n for n, item in enumerate(items) if item.kind in TERMINAL]
        assert len(ends) == (1 if self.held.status.ended else 0)
        assert not ends or ends[0] == len(items) - 1, "something was told after the end"
        if self.held.status.ended:
            assert not list(self.held.open_pointers())
            assert self.held.claims == {}
            assert self.ready() == []

    @invariant()
    def a_suspended_instance_begins_nothing(self) -> None:
        if self.held.status is WorkflowStatus.SUSPENDED:
            assert self.ready() == []

    def teardown(self) -> None:
        """Whatever was asked of it, it can be ended."""
        if not self.load().status.ended:
            self.store.request("i", Request("terminate", "last", self.now), self.now)
            self.look()
            assert self.held.status is WorkflowStatus.TERMINATED
        for job in list(self.running):
            self.running.remove(job)
            self.commit([self.bodies.run(job)])
        self.one_end_and_nothing_after_it()


TestControl = Control.TestCase
TestControl.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
