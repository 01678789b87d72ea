"""W3: an instance waits for an event; from the call of publish to the next step's begin. 1,000, in turn."""

from __future__ import annotations

import time

from bench.harness import Env, Target, Workload, log_of_steps, percentile, until

LINE = 36 + 1 + 19 + 1
"""Bytes of a line in the log of steps: an id and nanoseconds."""


def run(env: Env, quick: bool) -> dict[str, float]:
    count = 20 if quick else 1000
    with log_of_steps() as log, env.cluster() as cluster:
        cluster.worker("waiters")
        cluster.scheduler()
        cluster.know("waiter")
        waiting = {}
        for number in range(count):
            waiting[cluster.client.start_workflow("waiter", data={"key": str(number)})] = str(number)
        until(lambda: cluster.count({"waits": {"$exists": True}}) >= count, 120)
        published = {}
        for workflow_id, key in waiting.items():
            published[workflow_id] = time.time_ns()
            cluster.client.publish_event("go", key)
            until(lambda: len(log.read_bytes()) >= len(published) * LINE, 10, 0.001)
            time.sleep(0.005)  # idle in between
        until(lambda: cluster.completed() >= count, 60)
        began = {line.split()[0]: int(line.split()[1]) for line in log.read_text().splitlines()}
    late = [(began[one] - published[one]) / 1e6 for one in waiting if one in began]
    lost = count - len(late)
    return {"p50": percentile(late, 0.5), "p99": percentile(late, 0.99), "lost": lost}


WORKLOAD = Workload(
    "W3",
    "event to the next step",
    "ms",
    run,
    [
        Target("p50", lambda m: m["p50"], 8, 5, least=False),
        Target("p99", lambda m: m["p99"], 25, 10, least=False),
        Target("lost", lambda m: m["lost"], 0, 0, least=False),
    ],
)
