"""A process of the tests of one SQLite file: ``python -m sql_process URL LOG COUNT MODE``.

It starts COUNT workflows, writing the id of each as soon as the host has accepted it, and goes on until it is
killed; with the MODE ``shared`` it ends when they are complete. Each body writes a line to LOG. With the MODE
``alone`` queue and lock are those of the process, else the file is all three.
"""

from __future__ import annotations

import os
import sys
import threading

from liteflow.core import StepExecutionContext, Workflow, WorkflowBuilder, configure_workflow_host
from liteflow.providers.sql import SqlLockProvider, SqlPersistenceProvider, SqlQueueProvider

STEPS = 10


def main(url: str, log: str, count: str, mode: str) -> None:
    ran = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work(context: StepExecutionContext) -> None:
        os.write(ran, f"{context.workflow.id} {context.execution_pointer.id}\n".encode())

    class Chain(Workflow):
        def build(self, builder: WorkflowBuilder) -> None:
            step = builder.start_with(work).id("s0")
            for number in range(1, STEPS):
                step = step.then(work).id(f"s{number}")

    store = SqlPersistenceProvider(url)
    queue = SqlQueueProvider(url, session_ttl=10 if mode == "shared" else 1) if mode != "alone" else None
    lock = SqlLockProvider(url) if mode != "alone" else None
    # What a process before has left is taken up soon.
    options = {} if mode == "shared" else {"lease_ttl": 0.5, "wake_grace": 0.5, "poll_interval": 0.1}
    # However often it is killed, no step is to blame for it.
    with configure_workflow_host(store, queue, lock, poison_after=1_000_000, **options) as host:
        host.register_workflow(Chain)
        started = []
        for _ in range(int(count)):
            started.append(host.start_workflow("Chain"))
            print(started[-1], flush=True)
        if mode != "shared":
            threading.Event().wait()
        for workflow_id in started:
            host.wait_for_workflow(workflow_id, timeout=450)


if __name__ == "__main__":
    main(*sys.argv[1:])
