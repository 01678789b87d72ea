"""A process of the tests of one SQLite file: ``python -m sql_process URL LOG COUNT LOCK``.

It starts COUNT workflows, writing the id of each as soon as the host has accepted it, and with LOCK, the URL
of a Redis that other processes share, ends when they are complete. Without it, it goes on until it is
killed. Each body writes a line to LOG.
"""

from __future__ import annotations

import os
import sys
import threading

from liteflow.core import StepExecutionContext, Workflow, WorkflowBuilder, configure_workflow_host
from liteflow.providers.redis import RedisLockProvider
from liteflow.providers.sql import SqlPersistenceProvider

STEPS = 10


def main(url: str, log: str, count: str, lock: str) -> None:
    ran = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work(context: StepExecutionContext) -> None:
        os.write(ran, f"{context.workflow.id} {context.execution_pointer.id}\n".encode())

    class Chain(Workflow):
        def build(self, builder: WorkflowBuilder) -> None:
            step = builder.start_with(work).id("s0")
            for number in range(1, STEPS):
                step = step.then(work).id(f"s{number}")

    store = SqlPersistenceProvider(url)
    locks = RedisLockProvider(lock, prefix=os.path.basename(os.path.dirname(log))) if lock else None
    # Alone, what the process before has left is taken up at once.
    options = {} if lock else {"lease_ttl": 0.5, "wake_grace": 0.5, "poll_interval": 0.1}
    # However often it is killed, no step is to blame for it.
    with configure_workflow_host(store, None, locks, poison_after=1_000_000, **options) as host:
        host.register_workflow(Chain)
        started = []
        for _ in range(int(count)):
            started.append(host.start_workflow("Chain"))
            print(started[-1], flush=True)
        if not lock:
            threading.Event().wait()
        for workflow_id in started:
            host.wait_for_workflow(workflow_id, timeout=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
