"""How long three branches of 300 ms each take in `parallel`, on one host over MongoDB, RabbitMQ and Redis.

    python -m bench.parallel [--count 20]

Starts its own servers unless the environment names them, as the tests do. Prints the time from the first
body's begin to the join's end, for sync and for async bodies.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from servers import Servers

from liteflow.core import Settings, StepExecutionContext, Workflow, WorkflowBuilder, WorkflowStatus
from liteflow.worker.wiring import Servers as Wiring

BRANCH = 0.3


def sync_body(context: StepExecutionContext) -> None:
    time.sleep(BRANCH)


async def async_body(context: StepExecutionContext) -> None:
    await asyncio.sleep(BRANCH)


class Sync(Workflow):
    id = "sync"
    body = staticmethod(sync_body)

    def build(self, builder: WorkflowBuilder) -> None:
        section = builder.parallel()
        for _ in range(3):
            section = section.do(lambda b: b.then(self.body))
        section.join()


class Async(Sync):
    id = "async"
    body = staticmethod(async_body)  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args()
    servers = Servers()
    try:
        urls = Wiring(servers.mongo_replica(), servers.amqp(), servers.redis(), f"b{uuid.uuid4().hex[:8]}")
        host = urls.host(Settings())
        host.register_workflow(Sync)
        host.register_workflow(Async)
        with host:
            for name in ("sync", "async"):
                times = []
                for _ in range(options.count):
                    instance = host.wait_for_workflow(host.start_workflow(name), 30)
                    assert instance.status is WorkflowStatus.COMPLETE
                    began = min(p.start_time for p in instance.execution_pointers if p.start_time)
                    assert instance.complete_time is not None
                    times.append((instance.complete_time - began).total_seconds() * 1000)
                p50 = statistics.median(times)
                print(f"{name}: {len(times)} runs, p50 {p50:.0f} ms, max {max(times):.0f} ms")
    finally:
        servers.close()


if __name__ == "__main__":
    main()
