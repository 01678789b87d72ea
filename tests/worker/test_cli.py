"""The commands, over memory where that tells enough and over real servers else; and what they show."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from click.testing import CliRunner, Result
from servers import wait_for

from liteflow.core import (
    RetryPolicy,
    Settings,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowHost,
    WorkflowStatus,
)
from liteflow.core.memory_lock import LocalLockProvider
from liteflow.core.memory_queue import SingleNodeQueueProvider
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.models import Instance, Parked, Pointer, PointerStatus
from liteflow.core.views import WorkflowInstance
from liteflow.worker.cli import main
from liteflow.worker.show import blocked_on, instance_json, instance_text
from liteflow.worker.wiring import Servers

Run = Callable[..., Result]
Build = Callable[[WorkflowBuilder], Any]
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
LATER = NOW + timedelta(hours=1)


def workflow(build: Build, name: str = "scenario", **attributes: Any) -> Workflow:
    def build_it(self: Workflow, builder: WorkflowBuilder) -> None:
        build(builder)

    made: Workflow = type("Scenario", (Workflow,), {"id": name, "build": build_it, **attributes})()
    return made


def step(name: str, body: Callable[[Any], Any] = lambda context: None) -> Callable[[Any], Any]:
    def run(context: Any) -> Any:
        return body(context)

    run.__name__ = name
    return run


def fail(context: Any) -> None:
    raise RuntimeError("broken")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkflowHost]:
    """A started host whose store and queue the commands use, instead of servers."""
    store, queue, lock = MemoryPersistenceProvider(), SingleNodeQueueProvider(), LocalLockProvider()
    started = WorkflowHost(store, queue, lock, Settings())
    started.start()

    class Client(WorkflowHost):
        def stop(self, timeout: float | None = None) -> bool:
            return True  # the providers are those of the other host

    monkeypatch.setattr(Servers, "host", lambda self, settings: Client(store, queue, lock, settings))
    yield started
    started.stop(timeout=5)


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(main, arguments, **options)

    return invoke


def start(host: WorkflowHost, build: Build, **attributes: Any) -> str:
    host.register_workflow(workflow(build, **attributes))
    return host.start_workflow("scenario")


def waits(host: WorkflowHost, instance_id: str, *kinds: str) -> list[dict[str, Any]]:
    """What the instance is blocked on, once that is of these kinds."""

    def blocked() -> list[dict[str, Any]] | None:
        found = blocked_on(host.get_workflow(instance_id).record)
        return found if [why["kind"] for why in found] == list(kinds) else None

    found: list[dict[str, Any]] = wait_for(f"it is blocked on {kinds}", blocked, 20)
    return found


def text(host: WorkflowHost, instance_id: str) -> str:
    return instance_text(host.get_workflow(instance_id), host.get_errors(instance_id), host.persistence.now())


def steps_shown(host: WorkflowHost, instance_id: str) -> list[str]:
    """The tree of steps, without what is said of each."""
    lines = text(host, instance_id).split("\nsteps\n")[1].split("\n\n")[0].splitlines()
    return [line.partition("  (")[0] for line in lines]


# ------------------------------------------------------------------------------------------------ control


def test_an_instance_is_suspended_resumed_and_terminated(host: WorkflowHost, run: Run) -> None:
    instance_id = start(host, lambda b: b.wait_for("go", "k"))
    waits(host, instance_id, "event")
    result = run("suspend", instance_id, "--reason", "lunch")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"suspend of {instance_id} is stored; it takes effect with the next commit\n"
    assert waits(host, instance_id, "suspended")[0]["reason"] == "lunch"
    assert run("resume", instance_id).exit_code == 0
    waits(host, instance_id, "event")
    assert run("terminate", instance_id, "--reason", "enough").exit_code == 0
    instance = host.wait_for_workflow(instance_id, 10)
    assert (instance.status, instance.reason) == (WorkflowStatus.TERMINATED, "enough")


@pytest.mark.parametrize("command", ["suspend", "resume", "terminate"])
def test_an_ended_instance_can_not_be_steered(host: WorkflowHost, run: Run, command: str) -> None:
    instance_id = start(host, lambda b: b.start_with(step("only")))
    host.wait_for_workflow(instance_id, 10)
    result = run(command, instance_id)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: can't {command} {instance_id}: it has ended, as COMPLETE\n"


@pytest.mark.parametrize("command", ["suspend", "resume", "terminate", "show"])
def test_an_unknown_id_is_one_line(host: WorkflowHost, run: Run, command: str) -> None:
    result = run(command, "nobody")
    assert result.exit_code == 1
    assert result.stderr == "Error: there is no workflow with the id nobody\n"


# -------------------------------------------------------------------------------------------------- purge


@pytest.fixture
def ended(host: WorkflowHost, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A complete and a terminated instance, an hour after their end by the clock of the store."""
    complete = start(host, lambda b: b.start_with(step("only")))
    host.register_workflow(workflow(lambda b: b.wait_for("go", "k"), "waits"))
    terminated = host.start_workflow("waits")
    host.terminate_workflow(terminated)
    for instance_id in (complete, terminated):
        assert host.wait_for_workflow(instance_id, 10).status.ended
        wait_for(
            "all is told",
            lambda instance_id=instance_id: not host.get_workflow(instance_id).record.outbox,
            10,
        )
    now = host.persistence.now() + timedelta(hours=1)
    monkeypatch.setattr(host.persistence, "now", lambda: now)
    return [complete, terminated]


