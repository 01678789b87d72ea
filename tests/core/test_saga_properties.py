"""Generated sagas with failures, run on the pure engine and compared with a small model of their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from core.player import START, build, play
from hypothesis import example, given, settings
from hypothesis import strategies as st

from liteflow.core import (
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
from liteflow.core.models import Instance, PointerStatus


@dataclass(eq=False)
class Node:
    """A step, or a saga or for_each (of two items, one after the other) around other nodes.

    `fails` counts the runs of a step that fail. `undo` is how many steps its compensation has.
    """

    kind: str
    undo: int
    fails: int = 0
    inner: list[Node] = field(default_factory=list)
    name: str = ""
    runs: int = 0


def nodes(depth: int) -> st.SearchStrategy[list[Node]]:
    step = st.builds(Node, st.just("step"), st.integers(0, 2), st.sampled_from([0, 0, 0, 1, 9]))
    if depth == 0:
        return st.lists(step, min_size=1, max_size=3)
    box = st.builds(
        Node, st.sampled_from(["saga", "saga", "each"]), st.integers(0, 1), st.just(0), nodes(depth - 1)
    )
    return st.lists(step | box, min_size=1, max_size=3)


def named(block: list[Node], counter: list[int]) -> None:
    for node in block:
        counter[0] += 1
        node.name = f"{node.kind}{counter[0]}"
        node.runs = 0
        named(node.inner, counter)


# ------------------------------------------------------------------------------------------- the model


class Failed(Exception):
    def __init__(self, node: Node) -> None:
        self.node = node
        self.through: list[tuple[Node, int]] = []  # boxes that it broke, with what was done before them


class Stopped(Exception):
    pass


class Model:
    """What has to happen, by recursion: no pointers, no queues, no commits."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def run(self, block: list[Node], sagas: list[list[Node]]) -> None:
        for node in block:
            if node.kind == "step":
                self.step(node, sagas)
            elif node.kind == "each":
                self.each(node, sagas)
            else:
                self.saga(node, sagas)

    def step(self, node: Node, sagas: list[list[Node]]) -> None:
        self.log.append(f"do {node.name}")
        node.runs += 1
        if node.runs > node.fails:
            for done in sagas:
                done.append(node)
        elif sagas:
            raise Failed(node)
        elif node.undo:
            self.undo(node)
        else:
            raise Failed(node)

    def each(self, node: Node, sagas: list[list[Node]]) -> None:
        before = len(sagas[-1]) if sagas else 0
        try:
            for _ in range(2):
                self.run(node.inner, sagas)
        except Failed as failed:
            failed.through.append((node, before))
            if not sagas and node.undo:
                self.undo(node)
                return
            raise
        for done in sagas:
            done.append(node)

    def saga(self, node: Node, sagas: list[list[Node]]) -> None:
        done: list[Node] = []
        try:
            self.run(node.inner, [*sagas, done])
        except Failed as failed:
            self.undo(failed.node)
            broken = list(failed.through)
            for place in range(len(done), -1, -1):
                while broken and broken[0][1] >= place:
                    self.undo(broken.pop(0)[0])
                if place:
                    self.undo(done[place - 1])
            self.undo(node)
            for outer in sagas:
                del outer[len(outer) - len(done) :]
            return
        for outer in sagas:
            outer.append(node)

    def undo(self, node: Node) -> None:
        self.log += [f"undo {node.name}.{number}" for number in range(node.undo)]


# ------------------------------------------------------------------------------------------- the engine


class Generated(Workflow):
    id = "generated"

    def __init__(self, block: list[Node], log: list[str]) -> None:
        self.block = block
        self.log = log

    def build(self, builder: WorkflowBuilder) -> None:
        self.chain(builder, self.block)

    def chain(self, at: Any, block: list[Node]) -> None:
        for node in block:
            at = self.add(at, node)

    def add(self, at: Any, node: Node) -> Any:
        if node.kind == "step":
            made = at.then(self.body(node))
        elif node.kind == "each":
            made = at.for_each(lambda data: [1, 2], run_parallel=False).do(
                lambda b: self.chain(b, node.inner)
            )
        else:
            made = at.saga(lambda b: self.chain(b, node.inner))
        made.id(node.name)
        if node.undo:
            made.compensate_with_sequence(lambda b: self.undoing(b, node))
        return made

    def body(self, node: Node) -> Callable[[StepExecutionContext], None]:
        def run(context: StepExecutionContext) -> None:
            self.log.append(f"do {node.name}")
            node.runs += 1
            if node.runs <= node.fails:
                raise ValueError(node.name)

        return run

    def undoing(self, at: Any, node: Node) -> None:
        for number in range(node.undo):

            def run(context: StepExecutionContext, number: int = number) -> None:
                assert context.error is not None
                self.log.append(f"undo {node.name}.{number}")

            at = at.then(run)


def step(undo: int, fails: int = 0) -> Node:
    return Node("step", undo, fails)


