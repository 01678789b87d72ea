"""Generated definitions and histories, run on the pure engine with crashes at any commit boundary."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from liteflow.core import Settings, Workflow, WorkflowBuilder, WorkflowStatus, engine
from liteflow.core.bodies import BodyRunner, Job
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.inputs import BodyClaimed, BodyEnded, EventsFound
from liteflow.core.models import Claim, Event, Instance, PointerStatus, Request
from liteflow.core.transition import Transition

START = datetime(2026, 1, 1, tzinfo=timezone.utc)

# A block is a list of nodes; a node is ("step",), ("if", bool, block), ("while", rounds, block),
# ("each", items, window, block), ("parallel", [block, ...]), ("wait",) or ("delay",).
Block = list[Any]


def blocks(depth: int) -> st.SearchStrategy[Block]:
    leaf = st.sampled_from([("step",), ("step",), ("wait",), ("delay",)])
    if depth == 0:
        return st.lists(leaf, min_size=1, max_size=3)
    inner = blocks(depth - 1)
    node = st.one_of(
        leaf,
        st.tuples(st.just("if"), st.booleans(), inner),
        st.tuples(st.just("while"), st.integers(0, 3), inner),
        st.tuples(st.just("each"), st.integers(0, 5), st.sampled_from([1, 2, 64]), inner),
        st.tuples(st.just("parallel"), st.lists(inner, min_size=1, max_size=3)),
    )
    return st.lists(node, min_size=1, max_size=3)


def expected(block: Block) -> int:
    """How many leaves a run of the block ends: the independent model."""
    total = 0
    for node in block:
        match node[0]:
            case "if":
                total += expected(node[2]) if node[1] else 0
            case "while":
                total += node[1] * expected(node[2])
            case "each":
                total += node[1] * expected(node[3])
            case "parallel":
                total += sum(expected(branch) for branch in node[1])
            case _:
                total += 1
    return total


class Generated(Workflow):
    id = "generated"

    def __init__(self, block: Block) -> None:
        self.block = block
        self.leaves: set[str] = set()
        self.count = 0

    def build(self, builder: WorkflowBuilder) -> None:
        self.chain(builder, self.block)

    def name(self, leaf: bool) -> str:
        self.count += 1
        name = f"{'leaf' if leaf else 'box'}{self.count}"
        if leaf:
            self.leaves.add(name)
        return name

    def chain(self, at: Any, block: Block) -> Any:
        for node in block:
            at = self.add(at, node)
        return at

    def add(self, at: Any, node: Any) -> Any:
        def inner(block: Block) -> Any:
            return lambda b: self.chain(b, block)

        match node[0]:
            case "step":
                return at.then(lambda context: None).id(self.name(True))
            case "wait":
                return at.wait_for("go", "k", effective_date=lambda data: START).id(self.name(True))
            case "delay":
                return at.delay(1).id(self.name(True))
            case "if":
                return at.if_(lambda data: node[1]).do(inner(node[2])).id(self.name(False))
            case "while":
                # The rounds of this activation are counted in what its children left behind.
                return self.loop(at, node[1], inner(node[2]))
            case "each":
                items = list(range(node[1]))
                made = at.for_each(lambda data: items, max_parallel=node[2]).do(inner(node[3]))
                return made.id(self.name(False))
            case _:
                made = at.parallel()
                for branch in node[1]:
                    made = made.do(inner(branch))
                return made.join().id(self.name(False))

    def loop(self, at: Any, rounds: int, inner: Any) -> Any:
        name = self.name(False)

        def more(data: Any, context: Any) -> bool:
            pointer = context.execution_pointer
            begun = sum(
                1 for p in context.workflow.record.pointers.values() if p.predecessor_id == pointer.id
            )
            heads = sum(len(block) for block in context.step.blocks)
            return begun // heads < rounds

        return at.while_(more).do(inner).id(name)


@dataclass
class Simulator:
    """Drives one instance; `stored` is what the store holds."""

    definition: WorkflowDefinition
    seed: int
    crash_rate: float = 0.0
    stored: Instance = field(init=False)
    now: datetime = START
    commits: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.stored = Instance("i", "generated", 1, START, begun=False)
        self.bodies = BodyRunner(lambda: self.now, Settings())
        self.events = 0

    def commit(self, *inputs: Any) -> Transition | None:
        before = self.stored.copy()
        lease = self.now + timedelta(seconds=10)
        transition = engine.advance(self.stored, self.definition, self.now, inputs, lease_until=lease)
        assert self.stored == before, "the engine changed its input"
        if transition is None:
            return None
        if self.random.random() < self.crash_rate:
            return None  # the process died before the store had it
        transition.apply(self.stored)
        assert transition.after == self.stored, "a holder would go on from something else than is stored"
        assert transition.after.open_pointers() == self.stored.open_pointers()
        self.commits += 1
        self.check()
        return transition

    def check(self) -> None:
        stored = self.stored
        open_by_parent = Counter(p.scope[-1] for p in stored.open_pointers() if p.scope)
        for pointer in stored.pointers.values():
            assert open_by_parent[pointer.id] == (0 if pointer.ended else pointer.open_children)
            if pointer.id in stored.items and not pointer.ended:
                window = pointer.persistence_data
                assert isinstance(window, int)
                assert pointer.open_children <= max(window, 1)
        if stored.status.ended:
            assert not list(stored.open_pointers())
            assert stored.wake_at is None
            assert not engine.ready(stored, self.now + timedelta(days=1))
        elif stored.status is WorkflowStatus.RUNNABLE:
            moving = engine.ready(stored, self.now) or stored.claims
            sleeping = [p for p in stored.open_pointers() if p.status is PointerStatus.SLEEPING]
            waiting = stored.waits()
            assert stored.wake_at is not None or not (moving or sleeping or waiting)

    def ended(self, pointer_id: str) -> BodyEnded:
        pointer = self.stored.pointers[pointer_id]
        step = self.definition.by_id[pointer.step_id]
        return self.bodies.run(Job(self.stored.copy(), self.definition, step, pointer))

    def step(self) -> None:
        ready = engine.ready(self.stored, self.now)
        if ready:
            chosen = self.random.sample(ready, self.random.randint(1, min(3, len(ready))))
            self.commit(*[self.ended(pointer.id) for pointer in chosen])
        elif waits := self.stored.waits():
            self.events += 1
            time = self.now - timedelta(microseconds=self.random.randint(0, 5))
            assert waits[0].since <= START
            self.commit(EventsFound([Event(f"e{self.events}", "go", "k", max(time, START))]))
        else:
            due = self.stored.next_execution
            assert due is not None, "nothing is ready, sleeping or waiting: it is stuck"
            self.now = max(self.now, due)

    def run(self) -> None:
        self.commit()
        for _ in range(20_000):
            if self.stored.status is WorkflowStatus.COMPLETE:
                return
            if not self.stored.begun:
                self.commit()
            else:
                self.step()
        raise AssertionError("it does not end")

    def leaves(self, workflow: Generated) -> int:
        ended = [p for p in self.stored.pointers.values() if p.status is PointerStatus.COMPLETE]
        return sum(1 for pointer in ended if pointer.step_id in workflow.leaves)


def made(block: Block) -> tuple[Generated, WorkflowDefinition]:
    workflow = Generated(block)
    return workflow, workflow.definition()


@settings(max_examples=150, deadline=None)
@given(blocks(2), st.integers(0, 10_000))
def test_every_definition_ends_with_each_leaf_run_as_often_as_it_says(block: Block, seed: int) -> None:
    workflow, definition = made(block)
    simulator = Simulator(definition, seed)
    simulator.run()
    assert simulator.leaves(workflow) == expected(block)
    assert simulator.commit() is None


@settings(max_examples=100, deadline=None)
@given(blocks(2), st.integers(0, 10_000), st.sampled_from([0.1, 0.5]))
def test_crashes_before_any_commit_change_nothing_in_the_end(block: Block, seed: int, rate: float) -> None:
    workflow, definition = made(block)
    simulator = Simulator(definition, seed, rate)
    simulator.run()
    assert simulator.leaves(workflow) == expected(block)


@settings(max_examples=100, deadline=None)
@given(blocks(1), st.integers(0, 10_000), st.integers(0, 30))
def test_a_join_waits_for_all_that_it_encloses(block: Block, seed: int, extra: int) -> None:
    workflow = Generated([("parallel", [block, [("step",)] * (1 + extra % 3)]), ("step",)])
    definition = workflow.definition()
    simulator = Simulator(definition, seed)
    box = definition.first.id
    last = definition.first.next[0]
    while simulator.stored.status is not WorkflowStatus.COMPLETE:
        simulator.step() if simulator.stored.begun else simulator.commit()
        pointers = simulator.stored.pointers.values()
        if any(p.step_id == last for p in pointers):
            container = next(p.id for p in pointers if p.step_id == box)
            assert all(p.ended for p in pointers if container in p.scope)


@settings(max_examples=100, deadline=None)
@given(blocks(1), st.integers(0, 10_000), st.integers(0, 12))
def test_terminate_ends_it_at_any_boundary_and_nothing_runs_after(block: Block, seed: int, when: int) -> None:
    _, definition = made(block)
    simulator = Simulator(definition, seed)
    for _ in range(when):
        if simulator.stored.status is WorkflowStatus.COMPLETE:
            return
        simulator.step() if simulator.stored.begun else simulator.commit()
    if simulator.stored.status is WorkflowStatus.COMPLETE:
        return
    simulator.stored.inbox = [Request("terminate", "r", START, sequence=1)]
    simulator.stored.inbox_sequence = 1
    late = [simulator.ended(p.id) for p in engine.ready(simulator.stored, simulator.now)][1:]
    simulator.commit()
    assert simulator.stored.status is WorkflowStatus.TERMINATED
    assert simulator.stored.applied == ["r"]
    assert simulator.commit(*late) is None


@settings(max_examples=60, deadline=None)
@given(blocks(1), st.integers(0, 10_000), st.integers(0, 12))
def test_a_suspended_instance_goes_on_where_it_was(block: Block, seed: int, when: int) -> None:
    workflow, definition = made(block)
    simulator = Simulator(definition, seed)
    for _ in range(when):
        if simulator.stored.status is WorkflowStatus.COMPLETE:
            return
        simulator.step() if simulator.stored.begun else simulator.commit()
    if simulator.stored.status is WorkflowStatus.COMPLETE:
        return
    for sequence, kind in ((1, "suspend"), (2, "resume")):
        simulator.stored.inbox = [Request(kind, kind, START, sequence=sequence)]
        simulator.stored.inbox_sequence = sequence
        simulator.commit()
        if kind == "suspend":
            assert simulator.stored.status is WorkflowStatus.SUSPENDED
            assert engine.ready(simulator.stored, simulator.now + timedelta(days=1)) == []
    simulator.run()
    assert simulator.leaves(workflow) == expected(block)


def test_only_the_holder_of_a_claim_may_end_its_body() -> None:
    _, definition = made([("step",)])
    simulator = Simulator(definition, 1)
    simulator.commit()
    ended = simulator.ended("1")
    claim = Claim("me", "token", START + timedelta(seconds=30))
    simulator.commit(BodyClaimed("1", claim))
    assert engine.ready(simulator.stored, simulator.now) == []
    assert simulator.stored.wake_at == claim.until
    assert simulator.commit(ended) is None, "without the token"
    other = BodyEnded("1", START, ended.result, claim="other")
    assert simulator.commit(other) is None, "with another token"
    assert [p.id for p in engine.ready(simulator.stored, claim.until)] == ["1"], "once it has expired"
    simulator.commit(BodyEnded("1", START, ended.result, claim="token"))
    assert simulator.stored.status is WorkflowStatus.COMPLETE
    assert simulator.stored.claims == {}


def test_a_result_in_the_inbox_counts() -> None:
    from liteflow.core.inputs import ended_to_plain

    _, definition = made([("step",)])
    simulator = Simulator(definition, 1)
    simulator.commit()
    simulator.commit(BodyClaimed("1", Claim("me", "token", START + timedelta(seconds=30))))
    ended = BodyEnded("1", START, simulator.ended("1").result, data_set={"a": 1}, claim="token")
    simulator.stored.inbox = [Request("result", "r", START, arguments=ended_to_plain(ended), sequence=1)]
    simulator.stored.inbox_sequence = 1
    simulator.commit()
    assert simulator.stored.status is WorkflowStatus.COMPLETE
    assert simulator.stored.data == {"a": 1}
