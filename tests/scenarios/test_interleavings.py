"""An event published at every boundary of a waiting instance's way, and holders that die at each of them.

Two hosts share in-memory providers. Each calls them through a `Line`, which lets a test act right before
or after the n-th call, or cut the host off for good there, as a kill does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    SingleNodeQueueProvider,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    WorkflowStatus,
    configure_workflow_host,
)

LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
BOUNDARIES = {"acquire", "load", "commit", "events", "release", "move_wake", "lower_wake", "archive"}


class Waits(Workflow):
    id = "waits"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.start_with(lambda context: None)
            .wait_for("go", "k", effective_date=lambda data: LONG_AGO)
            .output("got", lambda step: step.event_data)
            .then(lambda context: None)
        )


class Line:
    """Counts a host's calls to its providers, and does something at one of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.at = -1
        self.before: Callable[[], None] | None = None
        self.after: Callable[[], None] | None = None
        self.cut = False
        self._guard = threading.RLock()

    def call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        if self.cut:
            threading.Event().wait()  # for ever: this host is dead
        with self._guard:
            number = len(self.calls)
            self.calls.append(name)
        mine = number == self.at
        if mine and self.before:
            self.before()
        if self.cut:
            threading.Event().wait()
        result = function(*args)
        if mine and self.after:
            self.after()
        if self.cut:
            threading.Event().wait()
        return result


def through(line: Line, provider: Any) -> Any:
    """The provider, with the calls at boundaries going through the line."""

    class Through(type(provider)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.__dict__ = provider.__dict__

    def wrap(name: str) -> Callable[..., Any]:
        return lambda self, *args: line.call(name, getattr(provider, name), *args)

    for name in BOUNDARIES:
        if hasattr(provider, name):
            setattr(Through, name, wrap(name))
    if hasattr(provider, "renew"):
        # a dead host renews nothing; a live one does, unseen
        Through.renew = lambda self, leases, ttl: (
            [True] * len(leases) if line.cut else provider.renew(leases, ttl)
        )
    return Through()


class Pair:
    """Two hosts on one set of providers; the first one is watched."""

    def __init__(self, **options: Any) -> None:
        self.line = Line()
        self.providers = (MemoryPersistenceProvider(), SingleNodeQueueProvider(), LocalLockProvider())
        store, queue, lock = self.providers
        self.first = configure_workflow_host(
            through(self.line, store), queue, through(self.line, lock), **options
        )
        self.second = configure_workflow_host(store, queue, lock, **options)
        self.first.register_workflow(Waits)
        self.second.register_workflow(Waits)

    def publish(self) -> None:
        self.second.publish_event("go", "k", "hello")

    def complete(self, instance_id: str, seconds: float = 10) -> None:
        wait_for(
            "it is complete", lambda: status(self.second, instance_id) is WorkflowStatus.COMPLETE, seconds
        )
        assert self.second.get_workflow(instance_id).data.got == "hello"


def status(host: WorkflowHost, instance_id: str) -> WorkflowStatus:
    return host.get_workflow(instance_id).status


def boundaries() -> int:
    """How many calls the watched host makes until the instance waits, and a few more."""
    pair = Pair()
    pair.first.start()
    instance_id = pair.first.start_workflow("waits")
    wait_for("the wait", lambda: "move_wake" in pair.line.calls)
    pair.publish()
    pair.complete(instance_id)
    pair.first.stop()
    return len(pair.line.calls)


COUNT = boundaries()


@pytest.mark.parametrize("round_", range(6))
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(COUNT))
def test_an_event_at_any_boundary_is_delivered_without_a_sweep(at: int, when: str, round_: int) -> None:
    # the sweep would hide a lost wake-up: nothing is due again before the test's deadline
    pair = Pair(poll_interval=60.0, wake_grace=60.0, lease_ttl=60.0)
    pair.line.at = at
    published = threading.Event()

    def publish() -> None:
        published.set()
        threading.Thread(target=pair.publish).start() if round_ % 2 else pair.publish()

    setattr(pair.line, when, publish)
    pair.first.start()
    instance_id = pair.first.start_workflow("waits")
    if not published.wait(0.5):
        pair.publish()  # this run was shorter than the one that was counted
    pair.complete(instance_id)
    pair.first.stop()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(COUNT))
def test_a_holder_killed_at_any_boundary_loses_nothing(at: int, when: str) -> None:
    """The other host meets the dead one's lease, leaves its mark, acknowledges, and takes over later."""
    pair = Pair(poll_interval=0.05, wake_grace=0.2, lease_ttl=0.3)
    pair.line.at = at
    died = threading.Event()

    def die() -> None:
        pair.line.cut = True
        dead = [consumer for consumer in [*host._consumers, host._event_consumer] if consumer is not None]
        for consumer in dead:
            consumer.limit(0)  # the server gives a dead process nothing more
        for delivery in list(pair.providers[1]._unacked):
            if delivery.consumer in dead:
                delivery.nack()  # and what it had to others
        died.set()

    setattr(pair.line, when, die)
    host = pair.first
    host._with_scheduler = False
    host.start()
    instance_id = pair.second.start_workflow("waits")
    died.wait(0.3)
    pair.second.start()
    pair.publish()
    pair.complete(instance_id)
    pair.line.cut = True
    pair.second.stop()
