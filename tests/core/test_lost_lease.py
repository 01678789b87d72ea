"""Who has lost its lease stores what its bodies have done, and leaves the rest to who has the lease now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
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
from liteflow.core.models import Event, Instance
from liteflow.core.providers import Lease, Message, Taken, workflow_queue
from liteflow.core.transition import Outcome, Transition

LONG_AGO = timedelta(days=1)


class Waits(Workflow):
    id = "waits"

    def build(self, builder: WorkflowBuilder) -> None:
        begin = builder.start_with(lambda context: None)
        begin.wait_for("go", "k", lambda data, context: context.now - LONG_AGO).then(lambda context: None)


class Lock(LocalLockProvider):
    def __init__(self) -> None:
        super().__init__()
        self.leases: list[Lease] = []

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        got = super().acquire(names, ttl)
        self.leases += [one for one in got if isinstance(one, Lease) and one.name.startswith("workflow:")]
        return got

    def lose(self) -> None:
        """As if the process had been stopped for longer than the lease."""
        self.leases[-1].expires = 0.0


class Store(MemoryPersistenceProvider):
    """The lease is lost while it answers, once, in the call that is named in `slow`."""

    def __init__(self, lock: Lock) -> None:
        super().__init__()
        self.lock, self.slow = lock, ""
        self.late: list[Transition] = []

    def _answered(self, call: str) -> None:
        if self.slow == call and self.lock.leases and self.lock.leases[-1].held:
            self.slow = ""
            self.lock.lose()

    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        found = super().load(instance_ids)
        self._answered("load")
        return found

    def events(self, *arguments: Any) -> list[Event]:
        found = super().events(*arguments)
        self._answered("events")
        return found

    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        lease = self.lock.leases[-1]
        if not lease.held or time.monotonic() >= lease.expires:
            self.late += transitions
        return super().commit(transitions)


@pytest.fixture
def host() -> Iterator[WorkflowHost]:
    lock = Lock()
    made = configure_workflow_host(Store(lock), SingleNodeQueueProvider(), lock, lease_ttl=5)
    made.register_workflow(Waits)
    yield made
    made.stop()


@pytest.mark.parametrize("slow", ["load", "events"])
def test_events_are_taken_by_who_has_the_lease(host: WorkflowHost, slow: str) -> None:
    store = host.persistence
    assert isinstance(store, Store)
    with host:
        if slow == "load":
            instance_id = host.start_workflow("waits")
            wait_for("it waits", lambda: store.waiting_for("go", "k", "", 1), 10)
            wait_for("it is left alone", lambda: host.get_workflow(instance_id).record.wake_at is None, 10)
        event = Event("e", "go", "k", store.now() - timedelta(seconds=1))
        store.add_event(event)
        store.mark_processed([event.id])  # nobody else tells of it
        store.slow = slow
        if slow == "load":
            host.queue.send([Message(workflow_queue("waits", 1), instance_id)])
        else:
            instance_id = host.start_workflow("waits")
        assert host.wait_for_workflow(instance_id, 10).status is WorkflowStatus.COMPLETE
    assert not store.slow
    assert not store.late
