"""W1: 1,000 instances of 10 steps that do nothing, each step's end stored before the next begins.

Majority and journaled, as always. "drain": all are submitted before the workers start; from the first step to
the last instance's end. "with submit": from the first call of start to the last end, while one thread submits
to workers that wait.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from bench import handwritten
from bench.flows import Chain
from bench.harness import Env, Figures, Target, Workload, rate
from bench.peers import TITLES, chain_rates


def drain(env: Env, workers: int, count: int, options: Sequence[str] = (), way: Env | None = None) -> float:
    """Instances a second of worker processes, which reach the servers by the URLs of `way`."""
    with env.cluster() as cluster:
        cluster.record(Chain())
        cluster.start("chain", count)
        for _ in range(workers):
            cluster.worker("chains", *options, env=way)
        return rate(cluster.moved, cluster.completed, count)


def with_submit(env: Env, workers: int, count: int) -> float:
    """Instances a second of worker processes, while one thread submits."""
    with env.cluster() as cluster:
        for _ in range(workers):
            cluster.worker("chains")
        cluster.know("chain")

        def submit() -> None:
            for _ in range(count):
                cluster.client.start_workflow("chain")

        submitter = threading.Thread(target=submit)
        submitter.start()
        found = rate(lambda: True, cluster.completed, count)
        submitter.join()
        return found


def run(env: Env, quick: bool) -> Figures:
    count = 60 if quick else 1000
    found = {
        "LiteFlow, 1 worker": drain(env, 1, count),
        "LiteFlow, 2 workers": drain(env, 2, count),
    }
    for shape in handwritten.SHAPES:
        found[f"hand-written, {shape}"] = handwritten.chains(env, shape, count)
    found |= chain_rates(env, count)
    found["LiteFlow with submit, 1 worker"] = with_submit(env, 1, count)
    found["LiteFlow with submit, 2 workers"] = with_submit(env, 2, count)
    for shape in handwritten.SHAPES:
        found[f"hand-written with submit, {shape}"] = handwritten.chains(env, shape, count, submit=True)
    for shape in handwritten.SHAPES:
        found[f"hand-written at w:1, {shape}"] = handwritten.chains(env, shape, count, "w1")
    return found


def _best(figures: Figures, kind: str) -> float:
    return max((value for name, value in figures.items() if name.startswith(f"{kind},")), default=math.nan)


WORKLOAD = Workload(
    "W1",
    "chains of 10 steps",
    "workflows/s",
    run,
    [
        Target(
            "drain: best of LiteFlow to best hand-written",
            lambda f: _best(f, "LiteFlow") / _best(f, "hand-written"),
            1.0,
            2.0,
        ),
        Target(
            "2 workers to Restate, 2 processes",
            lambda f: f["LiteFlow, 2 workers"] / f.get("Restate, 2 processes", math.nan),
            1.0,
            2.0,
        ),
        Target(
            "2 workers to DBOS on PostgreSQL, 2 processes",
            lambda f: f["LiteFlow, 2 workers"] / f.get("DBOS, 2 processes", math.nan),
            8.0,
            16.0,
        ),
    ],
    references={
        "LiteFlow,": "hand-written,",
        "LiteFlow with submit,": "hand-written with submit,",
        **dict.fromkeys(TITLES, "hand-written,"),
    },
)
