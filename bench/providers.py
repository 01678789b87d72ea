"""Providers beside each other: chains of 10 durable steps, and the latency of one step, in one process.

"drain": instances are stored first; from the first step to the last one's last step. "p50 ms": one
workflow of one step at a time, from the call of start to its end seen. One host in this process runs them,
with 16 slots. Every server keeps what it confirms as it does by default, on its disk but for Redis, which
syncs its file once a second; Azure's and AWS's services are emulators here. The order of the providers is
another one in each run.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from combinations import Providers
from servers import ServerError

from bench.flows import OneStep, nothing
from bench.harness import Env, Figures, Servers, Workload
from liteflow.core import (
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowHost,
    configure_workflow_host,
)

DEFAULT = "mongo+rabbitmq+redis"
COMBINATIONS = [
    DEFAULT,
    "mongo+redis+redis",
    "postgres+rabbitmq+redis",
    "postgres+redis+redis",
    "mariadb+rabbitmq+redis",
    "mariadb+redis+redis",
    "sqlite+rabbitmq+redis",
    "postgres+store+store",
    "mariadb+store+store",
    "sqlite+store+store",
    "postgres+azure+azure",
    "postgres+aws+aws",
    "sqlite+local+local",
    "memory+local+local",
]
"""Store, queue and lock, as `tests/combinations.py` names them."""


def run(env: Env, quick: bool) -> Figures:
    chains, singles = (10, 5) if quick else (500, 60)
    started = Servers()  # those that no other benchmark needs
    urls: dict[str, Callable[[], str]] = {
        "mongo_url": lambda: env.mongo,
        "amqp_url": lambda: env.amqp,
        "redis_url": lambda: env.redis,
        "postgres_url": started.postgres,
        "mariadb_url": started.mariadb,
        "azure": started.azure,
        "aws_endpoint": started.aws,
    }
    found = Figures()
    try:
        for combination in random.sample(COMBINATIONS, len(COMBINATIONS)):
            try:
                rate, latency = measure(combination, lambda name: urls[name](), chains, singles)
            except ServerError as exc:
                print(f"  {combination} is left out: {exc}", file=sys.stderr)
                continue
            found[f"drain, {combination}"] = rate
            found[f"p50 ms, {combination}"] = latency
    finally:
        started.close()
    series = [f"{what}, {combination}" for what in ("drain", "p50 ms") for combination in COMBINATIONS]
    return {name: found[name] for name in series if name in found}


def measure(combination: str, url_of: Callable[[str], str], chains: int, singles: int) -> tuple[float, float]:
    """Workflows a second, and milliseconds of one."""
    with tempfile.TemporaryDirectory(prefix="liteflow-bench-") as folder:
        providers = Providers(combination, url_of, Path(folder), f"b{uuid.uuid4().hex[:8]}")
        host = configure_workflow_host(*providers.make(), **providers.options)
        drained = Drained(chains)
        host.register_workflow(drained.workflow())
        host.register_workflow(OneStep)
        try:
            host.open()
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda _: host.start_workflow("drained"), range(chains)))
            host.start()
            rate = chains / drained.seconds(300)
            return rate, statistics.median(one(host) for _ in range(singles)) * 1000
        finally:
            host.stop(timeout=10)


def one(host: WorkflowHost) -> float:
    """Seconds of a workflow of one step."""
    time.sleep(0.01)  # idle in between
    began = time.perf_counter()
    host.wait_for_workflow(host.start_workflow("one"), 30)
    return time.perf_counter() - began


class Drained:
    """Chains whose last steps are counted, from the first step on."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._guard = threading.Lock()
        self._all = threading.Event()
        self._began = self._ended = 0.0

    def first(self, context: StepExecutionContext) -> None:
        """The first step."""
        with self._guard:
            self._began = self._began or time.perf_counter()

    def last(self, context: StepExecutionContext) -> None:
        """The tenth step."""
        with self._guard:
            self._left -= 1
            if not self._left:
                self._ended = time.perf_counter()
                self._all.set()

    def seconds(self, within: float) -> float:
        """How long they took, from the first one that began to the last one that ended."""
        if not self._all.wait(within):
            raise TimeoutError(f"{self._left} chains have not ended in {within:.0f} s")
        return self._ended - self._began

    def workflow(self) -> Workflow:
        """Eight steps that do nothing, between those that are timed."""
        first, last = self.first, self.last

        class DrainedChain(Workflow):
            id = "drained"

            def build(self, builder: WorkflowBuilder) -> None:
                steps = builder.start_with(first)
                for _ in range(8):
                    steps = steps.then(nothing)
                steps.then(last).id("last")

        return DrainedChain()


WORKLOAD = Workload(
    "providers",
    "stores, queues and locks",
    "workflows/s; ms",
    run,
    references={"drain, ": f"drain, {DEFAULT}", "p50 ms, ": f"p50 ms, {DEFAULT}"},
    plotted=[f"drain, {combination}" for combination in COMBINATIONS],
)
