"""How late a sleeping step wakes on an idle cluster: one worker process, one scheduler process.

    python -m bench.timers [--count 200]

Starts its own servers unless the environment names them, as the tests do. Prints by how much the steps began
after they were due, by the clock of the store; a negative least one would be too early.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from servers import Servers, wait_for

from liteflow.core import ExecutionResult, Settings, StepExecutionContext, Workflow, WorkflowBuilder
from liteflow.worker.wiring import Servers as Wiring


def nap(context: StepExecutionContext) -> ExecutionResult:
    if context.persistence_data is None:
        return ExecutionResult.sleep(context.data.seconds, True)
    due = context.execution_pointer.sleep_until
    assert due is not None
    context.data.late = (context.now - due).total_seconds() * 1000
    return ExecutionResult.next()


class Sleeper(Workflow):
    id = "sleeper"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(nap)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    servers = Servers()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        urls = Wiring(servers.mongo_replica(), servers.amqp(), servers.redis(), f"b{uuid.uuid4().hex[:8]}")
        shared = ["--store", urls.store, "--queue", urls.queue, "--lock", urls.lock, "--prefix", urls.prefix]
        for command in (["worker", "bench.timers"], ["scheduler"]):
            arguments = [*command, *shared, "--log-level", "warning"]
            processes.append(subprocess.Popen([sys.executable, "-m", "liteflow.worker", *arguments]))
        client = urls.host(Settings()).open()
        wait_for("the worker is there", lambda: client.persistence.definitions("sleeper"), 30)
        ids = []
        for number in range(options.count):
            ids.append(client.start_workflow("sleeper", data={"seconds": 1 + number % 37 * 0.013}))
            time.sleep(0.03)  # spread out, as timers are
        late = sorted(client.wait_for_workflow(instance_id, 30).data.late for instance_id in ids)
        p50, p99 = statistics.median(late), late[int(len(late) * 0.99)]
        spread = f"{late[0]:.1f} to {late[-1]:.1f}"
        print(f"{len(late)} timers: late by p50 {p50:.1f} ms, p99 {p99:.1f} ms, {spread}")
        client.stop()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        servers.close()


if __name__ == "__main__":
    main()
