"""W3: an instance waits for an event; from the call of publish to the next step's begin. 1,000, in turn."""

from __future__ import annotations

import time

from bench.harness import Env, Figures, Target, Workload, log_of_steps, percentile, until


def run(env: Env, quick: bool) -> Figures:
    count = 20 if quick else 1000
    with log_of_steps() as log, env.cluster() as cluster:
        cluster.worker("blocked")
        cluster.scheduler()
        cluster.know("waiter")
        waiting = {}
        for number in range(count):
            waiting[cluster.client.start_workflow("waiter", data={"key": str(number)})] = str(number)
        until(lambda: cluster.count({"waits": {"$exists": True}}) >= count, 120)
        published: dict[str, float] = {}
        for workflow_id, key in waiting.items():
            before = log.size()
            published[workflow_id] = time.time()
            cluster.client.publish_event("go", key)
            # A lost one is counted at the end; it holds up the others no longer than this.
            deadline = time.perf_counter() + 5
            while log.size() == before and time.perf_counter() < deadline:
                time.sleep(0.001)
            time.sleep(0.005)  # idle in between
        began = {run.instance_id: run.at for run in log.runs()}
    late = [(began[one] - published[one]) * 1000 for one in waiting if one in began]
    return {"p50": percentile(late, 0.5), "p99": percentile(late, 0.99), "lost": count - len(late)}


WORKLOAD = Workload(
    "W3",
    "event to the next step",
    "ms",
    run,
    [
        Target("p50", lambda f: f["p50"], 8, 5, least=False),
        Target("p99", lambda f: f["p99"], 25, 10, least=False),
        Target("lost", lambda f: f["lost"], 0, 0, least=False),
    ],
    plotted=("p50", "p99"),
)