@settings(max_examples=300, deadline=None)
@given(nodes(2))
@example([Node("saga", 1, 0, [step(1), Node("each", 1, 0, [step(1), step(1, 1)]), step(1)])])
@example([Node("saga", 1, 0, [step(1), Node("each", 1, 0, [step(1, 9)])])])
@example([Node("saga", 0, 0, [step(1), Node("saga", 1, 0, [step(2)]), step(0, 9)])])
def test_sagas_are_undone_in_the_order_of_the_model(block: list[Node]) -> None:
    named(block, [0])
    model = Model()
    ends = WorkflowStatus.COMPLETE
    try:
        model.run(block, [])
    except Failed:
        ends = WorkflowStatus.TERMINATED
    named(block, [0])
    log: list[str] = []
    instance = play(Generated(block, log))
    assert log == model.log
    assert instance.status is ends
    assert not any(pointer.compensating for pointer in instance.open_pointers())


def test_a_saga_that_is_tried_again_undoes_each_round_alone() -> None:
    log: list[str] = []
    say = lambda text: lambda context: log.append(text)  # noqa: E731
    failures = iter([True, True, False])

    def maybe(context: StepExecutionContext) -> None:
        log.append("charge")
        if next(failures):
            raise ValueError

    def flow(b: WorkflowBuilder) -> None:
        inner = lambda s: s.then(say("book")).compensate_with(say("unbook")).then(maybe)  # noqa: E731
        policy = RetryPolicy(max_attempts=3, interval=60)
        b.saga(inner).on_error(WorkflowErrorHandling.RETRY, policy).then(say("after"))

    instance = play(build(flow))
    assert log == ["book", "charge", "unbook"] * 2 + ["book", "charge", "after"]
    assert instance.status is WorkflowStatus.COMPLETE
    assert instance.complete_time == START + timedelta(seconds=120)


def test_a_saga_whose_attempts_are_used_up_does_what_its_policy_says() -> None:
    def fail(context: StepExecutionContext) -> None:
        raise ValueError("no")

    for behavior, ends in (
        (WorkflowErrorHandling.SUSPEND, WorkflowStatus.SUSPENDED),
        (WorkflowErrorHandling.TERMINATE, WorkflowStatus.TERMINATED),
        (WorkflowErrorHandling.COMPENSATE, WorkflowStatus.COMPLETE),
    ):
        policy = RetryPolicy(max_attempts=2, interval=1, on_exhausted=behavior)
        saga = lambda b, policy=policy: (  # noqa: E731
            b.saga(lambda s: s.then(fail)).id("saga").on_error(WorkflowErrorHandling.RETRY, policy)
        )
        instance = play(build(saga))
        assert instance.status is ends
        if ends is not WorkflowStatus.COMPLETE:
            assert "step saga was undone at attempt 2: ValueError: no" in (instance.reason or "")


def test_what_runs_beside_the_failing_step_is_cancelled_and_not_undone() -> None:
    log: list[str] = []
    say = lambda text: lambda context: log.append(text)  # noqa: E731

    def fail(context: StepExecutionContext) -> None:
        raise ValueError

    def flow(b: WorkflowBuilder) -> None:
        b.saga(
            lambda s: (
                s.parallel()
                .do(lambda p: p.wait_for("never", "k").id("waits").compensate_with(say("unwait")))
                .do(lambda p: p.then(fail))
                .join()
            )
        ).then(say("after"))

    instance = play(build(flow))
    assert log == ["after"]
    waits = next(p for p in instance.pointers.values() if p.step_id == "waits")
    assert waits.status is PointerStatus.CANCELLED
    assert instance.waits() == []


def test_a_failing_compensation_keeps_what_is_still_to_be_undone() -> None:
    log: list[str] = []
    say = lambda text: lambda context: log.append(text)  # noqa: E731
    broken = [True]

    def fail(context: StepExecutionContext) -> None:
        raise ValueError("charge")

    def unbook(context: StepExecutionContext) -> None:
        log.append("unbook")
        if broken:
            raise OSError("hotel")

    def flow(b: WorkflowBuilder) -> None:
        b.use_default_error_behavior(WorkflowErrorHandling.SUSPEND)
        b.saga(
            lambda s: (
                s.then(say("first"))
                .compensate_with(say("undo first"))
                .then(say("book"))
                .compensate_with(unbook)
                .then(fail)
            )
        ).then(say("after"))

    workflow = build(flow)
    instance = play(workflow)
    assert instance.status is WorkflowStatus.SUSPENDED
    assert log == ["first", "book", "unbook"]
    (saga,) = [p for p in instance.pointers.values() if p.compensating]
    assert len(saga.undo) == 2, "the one that failed to be undone, and the one before it"
    broken.clear()


def test_archiving_keeps_what_an_open_saga_may_have_to_undo() -> None:
    def flow(b: WorkflowBuilder) -> None:
        b.then(lambda context: None).id("before").saga(
            lambda s: (
                s.then(lambda context: None)
                .id("undoable")
                .compensate_with(lambda context: None)
                .then(lambda context: None)
                .id("plain")
                .wait_for("go", "k")
            )
        )

    definition = build(flow).definition()
    instance = Instance("i", "generated", 1, START, begun=False)
    bodies = BodyRunner(lambda: START, Settings())
    inputs: list[Any] = []
    while not instance.waits():
        transition = engine.advance(instance, definition, START, inputs)
        assert transition is not None
        transition.apply(instance)
        inputs = [
            bodies.run(Job(instance.copy(), definition, definition.by_id[p.step_id], p))
            for p in engine.ready(instance, START)
        ]
    assert [p.step_id for p in engine.archivable(instance, definition)] == ["before", "plain"]
