"""What one step costs whom: CPU time of a worker and of each server in a drain of W1, by step.

From the first step to the last end, of one worker process. The store has the polling of this benchmark in its
share, which is small.
"""

from __future__ import annotations

import re

from bench.flows import Chain
from bench.harness import Env, Figures, Workload, rate, until
from bench.processes import cpu_seconds, listening


def run(env: Env, quick: bool) -> Figures:
    count = 60 if quick else 1000
    ports = {
        name: int(re.findall(r":(\d+)", url)[-1])
        for name, url in (("MongoDB", env.mongo), ("RabbitMQ", env.amqp), ("Redis", env.redis))
    }
    with env.cluster() as cluster:
        cluster.record(Chain())
        cluster.start("chain", count)
        pids = {"worker": [cluster.worker("chains").pid]}
        pids |= {name: listening([port]) for name, port in ports.items()}
        until(cluster.moved, 120, 0.005)
        before = {name: cpu_seconds(of) for name, of in pids.items()}
        rate(lambda: True, cluster.completed, count)
        used = {name: cpu_seconds(of) - before[name] for name, of in pids.items()}
    return {f"{name}, us of CPU": 1e6 * seconds / (10 * count) for name, seconds in used.items()}


WORKLOAD = Workload("cost", "what a step costs", "us of CPU", run)
