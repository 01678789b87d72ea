"""Leases and claims are renewed apart from each other."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from servers import wait_for

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    SingleNodeQueueProvider,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    configure_workflow_host,
)
from liteflow.core.providers import ClaimRenewal, Lease


class HangingStore(MemoryPersistenceProvider):
    """Does not answer when claims are to be renewed, until it is `back`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.back = threading.Event(), threading.Event()

    def renew_claims(self, renewals: Sequence[ClaimRenewal]) -> list[bool]:
        self.asked.set()
        self.back.wait()
        return super().renew_claims(renewals)


class WatchedLock(LocalLockProvider):
    """Tells whose leases were renewed."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed: set[str] = set()

    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        self.renewed |= {lease.name for lease in leases}
        return super().renew(leases, ttl)


def test_a_store_that_hangs_does_not_cost_the_leases() -> None:
    store, lock, release = HangingStore(), WatchedLock(), threading.Event()

    class Waits(Workflow):
        id = "waits"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(self.run)

        @staticmethod
        def run(context: StepExecutionContext) -> None:
            release.wait()

    host = configure_workflow_host(store, SingleNodeQueueProvider(), lock, lease_ttl=0.3, long_step=2.0)
    host.register_workflow(Waits)
    try:
        host.start()
        host.start_workflow("waits")  # becomes a long step, whose claim is to be renewed
        wait_for("the store hangs", store.asked.is_set, 20)
        held = host.start_workflow("waits")
        wait_for("its lease is renewed", lambda: any(held in name for name in lock.renewed), 20)
    finally:
        release.set()
        store.back.set()
        host.stop()
