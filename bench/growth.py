"""Does a long loop cost more per round at its end than at its start? A while_ and a for_each on MongoDB.

    python -m bench.growth [--count 10000] [--runs 5] [--only loop|each]

Starts its own servers unless the environment names them, as the tests do, and one host. Prints, for each
run, the time of the first and of the last tenth of the steps and their ratio, the same for the CPU time of
the host's process, and the largest size that the working document had.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import pymongo
from servers import Servers

from liteflow.core import Settings, StepExecutionContext, Workflow, WorkflowBuilder, WorkflowStatus
from liteflow.worker.wiring import Servers as Wiring

MOMENTS: list[tuple[float, float]] = []


def tick(context: StepExecutionContext) -> None:
    MOMENTS.append((time.perf_counter(), time.process_time()))


class Loop(Workflow):
    id = "loop"

    def build(self, builder: WorkflowBuilder) -> None:
        def count(context: StepExecutionContext) -> None:
            tick(context)
            context.data.round += 1

        builder.while_(lambda data: data.round < data.count).do(lambda b: b.then(count))


class Each(Workflow):
    id = "each"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.for_each(lambda data: range(data.count)).do(lambda b: b.then(tick))


class Sizes:
    """Looks at the size of the largest working document, now and then."""

    def __init__(self, url: str, collection: str) -> None:
        self.largest = 0
        self._client: pymongo.MongoClient[dict[str, int]] = pymongo.MongoClient(url)
        self._collection = self._client.get_default_database()[collection]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        size = [{"$project": {"size": {"$bsonSize": "$$ROOT"}}}]
        while not self._stop.wait(0.1):
            self.largest = max([self.largest, *(found["size"] for found in self._collection.aggregate(size))])

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


def run(urls: Wiring, workflow: type[Workflow], count: int) -> tuple[list[float], list[float], int]:
    """Seconds and CPU seconds of the first and of the last tenth, and the largest size of the document."""
    MOMENTS.clear()
    host = urls.host(Settings())
    host.register_workflow(workflow)
    sizes = Sizes(urls.store, f"{urls.prefix}.instances")
    try:
        with host:
            instance_id = host.start_workflow(str(workflow.id), data={"round": 0, "count": count})
            instance = host.wait_for_workflow(instance_id, 600)
            assert instance.status is WorkflowStatus.COMPLETE, instance.reason
    finally:
        sizes.close()
    assert len(MOMENTS) == count
    tenth = count // 10
    first, last = (MOMENTS[0], MOMENTS[tenth]), (MOMENTS[-1 - tenth], MOMENTS[-1])
    return (
        [end[0] - begin[0] for begin, end in (first, last)],
        [end[1] - begin[1] for begin, end in (first, last)],
        sizes.largest,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=["loop", "each"])
    options = parser.parse_args()
    servers = Servers()
    try:
        for workflow in (Loop, Each):
            if options.only not in (None, workflow.id):
                continue
            ratios, cpu_ratios = [], []
            for _ in range(options.runs):
                prefix = f"b{uuid.uuid4().hex[:8]}"
                urls = Wiring(servers.mongo_replica(), servers.amqp(), servers.redis(), prefix)
                (first, last), (cpu_first, cpu_last), size = run(urls, workflow, options.count)
                ratios.append(last / first)
                cpu_ratios.append(cpu_last / cpu_first)
                print(
                    f"{workflow.id}: first tenth {first:.2f} s, last tenth {last:.2f} s,"
                    f" ratio {ratios[-1]:.2f}, of CPU {cpu_ratios[-1]:.2f},"
                    f" document at most {size / 1000:.0f} kB",
                    flush=True,
                )
            print(
                f"{workflow.id}: median ratio {statistics.median(ratios):.2f},"
                f" of CPU {statistics.median(cpu_ratios):.2f}, of {options.runs} runs"
            )
    finally:
        servers.close()


if __name__ == "__main__":
    main()
