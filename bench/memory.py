"""Memory of a worker process after many steps, to that after few."""

from __future__ import annotations

from bench.harness import Env, Target, Workload, resident, until


def run(env: Env, quick: bool) -> dict[str, float]:
    few, many = (50, 200) if quick else (1_000, 100_000)
    with env.cluster() as cluster:
        worker = cluster.worker("chains")
        cluster.know("chain")
        found, started = {}, 0
        for total in (few, many):
            while started < total:
                batch = min(2000, total - started)
                cluster.start("chain", batch)
                started += batch
                until(lambda: cluster.completed() >= started, 600)  # noqa: B023 (called at once)
            found[f"after {total * 10:,} steps, MB"] = resident(worker.pid)
    return found


def _ratio(medians: dict[str, float]) -> float:
    first, last = list(medians.values())
    return last / first


WORKLOAD = Workload(
    "memory",
    "resident memory of a worker, 1,000,000 steps to 10,000",
    "MB",
    run,
    [Target("last to first", _ratio, 1.1, 1.0, least=False)],
)