def ids(host: WorkflowHost) -> set[str]:
    return {item.id for item in host.list_workflows().items}


def test_purge_deletes_what_ended_long_enough_ago(host: WorkflowHost, run: Run, ended: list[str]) -> None:
    for older_than in ("2h", "61m", "3700s", "1d"):
        result = run("purge", "--status", "COMPLETE", "--older-than", older_than, "--yes")
        assert (result.exit_code, result.stdout) == (0, "0 purged\n")
    assert ids(host) == set(ended)
    result = run("purge", "--status", "complete", "--older-than", "50m", "--yes")
    assert (result.exit_code, result.stdout) == (0, "1 purged\n")
    assert ids(host) == {ended[1]}


@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, 2), ("", 1, 2), ("y\n", 0, 1)])
def test_purge_asks(
    host: WorkflowHost, run: Run, ended: list[str], answer: str, code: int, left: int
) -> None:
    result = run("purge", "--status", "TERMINATED", "--older-than", "0s", "--prefix", "mine", input=answer)
    assert result.exit_code == code
    assert result.stderr.startswith("Delete all TERMINATED workflows of 'mine' that ended before 20")
    assert len(ids(host)) == left


@pytest.mark.parametrize(
    "arguments",
    [
        ("--status", "COMPLETE", "--older-than", "30"),
        ("--status", "COMPLETE", "--older-than", "d"),
        ("--status", "COMPLETE", "--older-than", "-1d"),
        ("--status", "COMPLETE", "--older-than", "1.5h"),
        ("--status", "COMPLETE", "--older-than", "9999999999d"),
        ("--status", "COMPLETE", "--older-than", "9999999d"),
        ("--status", "RUNNABLE", "--older-than", "1d"),
        ("--status", "COMPLETE"),
        ("--older-than", "1d"),
    ],
)
def test_purge_refuses_what_it_does_not_understand(
    host: WorkflowHost, run: Run, ended: list[str], arguments: tuple[str, ...]
) -> None:
    result = run("purge", "--yes", *arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert ids(host) == set(ended)


# ----------------------------------------------------------------------------------------- start, publish


def test_start_publish_show_and_list(host: WorkflowHost, run: Run) -> None:
    host.register_workflow(
        workflow(lambda b: b.wait_for("go", lambda d: d.key).output("got", lambda s: s.event_data))
    )
    started = run("start", "scenario", "--data", '{"key": "k"}', "--reference", "r", "--key", "once")
    instance_id = started.stdout.strip()
    assert run("start", "scenario", "--key", "once").stdout.strip() == instance_id
    waits(host, instance_id, "event")
    assert run("publish", "go", "k", "--data", "[1]").exit_code == 0
    host.wait_for_workflow(instance_id, 10)
    shown = json.loads(run("show", instance_id, "--json").stdout)
    assert shown["data"] == {"key": "k", "got": [1]}
    assert instance_id in run("show", instance_id).stdout
    listed = json.loads(run("list", "--reference", "r", "--json").stdout)
    assert [item["id"] for item in listed["items"]] == [instance_id]
    assert run("list").stdout.splitlines()[1].startswith(instance_id)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("start", "scenario", "--data", "{"), "is not JSON"),
        (("start", "scenario", "--data", "[]"), "must be a JSON object"),
        (("start", "scenario", "--data", "@/no/such/file"), "can't read /no/such/file"),
        (("publish", "go", "k", "--time", "tomorrow"), "must be like 2026-01-01T00:00:00Z"),
        (("publish", "go", "k", "--time", "2026-01-01T00:00:00"), "has no zone"),
    ],
)
def test_bad_arguments_are_named(
    host: WorkflowHost, run: Run, arguments: tuple[str, ...], complaint: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_start_waits_for_the_end(host: WorkflowHost, run: Run) -> None:
    host.register_workflow(workflow(lambda b: b.start_with(fail).on_error(WorkflowErrorHandling.SUSPEND)))
    result = run("start", "scenario", "--wait", "20")
    assert result.exit_code == 1
    assert "SUSPENDED" in result.stderr
    assert "step fail failed at attempt 1: RuntimeError: broken" in result.stderr


# --------------------------------------------------------------------------------------- what is waited for


def test_an_activity(host: WorkflowHost) -> None:
    instance_id = start(host, lambda b: b.activity("approve", timeout=3600).id("ask"))
    (why,) = waits(host, instance_id, "activity")
    assert (why["name"], why["step_id"], why["pointer_id"]) == ("approve", "ask", "1")
    since, until = (datetime.fromisoformat(why[name].replace("Z", "+00:00")) for name in ("since", "until"))
    assert timedelta(seconds=3600) <= until - since < timedelta(seconds=3610)
    assert "step ask: activity 'approve' to be done, since 20" in text(host, instance_id)
    assert f", until {why['until']} at the latest" in text(host, instance_id)


def test_a_child_and_its_parent(host: WorkflowHost) -> None:
    host.register_workflow(workflow(lambda b: b.wait_for("go", "k"), "child"))
    instance_id = start(host, lambda b: b.start_child("child"))
    (why,) = waits(host, instance_id, "child")
    assert f"child workflow {why['id']}, since 20" in text(host, instance_id)
    wait_for("the child is there", lambda: host.get_workflow(why["id"]), 10)
    shown = instance_json(host.get_workflow(why["id"]))
    assert shown["parent"] == instance_id
    assert shown["blocked_on"][0]["kind"] == "event"
    assert f"parent     {instance_id}" in text(host, why["id"])
    assert instance_json(host.get_workflow(instance_id))["parent"] is None


def test_an_event_with_and_without_a_time_out(host: WorkflowHost) -> None:
    instance_id = start(
        host,
        lambda b: (
            b.parallel()
            .do(lambda x: x.wait_for("a", "k", timeout=3600))
            .do(lambda x: x.wait_for("b", "k").timeout(3600))
            .join()
        ),
    )
    first, second = waits(host, instance_id, "event", "event")
    assert (first["name"], "until" in first, "deadline" in first) == ("a", True, False)
    assert (second["name"], "until" in second, "deadline" in second) == ("b", False, True)
    assert f", until {first['until']} at the latest" in text(host, instance_id)
    assert f"; its time is up at {second['deadline']}" in text(host, instance_id)


def test_the_deadline_of_an_instance(host: WorkflowHost) -> None:
    instance_id = start(host, lambda b: b.wait_for("go", "k"), deadline=timedelta(hours=2))
    waits(host, instance_id, "event")
    deadline = host.get_workflow(instance_id).record.deadline
    assert deadline is not None
    shown = instance_json(host.get_workflow(instance_id))["deadline"]
    assert shown == deadline.isoformat().replace("+00:00", "Z")
    assert f"  deadline   {deadline.strftime('%Y-%m-%d %H:%M:%S')} UTC (in 120 min)" in text(
        host, instance_id
    )
    host.terminate_workflow(instance_id)
    host.wait_for_workflow(instance_id, 10)
    assert instance_json(host.get_workflow(instance_id))["deadline"] is None


def test_a_saga_that_is_being_compensated(host: WorkflowHost) -> None:
    def build(b: WorkflowBuilder) -> None:
        def inside(s: WorkflowBuilder) -> None:
            (
                s.start_with(step("book"))
                .compensate_with(step("unbook"))
                .then(step("pay"))
                .compensate_with_sequence(lambda c: c.wait_for("refunded", "k").id("refund"))
                .then(fail)
                .on_error(WorkflowErrorHandling.COMPENSATE)
            )

        b.saga(inside).id("trip").compensate_with(step("say sorry"))

    instance_id = start(host, build)
    saga, event = waits(host, instance_id, "compensating", "event")
    assert (saga["step_id"], saga["error"], saga["left"]) == ("trip", "RuntimeError: broken", 3)
    assert (event["step_id"], event["name"]) == ("refund", "refunded")
    assert (
        "step trip: is being undone, 3 compensations are left, after RuntimeError: broken"
        in text(host, instance_id)
    )  # fmt: skip
    host.publish_event("refunded", "k")
    assert host.wait_for_workflow(instance_id, 10).status is WorkflowStatus.COMPLETE
    assert instance_json(host.get_workflow(instance_id))["blocked_on"] == []


def test_a_timer_and_a_retry(host: WorkflowHost) -> None:
    instance_id = start(
        host,
        lambda b: (
            b.parallel()
            .do(lambda x: x.delay(3600))
            .do(
                lambda x: x.start_with(fail).on_error(
                    WorkflowErrorHandling.RETRY, RetryPolicy(max_attempts=2, interval=3600)
                )
            )
            .join()
        ),
    )
    timer, retry = waits(host, instance_id, "timer", "retry")
    assert timer["until"] is not None
    assert (retry["step_id"], retry["error"]) == ("fail", "RuntimeError: broken")


def test_a_long_step(host: WorkflowHost) -> None:
    done = threading.Event()
    instance_id = start(
        host, lambda b: b.start_with(step("long", lambda context: done.wait(30))).timeout(3600)
    )
    try:
        (why,) = waits(host, instance_id, "running")
        assert (why["step_id"], "deadline" in why) == ("long", True)
        assert f"step long: runs in process {why['by']}" in text(host, instance_id)
    finally:
        done.set()
    host.wait_for_workflow(instance_id, 10)


def record(**fields: Any) -> Instance:
    pointer = Pointer("1", "only", status=PointerStatus.WAITING_FOR_EVENT, event_name="go", event_key="k")
    return Instance("i", "order", 1, NOW, **{"pointers": {"1": pointer}, **fields})


@pytest.mark.parametrize(
    ("instance", "why"),
    [
        (record(status=WorkflowStatus.COMPLETE), []),
        (record(begun=False), [{"kind": "worker", "needs": "a worker with order"}]),
        (
            record(status=WorkflowStatus.SUSPENDED, reason="poison: the process died"),
            [{"kind": "suspended", "reason": "poison: the process died"}],
        ),
        (
            record(parked=Parked("unknown", NOW, "a worker")),
            [{"kind": "parked", "reason": "unknown", "since": "2026-01-01T00:00:00Z", "needs": "a worker"}],
        ),
    ],
)
def test_reasons_that_are_the_instance_s_own(instance: Instance, why: list[dict[str, Any]]) -> None:
    assert blocked_on(instance) == why
    shown = instance_text(WorkflowInstance(instance), [], LATER)
    for value in (v for entry in why for k, v in entry.items() if k != "kind"):
        assert value in shown


# ------------------------------------------------------------------------------------------------ the tree


def test_branches_are_shown_one_after_the_other(host: WorkflowHost) -> None:
    """They are created in turns, since both run at the same time."""
    turns = threading.Barrier(2, timeout=20)
    meet = lambda context: turns.wait() and None  # noqa: E731

    instance_id = start(
        host,
        lambda b: (
            b.start_with(step("begin"))
            .parallel()
            .do(lambda x: x.start_with(step("a1", meet)).then(step("a2", meet)).then(step("a3", meet)))
            .do(lambda x: x.start_with(step("b1", meet)).then(step("b2", meet)).then(step("b3", meet)))
            .join()
            .id("both")
            .then(step("end"))
        ),
    )
    instance = host.wait_for_workflow(instance_id, 30)
    created = [p.step_id for p in instance.execution_pointers]
    assert created[2:6] != ["a1", "a2", "a3", "b1"], "the branches ran in turns"
    assert steps_shown(host, instance_id) == [
        "  + begin", "  + both",
        "    + a1", "    + a2", "    + a3",
        "    + b1", "    + b2", "    + b3",
        "  + end",
    ]  # fmt: skip


def test_items_hold_what_ran_for_them(host: WorkflowHost) -> None:
    instance_id = start(
        host,
        lambda b: (
            b.for_each([1, 2])
            .do(
                lambda item: (
                    item.if_(lambda d, c: c.item == 2).id("even").do(lambda e: e.start_with(step("note")))
                    .then(step("count"))
                )
            )
            .id("each")
        ),
    )  # fmt: skip
    host.wait_for_workflow(instance_id, 20)
    assert steps_shown(host, instance_id) == [
        "  + each",
        "    + even", "    + count",
        "    + even", "      + note", "    + count",
    ]  # fmt: skip


def test_compensations_are_shown_in_the_order_in_which_they_ran(host: WorkflowHost) -> None:
    def inside(s: WorkflowBuilder) -> None:
        (
            s.start_with(step("one")).compensate_with(step("undo-one"))
            .then(step("two")).compensate_with(step("undo-two"))
            .then(fail).on_error(WorkflowErrorHandling.COMPENSATE)
        )  # fmt: skip

    instance_id = start(host, lambda b: b.saga(inside).id("trip").then(step("after")))
    host.wait_for_workflow(instance_id, 20)
    assert steps_shown(host, instance_id) == [
        "  < trip",
        "    < one", "    < two", "    ! fail", "    + undo-two", "    + undo-one",
        "  + after",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------- on real servers


def test_all_of_it_on_real_servers(
    mongo_url: str, amqp_url: str, redis_url: str, prefix: str, run: Run
) -> None:
    environment = {
        "LITEFLOW_STORE": mongo_url,
        "LITEFLOW_QUEUE": amqp_url,
        "LITEFLOW_LOCK": redis_url,
        "LITEFLOW_PREFIX": prefix,
    }

    def command(*arguments: str) -> str:
        result = run(*arguments, env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    host = Servers(mongo_url, amqp_url, redis_url, prefix).host(Settings())
    host.register_workflow(workflow(lambda b: b.start_with(step("first")).activity("approve").id("ask")))
    with host:
        instance_id = command("start", "scenario", "--reference", "r")
        waits(host, instance_id, "activity")
        assert "activity 'approve'" in command("show", instance_id)
        command("suspend", instance_id)
        wait_for("it is suspended", lambda: "SUSPENDED" in command("list"), 20)
        command("resume", instance_id)
        waits(host, instance_id, "activity")
        command("terminate", instance_id, "--reason", "enough")
        assert host.wait_for_workflow(instance_id, 20).reason == "enough"
        assert run("terminate", instance_id, env=environment).exit_code == 1
        assert command("purge", "--status", "COMPLETE", "--older-than", "0s", "--yes") == "0 purged"
        purged = lambda: command("purge", "--status", "TERMINATED", "--older-than", "0s", "--yes")  # noqa: E731
        wait_for("it is purged", lambda: purged() == "1 purged", 20)
        assert run("show", instance_id, env=environment).exit_code == 1
