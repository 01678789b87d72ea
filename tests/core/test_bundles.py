"""Wake-ups of many instances in few messages, and what becomes of each of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from scenarios.helpers import come_back
from servers import wait_for

from liteflow.core import (
    ExecutionResult,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowStatus,
    configure_workflow_host,
)
from liteflow.core.bundles import MOST, SEPARATOR, bundled, unbundled
from liteflow.core.models import Instance
from liteflow.core.providers import Delivery, Message, workflow_queue


class Received(Delivery):
    """A message that was received, and how often it was settled."""

    def __init__(self, body: str, *, redelivered: bool = False) -> None:
        self.message = Message("q", body, "trace")
        self.redelivered = redelivered
        self.settled: list[str] = []

    def ack(self) -> None:
        self.settled.append("ack")

    def nack(self) -> None:
        self.settled.append("nack")


def messages(count: int, queue: str = "q", traceparent: str | None = None) -> list[Message]:
    return [Message(queue, f"{queue}{traceparent}{number}", traceparent) for number in range(count)]


def test_few_are_sent_as_they_are() -> None:
    assert bundled(messages(63), 32) == messages(63)


@pytest.mark.parametrize("count", [64, 100, 499, 500, 5000])
def test_many_go_together_and_still_reach_every_consumer(count: int) -> None:
    found = bundled(messages(count), 32)
    assert [part for one in found for part in one.body.split(SEPARATOR)] == [m.body for m in messages(count)]
    assert 32 <= len(found) < count
    assert max(one.body.count(SEPARATOR) + 1 for one in found) <= MOST


def test_what_differs_in_queue_or_trace_stays_apart() -> None:
    found = bundled([*messages(100, "a"), *messages(100, "b"), *messages(100, "a", "t")], 32)
    for one in found:
        assert all(part.startswith(f"{one.queue}{one.traceparent}") for part in one.body.split(SEPARATOR))
    assert Counter((one.queue, one.traceparent) for one in found).keys() == {
        ("a", None),
        ("b", None),
        ("a", "t"),
    }


def test_a_message_is_acknowledged_with_the_last_of_its_wake_ups() -> None:
    received = Received("a\nb\nc", redelivered=True)
    parts = unbundled(received)
    assert [part.message for part in parts] == [Message("q", one, "trace") for one in "abc"]
    assert all(part.redelivered for part in parts)
    for part in parts[:2]:
        part.ack()
    assert received.settled == []
    parts[2].ack()
    assert received.settled == ["ack"]


def test_all_of_a_message_comes_again_if_one_is_given_back() -> None:
    received = Received("a\nb")
    first, second = unbundled(received)
    first.nack()
    assert received.settled == []
    second.ack()
    assert received.settled == ["nack"]


def test_each_wake_up_is_settled_once() -> None:
    received = Received("a\nb")
    first, second = unbundled(received)
    first.ack()
    first.nack()
    assert received.settled == []
    second.ack()
    assert received.settled == ["ack"]


def test_what_was_lost_with_a_process_still_tells_of_it() -> None:
    lost = [Message("q", f"{number}", recalled=True) for number in range(100)]
    found = bundled([*lost, *messages(100)], 32)
    assert all(one.recalled == ("q" not in one.body) for one in found)
    received = Received("a\nb")
    received.message = Message("q", "a\nb", recalled=True)
    assert all(part.message.recalled for part in unbundled(received))


def test_a_message_with_more_ids_than_are_ever_sent_is_one_unknown_id() -> None:
    received = Received(SEPARATOR.join("x" * (MOST + 1)))
    assert unbundled(received) == [received]


class Waits(Workflow):
    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: ExecutionResult.next()).wait_for("go", lambda data: "all")


def test_an_event_for_many_comes_in_bundles_and_wakes_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    host = configure_workflow_host(concurrency=2)
    host.register_workflow(Waits)
    sent: list[Message] = []
    send = host.queue.send

    def watched(found: Sequence[Message]) -> None:
        sent.extend(found)
        send(found)

    with host:
        ids = [host.start_workflow("Waits") for _ in range(300)]
        wait_for("all wait", lambda: len(host.persistence.waiting_for("go", "all", "", 1000)) == len(ids))
        monkeypatch.setattr(host.queue, "send", watched)
        host.publish_event("go", "all")
        for one in ids:
            assert host.wait_for_workflow(one, timeout=30).status is WorkflowStatus.COMPLETE
    woken = [part for message in sent for part in message.body.split(SEPARATOR)]
    assert Counter(woken) >= Counter(ids)
    assert len(sent) < len(ids) / 2


class Gated(Workflow):
    """Its body waits until it may go on."""

    id = "gated"
    going = threading.Event()
    began = threading.Semaphore(0)

    def build(self, builder: WorkflowBuilder) -> None:
        def body(context: StepExecutionContext) -> None:
            self.began.release()
            self.going.wait(30)

        builder.start_with(body)


QUEUE = workflow_queue("gated", 1)


def gated(**options: Any) -> WorkflowHost:
    Gated.going, Gated.began = threading.Event(), threading.Semaphore(0)
    host = configure_workflow_host(**options)
    host.register_workflow(Gated)
    host.open()
    return host


def send(host: WorkflowHost, ids: Sequence[str]) -> None:
    """Instances that are not begun, and one message for all."""
    now = host.persistence.now()
    host.persistence.create([Instance(one, "gated", 1, now, begun=False) for one in ids])
    host.queue.send([Message(QUEUE, SEPARATOR.join(ids))])


def complete(host: WorkflowHost, ids: Sequence[str]) -> None:
    for one in ids:
        assert host.wait_for_workflow(one, timeout=30).status is WorkflowStatus.COMPLETE
        assert host.get_workflow(one).record.crashes == 0


def test_who_has_no_slot_left_gives_back_what_it_has_not_begun() -> None:
    ids = [f"instance-{number}" for number in range(MOST)]
    with gated(concurrency=1) as host:
        try:
            send(host, ids)
            assert Gated.began.acquire(timeout=30)
            wait_for("others can have them", lambda: host.queue.depth(QUEUE) == MOST - 1)
        finally:
            Gated.going.set()
        complete(host, ids)


def test_what_has_come_back_before_is_given_back_as_it_came() -> None:
    """Sent anew it would not tell any more that a process may have died of it."""
    ids = [f"instance-{number}" for number in range(MOST)]
    with gated(concurrency=1) as host:
        host.stop()
        host.open()
        send(host, ids)
        come_back(host.queue, QUEUE)
        host.start()
        try:
            assert Gated.began.acquire(timeout=30)
            wait_for("others can have it", lambda: host.queue.depth(QUEUE) == 1)
        finally:
            Gated.going.set()
        complete(host, ids)
