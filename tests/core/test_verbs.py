"""The meaning of each verb on the engine alone, in steps and in time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from core.player import START, Player, build, play

from liteflow.core import (
    ExecutionResult,
    RetryPolicy,
    StepExecutionContext,
    WorkflowErrorHandling,
    WorkflowStatus,
    codec,
    step,
)
from liteflow.core.flow import ACTIVITY_EVENT, CHILD_EVENT
from liteflow.core.models import PointerStatus

COMPLETE = WorkflowStatus.COMPLETE


class Log(list[Any]):
    """What ran, in order."""

    def say(self, text: Any) -> Callable[[StepExecutionContext], None]:
        return lambda context: self.append(text)

    def item(self, context: StepExecutionContext) -> None:
        self.append(context.item)


@pytest.fixture
def log() -> Log:
    return Log()


def fail(context: StepExecutionContext) -> None:
    raise ValueError("no")


def test_if_and_else(log: Log) -> None:
    def flow(b: Any) -> None:
        b.if_(lambda data: data.yes).do(lambda t: t.then(log.say("yes"))).else_().do(
            lambda e: e.then(log.say("no"))
        ).then(log.say("after"))

    play(build(flow), {"yes": True})
    play(build(flow), {"yes": False})
    assert log == ["yes", "after", "no", "after"]


def test_while_is_asked_again_after_each_round(log: Log) -> None:
    def count(context: StepExecutionContext) -> None:
        context.data.n += 1
        log.append(context.data.n)

    play(
        build(lambda b: b.while_(lambda d: d.n < 3).do(lambda r: r.then(count)).then(log.say("after"))),
        {"n": 0},
    )
    assert log == [1, 2, 3, "after"]


@pytest.mark.parametrize("run_parallel", [True, False, lambda data: False])
def test_for_each(log: Log, run_parallel: Any) -> None:
    each = lambda b: b.for_each([1, 2, 3], run_parallel).do(lambda i: i.then(log.item)).then(log.say("after"))  # noqa: E731
    play(build(each))
    assert log == [1, 2, 3, "after"]
    opened = Player(build(each))
    opened.body(opened.steps(opened.definition.first.id)[0])
    items = [p for p in opened.instance.open_pointers() if p.scope]
    assert len(items) == (3 if run_parallel is True else 1)


def test_parallel_and_join(log: Log) -> None:
    play(
        build(
            lambda b: (
                b.parallel()
                .do(lambda p: p.delay(2).then(log.say("slow")))
                .do(lambda p: p.then(log.say("quick")))
                .join()
                .then(log.say("after"))
            )
        )
    )
    assert log == ["quick", "slow", "after"]


def test_race(log: Log) -> None:
    player = Player(
        build(
            lambda b: b.race(
                lambda r: r.delay(1).then(log.say("first")), lambda r: r.delay(2).then(log.say("second"))
            ).then(log.say("after"))
        )
    )
    assert player.run().status is COMPLETE
    assert log == ["first", "after"]
    assert player.now == player.after(1)


@pytest.mark.parametrize(("value", "ran"), [("a", ["a"]), ("b", ["b", "starts with b"]), ("c", ["else"])])
def test_decide(log: Log, value: str, ran: list[str]) -> None:
    def flow(b: Any) -> None:
        branch = lambda text: b.create_branch().then(log.say(text))  # noqa: E731
        (
            b.decide(lambda data: data.value)
            .branch("a", branch("a"))
            .branch("b", branch("b"))
            .branch(lambda data, outcome: outcome.startswith("b"), branch("starts with b"))
            .default(branch("else"))
            .then(log.say("after"))
        )

    play(build(flow), {"value": value})
    assert log == [*ran, "after"]


def test_when(log: Log) -> None:
    def flow(b: Any) -> None:
        b.then(lambda context: ExecutionResult.outcome(1)).when(1).do(lambda w: w.then(log.say("one"))).when(
            2
        ).do(lambda w: w.then(log.say("two"))).then(log.say("after"))

    play(build(flow))
    assert log == ["one", "after"]


def test_fork_and_attach(log: Log) -> None:
    def flow(b: Any) -> None:
        first = b.then(log.say("first"))
        first.then(log.say("left")).attach("last")
        first.then(log.say("right"))
        first.then(log.say("last")).id("last")

    play(build(flow))
    assert sorted(log) == ["first", "last", "last", "left", "right"]


def test_delay_and_schedule(log: Log) -> None:
    player = Player(
        build(
            lambda b: (
                b.then(log.say("begin"))
                .schedule(5)
                .do(lambda s: s.then(log.say("later")))
                .delay(2)
                .then(log.say("main"))
            )
        )
    )
    instance = player.run()
    assert log == ["begin", "main", "later"]
    assert instance.complete_time == player.after(5)


def test_recur(log: Log) -> None:
    def count(context: StepExecutionContext) -> None:
        context.data.n += 1
        log.append(context.now)

    player = Player(build(lambda b: b.recur(10, lambda d: d.n == 3).do(lambda r: r.then(count))), {"n": 0})
    assert player.run().status is COMPLETE
    assert log == [player.after(0), player.after(10), player.after(20)]


def test_end_workflow(log: Log) -> None:
    def flow(b: Any) -> None:
        b.parallel().do(lambda p: p.wait_for("never", "k")).do(lambda p: p.end_workflow()).join().then(
            log.say("no")
        )

    instance = play(build(flow))
    assert (instance.status, log) == (COMPLETE, [])
    assert instance.waits() == []


@pytest.mark.parametrize("proceed", [True, False])
def test_cancel_condition(log: Log, proceed: bool) -> None:
    def flow(b: Any) -> None:
        b.parallel().do(
            lambda p: (
                p.wait_for("never", "k")
                .id("waits")
                .cancel_condition(lambda d: d.stop, proceed_after_cancel=proceed)
                .then(log.say("proceeds"))
            )
        ).do(lambda p: p.delay(1).output("stop", lambda s: True)).join().then(log.say("after"))

    player = Player(build(flow), {"stop": False})
    assert player.run().status is COMPLETE
    assert log == (["proceeds"] if proceed else []) + ["after"]
    assert player.steps("waits")[0].status is PointerStatus.CANCELLED


def test_wait_takes_what_is_not_older_than_its_effective_date(log: Log) -> None:
    player = Player(build(lambda b: b.wait_for("go", "k").output("got", lambda s: s.event_data)))
    player.run()
    player.event("go", "k", "old", time=START - timedelta(microseconds=1))
    player.event("go", "other", "of another key")
    assert player.instance.status is WorkflowStatus.RUNNABLE
    player.event("go", "k", "new")
    assert codec.decode_data(player.run().data, None).got == "new"


def test_a_wait_that_times_out_runs_its_block_and_takes_no_event_later(log: Log) -> None:
    def flow(b: Any) -> None:
        b.wait_for("go", "k", timeout=60).on_timeout().do(lambda t: t.then(log.say("late"))).then(
            log.say("after")
        )

    player = Player(build(flow))
    instance = player.run()
    assert log == ["late", "after"]
    assert instance.complete_time == player.after(60)
    in_time = Player(build(flow))
    in_time.run(until=in_time.after(59))
    in_time.event("go", "k")
    in_time.run()
    assert log == ["late", "after", "after"]


def test_activity_and_its_failure(log: Log) -> None:
    policy = RetryPolicy(max_attempts=2, interval=5)
    player = Player(
        build(
            lambda b: (
                b.activity("approve", lambda d: {"id": 7})
                .on_error(WorkflowErrorHandling.RETRY, policy)
                .output("by", lambda s: s.result)
            )
        )
    )
    player.run()
    offer = player.sent[-1]
    first: Any = offer.body
    assert (offer.kind, first["name"], first["parameters"]) == ("activity.offer", "approve", {"id": 7})
    player.event(ACTIVITY_EVENT, first["id"], {"error": "no"})
    player.run()
    assert player.now == player.after(5)
    again: Any = player.sent[-1].body
    assert again["id"] != first["id"], "it is offered anew"
    player.event(ACTIVITY_EVENT, again["id"], {"result": "Ada"})
    assert codec.decode_data(player.run().data, None).by == "Ada"
    withdrawn = [item.body for item in player.sent if item.kind == "activity.withdraw"]
    assert withdrawn == [{"id": first["id"]}, {"id": again["id"]}]


def test_start_child(log: Log) -> None:
    flow = lambda b: b.start_child("other", data=lambda d: {"n": 1}).output("got", lambda s: s.data.n)  # noqa: E731
    player = Player(build(flow))
    player.run()
    start: Any = player.sent[-1].body
    assert (start["workflow"], start["data"], start["wait"]) == ("other", {"n": 1}, True)
    answer: Any = {"status": "COMPLETE", "reason": None, "data": {"~": "object", "n": 2}}
    player.event(CHILD_EVENT, start["id"], codec.decode(answer))
    assert codec.decode_data(player.run().data, None).got == 2
    terminated = Player(build(flow))
    terminated.run()
    terminated.request("terminate")
    assert terminated.sent[-1].kind == "child.terminate"


def test_a_child_tells_its_parent_of_its_end() -> None:
    player = Player(build(lambda b: b.then(lambda context: None)), parent="p")
    player.run()
    assert [item.kind for item in player.sent] == ["child.ended"]


def test_precedence_of_error_policies(log: Log) -> None:
    suspend, terminate = WorkflowErrorHandling.SUSPEND, WorkflowErrorHandling.TERMINATE
    own = build(lambda b: b.use_default_error_behavior(terminate).then(fail).on_error(suspend))
    assert play(own).status is WorkflowStatus.SUSPENDED
    definition = build(lambda b: b.use_default_error_behavior(suspend).then(fail))
    assert play(definition).status is WorkflowStatus.SUSPENDED
    scope = build(
        lambda b: b.use_default_error_behavior(suspend).saga(lambda s: s.then(fail)).then(log.say("after"))
    )
    assert play(scope).status is COMPLETE
    assert play(build(lambda b: b.then(fail))).status is WorkflowStatus.TERMINATED, "the host's"
    assert log == ["after"]


def test_retry_policy(log: Log) -> None:
    def attempt(context: StepExecutionContext) -> None:
        log.append((context.attempt, context.now))
        raise KeyError if context.attempt == 3 else ValueError

    policy = RetryPolicy(max_attempts=9, interval=1, backoff=3, max_interval=2, non_retryable=(KeyError,))
    player = Player(build(lambda b: b.then(attempt).on_error(WorkflowErrorHandling.RETRY, policy)))
    assert player.run().status is WorkflowStatus.SUSPENDED
    assert log == [(1, player.after(0)), (2, player.after(1)), (3, player.after(3))]
    player.request("resume")
    player.run(until=player.after(3))
    assert log[3][0] == 1, "a fresh budget"


def test_a_deadline_that_is_due_with_a_time_out_is_not_swallowed_by_its_suspension() -> None:
    suspend = WorkflowErrorHandling.SUSPEND
    workflow = build(
        lambda b: b.wait_for("go", "k").timeout(timedelta(hours=1)).on_error(suspend),
        deadline=timedelta(hours=1),
    )
    player = Player(workflow)
    player.run(until=player.after(3700))
    assert player.instance.status is WorkflowStatus.SUSPENDED
    assert player.instance.deadline is not None
    player.request("resume")
    player.commit()
    assert player.instance.status is WorkflowStatus.SUSPENDED
    assert "longer than" in (player.instance.reason or "")
    assert player.instance.deadline is None


def test_timeout_of_a_step_that_waits_and_deadline_of_a_workflow() -> None:
    suspend = WorkflowErrorHandling.SUSPEND
    timed = Player(build(lambda b: b.wait_for("go", "k").timeout(30).on_error(suspend)))
    instance = timed.run()
    assert (instance.status, timed.now) == (WorkflowStatus.SUSPENDED, timed.after(30))
    assert "StepTimeoutError" in (instance.reason or "")
    late = Player(build(lambda b: b.wait_for("go", "k").on_error(suspend), deadline=timedelta(hours=1)))
    instance = late.run()
    assert (instance.status, late.now) == (WorkflowStatus.SUSPENDED, late.after(3600))
    assert "the workflow took longer than 1:00:00" in (instance.reason or "")


def test_compensation_outside_a_saga(log: Log) -> None:
    def undo(context: StepExecutionContext) -> None:
        log.append(context.error)

    instance = play(build(lambda b: b.then(fail).id("f").compensate_with(undo).then(log.say("after"))))
    assert (instance.status, log) == (COMPLETE, ["ValueError: no", "after"])
    assert next(p for p in instance.pointers.values() if p.step_id == "f").status is PointerStatus.COMPENSATED


def test_a_function_step_takes_inputs_and_gives_its_result(log: Log) -> None:
    @step
    def add(a: int, b: int = 1) -> int:
        return a + b

    flow = lambda b: b.then(add).input("a", lambda d: d.n).output("total.value", lambda s: s.result)  # noqa: E731
    assert codec.decode_data(play(build(flow), {"n": 2}).data, None).total.value == 3
    assert add(1, 2) == 3
    missing = play(build(lambda b: b.then(add)))
    assert "no input for its parameter 'a'" in (missing.reason or "")
