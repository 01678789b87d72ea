"""Workloads, the servers and processes that they share, and what they wait with."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pika
import pymongo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # where the servers are started from

from servers import Servers as Servers  # noqa: E402
from servers import free_port as free_port  # noqa: E402

from bench import flows  # noqa: E402
from bench.processes import Process, kill, listening, spawn  # noqa: E402
from liteflow.core import Settings, Workflow, WorkflowHost  # noqa: E402
from liteflow.core.models import DefinitionRecord  # noqa: E402
from liteflow.worker.wiring import Servers as Wiring  # noqa: E402

Figures = dict[str, float]
"""One value for each series of a workload."""


@dataclass(frozen=True)
class Target:
    """What a workload is to reach. `of` makes its figure of the series; NaN: it was not measured."""

    label: str
    of: Callable[[Figures], float]
    bound: float
    aim: float
    least: bool = True  # False: the bound is the most that it may be

    def reached(self, value: float) -> bool:
        """True if the value is on the right side of the bound."""
        return value >= self.bound if self.least else value <= self.bound


@dataclass(frozen=True, eq=False)
class Workload:
    """One thing to measure. `run` measures it once, beside its references, and with small numbers if asked.

    `references`: series whose names begin with a key are compared with the best of those whose names begin
    with its value.
    `plotted`: the series that the plot shows, where not all have one unit.
    """

    name: str
    title: str
    unit: str
    run: Callable[[Env, bool], Figures]
    targets: Sequence[Target] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    plotted: Sequence[str] = ()


@dataclass(frozen=True)
class Env:
    """The servers of this run, and what was asked for on the command line."""

    mongo: str
    amqp: str
    redis: str
    peers: frozenset[str] = frozenset()
    steps: int = 1_000_000
    cache: Path = ROOT / ".cache" / "peers"

    def ports(self) -> list[int]:
        """The ports of store, queue and lock."""
        return [int(re.findall(r":(\d+)", url)[-1]) for url in (self.mongo, self.amqp, self.redis)]

    def server_pids(self) -> list[int]:
        """The servers' processes, as far as they run on this machine."""
        return listening(self.ports())

    def wiring(self, prefix: str) -> Wiring:
        """The servers as LiteFlow takes them."""
        return Wiring(self.mongo, self.amqp, self.redis, prefix)

    @contextmanager
    def cluster(self) -> Iterator[Cluster]:
        """A prefix of its own, of which nothing is left."""
        cluster = Cluster(self)
        try:
            yield cluster
        finally:
            cluster.close()


@dataclass
class Cluster:
    """Worker and scheduler processes, and a client, on one prefix."""

    env: Env
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.urls = self.env.wiring(f"b{uuid.uuid4().hex[:8]}")
        self.client: WorkflowHost = self.urls.host(Settings()).open()
        self._mongo: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(self.env.mongo)
        self._database = self._mongo.get_default_database()

    def worker(self, target: str, *options: str, env: Env | None = None) -> Process:
        """Start a worker process on workflows of `bench.flows`; `env`: it reaches the servers that way."""
        return self._start("worker", f"bench.flows:{target}", *options, env=env)

    def scheduler(self) -> Process:
        """Start a scheduler process."""
        return self._start("scheduler")

    def _start(self, *command: str, env: Env | None = None) -> Process:
        urls = (env or self.env).wiring(self.urls.prefix)
        shared = ["--store", urls.store, "--queue", urls.queue, "--lock", urls.lock]
        shared += ["--prefix", urls.prefix, "--log-level", "error"]
        process = spawn([sys.executable, "-m", "liteflow.worker", *command, *shared], folder=ROOT)
        self.processes.append(process)
        return process

    def record(self, workflow: Workflow) -> None:
        """Let instances of it be started before there is a worker."""
        known = workflow.definition()
        record = DefinitionRecord(known.id, known.version, known.fingerprint)
        self.client.persistence.record_definitions([record])

    def know(self, workflow: str) -> None:
        """Wait for a worker that has this workflow."""
        until(lambda: bool(self.client.persistence.definitions(workflow)), 60)
        time.sleep(1)  # it declares its queues, and settles

    def start(self, workflow: str, count: int) -> None:
        """Start instances, from several threads."""
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: self.client.start_workflow(workflow), range(count)))

    def moved(self) -> bool:
        """Whether any instance has made a step."""
        return self._instances.find_one({"revision": {"$gt": 0}}, {"_id": 1}) is not None

    def completed(self) -> int:
        """How many instances are complete."""
        return self.count({"status": 2})

    def count(self, query: dict[str, object]) -> int:
        """How many instances match."""
        return self._instances.count_documents(query)

    @property
    def _instances(self) -> pymongo.collection.Collection[dict[str, Any]]:
        return self._database[f"{self.urls.prefix}.instances"]

    def close(self) -> None:
        """End the processes and drop all that they have left."""
        kill(self.processes)
        self.client.stop()
        for name in self._database.list_collection_names():
            if name.startswith(f"{self.urls.prefix}."):
                self._database.drop_collection(name)
        self._mongo.close()
        with pika.BlockingConnection(pika.URLParameters(self.urls.queue)) as connection:
            channel = connection.channel()
            queues = [f"workflows.{workflow.definition().id}.1" for workflow in flows.ALL]
            for name in ("workflows", "events", "commands", "dead", *queues):
                channel.queue_delete(f"{self.urls.prefix}.{name}")


def until(condition: Callable[[], bool], seconds: float, pause: float = 0.02) -> float:
    """Wait for it; returns how long that took. `TimeoutError` when it takes too long."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > seconds:
            raise TimeoutError(f"what is measured has not come about in {seconds:.0f} s")
        time.sleep(pause)
    return time.perf_counter() - began


def rate(moved: Callable[[], bool], count: Callable[[], int], total: int, seconds: float = 600) -> float:
    """How many a second, from the first step that was made to the end of the last.

    Asks seldom while much is left, so that asking costs little, and often at the end, so that it is exact.
    """
    until(moved, 120, 0.005)
    began = time.perf_counter()
    while (done := count()) < total:
        passed = time.perf_counter() - began
        if passed > seconds:
            raise TimeoutError(f"{done} of {total} have ended in {seconds:.0f} s")
        time.sleep(min(max((total - done) * passed / max(done, 1) / 4, 0.004), 0.25))
    return total / (time.perf_counter() - began)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values is below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class StepRun(NamedTuple):
    """One run of a step: of which instance, when (seconds since 1970), and its process's CPU seconds."""

    instance_id: str
    at: float
    cpu: float


@dataclass(frozen=True)
class StepLog:
    """What the steps of `bench.flows.note` say, in all processes: one line for each run."""

    path: Path

    def runs(self) -> list[StepRun]:
        """Each run, in the order of their begins."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        return [StepRun(one, int(at) / 1e9, int(used) / 1e9) for one, at, used in lines]

    def size(self) -> int:
        """Bytes that were written."""
        return self.path.stat().st_size


@contextmanager
def log_of_steps() -> Iterator[StepLog]:
    """A log for the workers that are started while it is open."""
    with tempfile.TemporaryDirectory(prefix="liteflow-bench-") as folder:
        path = Path(folder) / "steps"
        path.touch()
        os.environ["LITEFLOW_BENCH_LOG"] = str(path)
        try:
            yield StepLog(path)
        finally:
            del os.environ["LITEFLOW_BENCH_LOG"]
