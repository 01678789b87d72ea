"""Latency of a one-step workflow on an idle cluster: from the call of start to COMPLETE seen.

    python -m bench.latency [--count 200] [--memory]

Starts its own RabbitMQ, Redis and MongoDB (a replica set of one, majority and journaled writes) unless
the environment names them, as the tests do, and one worker process.
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

from servers import Servers

from liteflow.core import Settings, Workflow, WorkflowBuilder, WorkflowHost, configure_workflow_host
from liteflow.worker.wiring import Servers as Wiring


class OneStep(Workflow):
    id = "one-step"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None)


def measure(host: WorkflowHost, count: int) -> list[float]:
    """Seconds of each run."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        host.wait_for_workflow(host.start_workflow("one-step"), 30)
        times.append(time.perf_counter() - began)
        time.sleep(0.01)  # idle in between
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--memory", action="store_true", help="embedded, on the in-memory providers")
    options = parser.parse_args()
    if options.memory:
        with configure_workflow_host() as host:
            host.register_workflow(OneStep)
            report(measure(host, options.count))
        return
    servers = Servers()
    worker = None
    try:
        urls = Wiring(servers.mongo_replica(), servers.amqp(), servers.redis(), f"b{uuid.uuid4().hex[:8]}")
        arguments = ["--store", urls.store, "--queue", urls.queue, "--lock", urls.lock]
        arguments += ["--prefix", urls.prefix, "--log-level", "warning"]
        worker = subprocess.Popen(
            [sys.executable, "-m", "liteflow.worker", "worker", "bench.latency", *arguments],
        )
        client = urls.host(Settings()).open()
        deadline = time.monotonic() + 30
        while not client.persistence.definitions("one-step") and time.monotonic() < deadline:
            time.sleep(0.05)
        measure(client, 20)  # warm
        report(measure(client, options.count))
        client.stop()
    finally:
        if worker is not None:
            worker.terminate()
            worker.wait()
        servers.close()


def report(times: list[float]) -> None:
    ordered = sorted(times)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    print(
        f"{len(times)} runs: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms,"
        f" min {ordered[0] * 1000:.1f}, max {ordered[-1] * 1000:.1f}"
    )


if __name__ == "__main__":
    main()
