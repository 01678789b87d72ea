"""Timers: how late a sleeping step goes on on an idle cluster, by the store's clock; none may be early."""

from __future__ import annotations

import time

from bench.harness import Env, Figures, Target, Workload, percentile


def run(env: Env, quick: bool) -> Figures:
    count = 20 if quick else 200
    with env.cluster() as cluster:
        cluster.worker("nappers")
        cluster.scheduler()
        cluster.know("napper")
        ids = []
        for number in range(count):
            ids.append(cluster.client.start_workflow("napper", data={"seconds": 1 + number % 37 * 0.013}))
            time.sleep(0.03)  # spread out, as timers are
        late = [cluster.client.wait_for_workflow(one, 30).data.late for one in ids]
    return {"p50": percentile(late, 0.5), "p99": percentile(late, 0.99), "least": min(late)}


WORKLOAD = Workload(
    "timers",
    "lateness of timers, idle cluster",
    "ms",
    run,
    [
        Target("p99", lambda f: f["p99"], 250, 50, least=False),
        Target("least: none early", lambda f: f["least"], 0, 0),
    ],
)
