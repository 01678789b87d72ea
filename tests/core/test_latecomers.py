"""A wake-up that comes while the lease is being asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    SingleNodeQueueProvider,
    Workflow,
    WorkflowBuilder,
    WorkflowStatus,
    configure_workflow_host,
)
from liteflow.core.client import start_id
from liteflow.core.providers import Lease, Message, Taken, workflow_queue


class OneStep(Workflow):
    id = "one-step"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None)


class SlowToAnswer(LocalLockProvider):
    """Says only when it may that somebody else has the lease."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.decided, self.may_answer = threading.Event(), threading.Event()

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        outcomes = super().acquire(names, ttl)
        if any(isinstance(outcome, Taken) for outcome in outcomes):
            self.decided.set()
            assert self.may_answer.wait(10)
        return outcomes


def test_a_wake_up_that_came_after_the_holder_had_left_is_not_taken_for_one_that_it_saw() -> None:
    """The mark that we left spoke for the first wake-up. It was acknowledged together with the second one."""
    lock, queue = SlowToAnswer(), SingleNodeQueueProvider()
    host = configure_workflow_host(MemoryPersistenceProvider(), queue, lock, lease_ttl=60, poll_interval=60)
    host.register_workflow(OneStep)
    instance_id = start_id("one-step:key")
    (held,) = lock.acquire([f"workflow:{instance_id}"], 60)
    assert isinstance(held, Lease)
    with host:
        host.start_workflow("one-step", idempotency_key="key")
        assert lock.decided.wait(10)
        assert lock.release([held]) == [False]  # marked: the holder looks again, and has looked
        queue.send([Message(workflow_queue("one-step", 1), instance_id)])
        runner = host._runner
        assert runner is not None
        wait_for("the second wake-up", lambda: len(runner._acts[instance_id].deliveries) == 2)
        lock.may_answer.set()
        assert host.wait_for_workflow(instance_id, 10).status is WorkflowStatus.COMPLETE
