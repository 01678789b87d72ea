"""Servers, processes and clocks that the workloads share."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # where the servers are started from


from servers import Servers as Servers  # noqa: E402

from liteflow.core import Settings, WorkflowHost  # noqa: E402
from liteflow.worker.wiring import Servers as Wiring  # noqa: E402


@dataclass(frozen=True)
class Target:
    """What a workload is to reach. `of` takes the medians by series name."""

    label: str
    of: Callable[[dict[str, float]], float]
    bound: float
    aim: float
    least: bool = True  # False: the bound is the most that it may be

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound


@dataclass(frozen=True)
class Workload:
    """One thing to measure. `run` gives one value for each series; the last ones are references."""

    name: str
    title: str
    unit: str
    run: Callable[[Env, bool], dict[str, float]]
    targets: Sequence[Target] = ()


@dataclass
class Env:
    """The servers of this run, and what was asked for on the command line."""

    mongo: str
    amqp: str
    redis: str
    peers: frozenset[str] = frozenset()
    cache: Path = ROOT / ".cache" / "peers"

    @contextmanager
    def cluster(self) -> Iterator[Cluster]:
        """A prefix of its own, of which nothing is left."""
        cluster = Cluster(self)
        try:
            yield cluster
        finally:
            cluster.close()

    def server_pids(self) -> list[int]:
        """The servers' processes, as far as they run on this machine."""
        ports = [re.findall(r":(\d+)", url)[-1] for url in (self.mongo, self.amqp, self.redis)]
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    command = Path(f"/proc/{name}/cmdline").read_text().replace("\0", " ")
                except OSError:
                    continue
                server = any(kind in command for kind in ("mongod ", "redis-server", "beam.smp"))
                if server and any(port in command for port in ports):
                    found.append(int(name))
        return found


@dataclass
class Cluster:
    """Processes and a client on one prefix."""

    env: Env
    store: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.urls = Wiring(
            self.store or self.env.mongo, self.env.amqp, self.env.redis, f"b{uuid.uuid4().hex[:8]}"
        )
        self.client: WorkflowHost = self.urls.host(Settings()).open()

    def worker(self, target: str, *options: str, store: str | None = None) -> subprocess.Popen[bytes]:
        """Start a worker process on workflows of `bench.flows`."""
        return self._start("worker", f"bench.flows:{target}", *options, store=store)

    def scheduler(self) -> subprocess.Popen[bytes]:
        """Start a scheduler process."""
        return self._start("scheduler")

    def _start(self, *command: str, store: str | None = None) -> subprocess.Popen[bytes]:
        urls = self.urls
        shared = ["--store", store or urls.store, "--queue", urls.queue, "--lock", urls.lock]
        shared += ["--prefix", urls.prefix, "--log-level", "error"]
        process = subprocess.Popen([sys.executable, "-m", "liteflow.worker", *command, *shared], cwd=ROOT)
        self.processes.append(process)
        return process

    def know(self, workflow: str) -> None:
        """Wait for a worker that has this workflow."""
        until(lambda: bool(self.client.persistence.definitions(workflow)), 60)
        time.sleep(1)  # it declares its queues, and settles

    def start(self, workflow: str, count: int) -> None:
        """Start instances, from several threads."""
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: self.client.start_workflow(workflow), range(count)))

    def completed(self) -> int:
        """How many instances are complete."""
        return self.count({"status": 2})

    def count(self, query: dict[str, object]) -> int:
        """How many instances match."""
        return self._database()[f"{self.urls.prefix}.instances"].count_documents(query)

    def _database(self):  # type: ignore[no-untyped-def]
        return self.client.persistence._store.collections.instances.database  # type: ignore[attr-defined]

    def stop(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(60)
        self.processes = []

    def close(self) -> None:
        """End the processes and drop all that they have left."""
        for process in self.processes:
            process.kill()
            process.wait()
        database = self._database()
        for name in database.list_collection_names():
            if name.startswith(f"{self.urls.prefix}."):
                database.drop_collection(name)
        self.client.stop()
        _delete_queues(self.urls)


def _delete_queues(urls: Wiring) -> None:
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(urls.queue))
    channel = connection.channel()
    names = ["workflows", "events", "commands", "dead"]
    from bench import flows

    names += [f"workflows.{workflow.id}.1" for workflow in flows.ALL]
    for name in names:
        channel.queue_delete(f"{urls.prefix}.{name}")
    connection.close()


def until(condition: Callable[[], bool], seconds: float, pause: float = 0.02) -> float:
    """Wait for it; returns how long that took. `TimeoutError` when it takes too long."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > seconds:
            raise TimeoutError("it took too long")
        time.sleep(pause)
    return time.perf_counter() - began


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that the processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def rate(count: Callable[[], int], total: int, seconds: float = 300) -> float:
    """How many a second, from the first few to the last."""
    until(lambda: count() >= min(5, total), 120)
    first, began = count(), time.perf_counter()
    until(lambda: count() >= total, seconds, 0.05)
    return (total - first) / (time.perf_counter() - began)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values is below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@contextmanager
def log_of_steps() -> Iterator[Path]:
    """A file to which the steps of `bench.flows.note` append what they did, in all processes."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="liteflow-bench-") as folder:
        path = Path(folder) / "steps"
        path.touch()
        os.environ["LITEFLOW_BENCH_LOG"] = str(path)
        try:
            yield path
        finally:
            del os.environ["LITEFLOW_BENCH_LOG"]
