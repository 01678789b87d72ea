"""W1: 1,000 instances of 10 steps that do nothing, each step's end stored before the next begins.

Majority and journaled, as always. "drain": all are submitted before the workers start. "with submit": from
the first call of start to the last completion.
"""

from __future__ import annotations

import time

from bench import handwritten
from bench.flows import Chain
from bench.harness import Env, Target, Workload, rate, until
from bench.peers import chain_rates
from liteflow.core.models import DefinitionRecord


def drain(env: Env, workers: int, count: int, *options: str, store: str | None = None) -> float:
    """Instances a second of some worker processes."""
    with env.cluster() as cluster:
        known = Chain().definition()
        record = DefinitionRecord(known.id, known.version, known.fingerprint)
        cluster.client.persistence.record_definitions([record])
        cluster.start("chain", count)
        for _ in range(workers):
            cluster.worker("chains", *options, store=store)
        return rate(cluster.completed, count)


def with_submit(env: Env, workers: int, count: int) -> float:
    """Instances a second, while one thread submits them."""
    with env.cluster() as cluster:
        for _ in range(workers):
            cluster.worker("chains")
        cluster.know("chain")
        time.sleep(0.5)
        began = time.perf_counter()
        for _ in range(count):
            cluster.client.start_workflow("chain")
        until(lambda: cluster.completed() >= count, 300)
        return count / (time.perf_counter() - began)


def run(env: Env, quick: bool) -> dict[str, float]:
    count = 60 if quick else 1000
    found = {
        "LiteFlow, 1 worker": drain(env, 1, count),
        "LiteFlow, 2 workers": drain(env, 2, count),
        "LiteFlow, 2 workers, with submit": with_submit(env, 2, count),
        "hand-written, 1 process": handwritten.drain(env, 1, 1, count),
        "hand-written, 2 processes": handwritten.drain(env, 2, 1, count),
        "hand-written, 1 x 8 threads": handwritten.drain(env, 1, 8, count),
        "hand-written, 2 x 8 threads": handwritten.drain(env, 2, 8, count),
    }
    return found | chain_rates(env, count)


def _ratio(medians: dict[str, float]) -> float:
    best = max(medians["LiteFlow, 1 worker"], medians["LiteFlow, 2 workers"])
    return best / max(value for name, value in medians.items() if name.startswith("hand-written"))


def _to(peer: str, medians: dict[str, float]) -> float:
    of_peer = [value for name, value in medians.items() if name.startswith(peer)]
    return medians["LiteFlow, 2 workers"] / max(of_peer) if of_peer else float("nan")


WORKLOAD = Workload(
    "W1",
    "chains of 10 steps, drained",
    "workflows/s",
    run,
    [
        Target("best of LiteFlow to best hand-written", _ratio, 1.0, 2.0),
        Target("2 workers to Restate, best of 1 and 2 processes", lambda m: _to("Restate", m), 1.0, 2.0),
        Target("2 workers to DBOS on PostgreSQL", lambda m: _to("DBOS", m), 8.0, 16.0),
    ],
)
