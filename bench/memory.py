"""Resident memory of a worker process after 1,000,000 steps (``--steps``), to that after 10,000."""

from __future__ import annotations

from bench.harness import Env, Figures, Target, Workload, until
from bench.processes import resident

STEPS = 10
"""Of one instance."""


def run(env: Env, quick: bool) -> Figures:
    few, many = (500, 2000) if quick else (10_000, env.steps)
    with env.cluster() as cluster:
        worker = cluster.worker("chains")
        cluster.know("chain")
        found, started = {}, 0
        for label, steps in (("after few, MB", few), ("after many, MB", many)):
            while started < steps // STEPS:
                # In batches: a backlog that grows is the broker's memory, not the worker's.
                batch = min(2000, steps // STEPS - started)
                cluster.start("chain", batch)
                started += batch
                done = started
                until(lambda: cluster.completed() >= done, 600)  # noqa: B023 (called at once)
            found[label] = resident([worker.pid])
    return found


WORKLOAD = Workload(
    "memory",
    "resident memory of a worker, 1,000,000 steps to 10,000",
    "MB",
    run,
    [Target("last to first", lambda f: f["after many, MB"] / f["after few, MB"], 1.1, 1.0, least=False)],
)
