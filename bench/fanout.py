"""W7: one event for which 10,000 instances wait, from its publication to the last one's next step."""

from __future__ import annotations

import time

from bench.blocked import waiting
from bench.harness import Env, Figures, Target, Workload, log_of_steps, rate


def run(env: Env, quick: bool) -> Figures:
    count = 2000 if quick else 10_000
    with log_of_steps() as log, env.cluster() as cluster:
        cluster.worker("blocked")
        cluster.scheduler()
        cluster.know("waiter")
        ids = waiting(cluster.client.persistence, count, "all")
        began = time.time()
        cluster.client.publish_event("go", "all")
        rate(lambda: True, cluster.completed, count)
        runs = log.runs()
        assert sorted(run.instance_id for run in runs) == sorted(ids)
    return {"to the last": max(run.at for run in runs) - began}


WORKLOAD = Workload(
    "W7",
    "one event, 10,000 waiting",
    "s",
    run,
    [Target("to the last", lambda f: f["to the last"], 15, 5, least=False)],
)
