"""Parallel: three branches that wait 300 ms each, from the first body's begin to the join's end."""

from __future__ import annotations

from bench.harness import Env, Figures, Target, Workload, percentile


def run(env: Env, quick: bool) -> Figures:
    count = 2 if quick else 10
    found = {}
    with env.cluster() as cluster:
        cluster.worker("branches")
        cluster.scheduler()
        for workflow, name in (("sync-branches", "sync bodies"), ("async-branches", "async bodies")):
            cluster.know(workflow)
            times = []
            for _ in range(count):
                one = cluster.client.start_workflow(workflow)
                instance = cluster.client.wait_for_workflow(one, 30)
                began = min(p.start_time for p in instance.execution_pointers if p.start_time)
                assert instance.complete_time is not None
                times.append((instance.complete_time - began).total_seconds() * 1000)
            found[f"{name}, p50"] = percentile(times, 0.5)
    return found


WORKLOAD = Workload(
    "parallel",
    "three branches of 300 ms",
    "ms",
    run,
    [
        Target("sync bodies", lambda f: f["sync bodies, p50"], 600, 350, least=False),
        Target("async bodies", lambda f: f["async bodies, p50"], 600, 350, least=False),
    ],
)
