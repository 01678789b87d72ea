"""W7: one event for which 10,000 instances wait, from its publication to the last one's next step."""

from __future__ import annotations

import time

from bench.flows import Waiter
from bench.harness import Env, Target, Workload, log_of_steps, until
from bench.many import blocked


def run(env: Env, quick: bool) -> dict[str, float]:
    count = 2000 if quick else 10_000
    with log_of_steps() as log, env.cluster() as cluster:
        cluster.worker("waiters")
        cluster.scheduler()
        cluster.know("waiter")
        waiting = blocked(cluster, Waiter, count, key="all")
        began = time.time_ns()
        cluster.client.publish_event("go", "all")
        until(lambda: cluster.completed() >= count, 300, 0.2)
        lines = [line.split() for line in log.read_text().splitlines()]
        assert sorted(name for name, _ in lines) == sorted(waiting)
    return {"to the last": (max(int(at) for _, at in lines) - began) / 1e9}


WORKLOAD = Workload(
    "W7",
    "one event, 10,000 waiting",
    "s",
    run,
    [Target("to the last", lambda m: m["to the last"], 15, 5, least=False)],
)
