"""W2: one workflow of one step at a time on an idle cluster, from the call of start to its end seen."""

from __future__ import annotations

import time

from bench.harness import Env, Figures, Target, Workload, percentile


def run(env: Env, quick: bool) -> Figures:
    count = 20 if quick else 200
    with env.cluster() as cluster:
        cluster.worker("one")
        cluster.scheduler()
        cluster.know("one")
        times = []
        for _ in range(count + 20):
            began = time.perf_counter()
            cluster.client.wait_for_workflow(cluster.client.start_workflow("one"), 30)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)  # idle in between
    times = times[20:]  # the first ones warm it up
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


WORKLOAD = Workload(
    "W2",
    "latency of one step, idle cluster",
    "ms",
    run,
    [
        Target("p50", lambda f: f["p50"], 7, 4, least=False),
        Target("p99", lambda f: f["p99"], 20, 8, least=False),
    ],
)
