"""W6: 100,000 instances that sleep or wait: what they cost, and how fast 10,000 of them wake.

They are stored as the engine leaves them, through the store's `create`. Idle cost: the CPU time of worker and
scheduler in 20 s with them, all of it, and of the servers what they take more than before the instances were
there. Wake rate: 10,000 are due at the same moment; from then to the last one's step after the sleep. "early"
ran before they were due by the machine's clock, "twice" ran their step after the sleep more than once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from bench.blocked import sleeping, waiting
from bench.harness import Env, Figures, Target, Workload, log_of_steps, rate
from bench.processes import cpu_seconds, resident


def run(env: Env, quick: bool) -> Figures:
    many, due_at_once, seconds, lead = (2000, 2000, 2, 4) if quick else (100_000, 10_000, 20, 10)
    with log_of_steps() as log, env.cluster() as cluster:
        store = cluster.client.persistence
        ours = [cluster.worker("blocked").pid, cluster.scheduler().pid]
        servers = env.server_pids()
        for workflow in ("sleeper", "waiter"):
            cluster.know(workflow)
        time.sleep(2)
        own_before, servers_before = _used(ours, servers, seconds)
        sleeping(store, many // 2, store.now() + timedelta(days=30))
        waiting(store, many // 2)
        time.sleep(5)  # the servers write down what they have got
        own, of_servers = _used(ours, servers, seconds)
        idle_memory = resident(ours)
        due = store.now() + timedelta(seconds=lead)
        waking = sleeping(store, due_at_once, due)
        assert store.now() < due, "storing the sleepers took longer than they sleep; give them more time"
        rate(lambda: store.now() >= due, cluster.completed, due_at_once)
        runs = log.runs()
        took = max(run.at for run in runs) - due.timestamp()
        assert {run.instance_id for run in runs} == set(waking)
        memory = resident(ours)
    return {
        "idle before: LiteFlow, % of a core": own_before,
        "idle before: servers, % of a core": servers_before,
        "idle: LiteFlow, % of a core": own,
        "idle: servers, % of a core": of_servers,
        "wake rate, 1/s": due_at_once / took,
        "early": sum(run.at < due.timestamp() for run in runs),
        "twice": sum(times > 1 for times in Counter(run.instance_id for run in runs).values()),
        "memory of worker and scheduler, idle, MB": idle_memory,
        "memory of worker and scheduler, after waking, MB": memory,
    }


def _used(ours: Sequence[int], servers: Sequence[int], seconds: float) -> tuple[float, float]:
    """Percent of a core that LiteFlow's processes and the servers use in this time."""
    before = cpu_seconds(ours), cpu_seconds(servers)
    time.sleep(seconds)
    return 100 * (cpu_seconds(ours) - before[0]) / seconds, 100 * (cpu_seconds(servers) - before[1]) / seconds


def _idle(figures: Figures) -> float:
    more = figures["idle: servers, % of a core"] - figures["idle before: servers, % of a core"]
    return figures["idle: LiteFlow, % of a core"] + max(more, 0.0)


WORKLOAD = Workload(
    "W6",
    "100,000 that sleep or wait",
    "see each",
    run,
    [
        Target("idle, LiteFlow and the servers' extra, % of a core", _idle, 2, 0.5, least=False),
        Target("wake rate, 1/s", lambda f: f["wake rate, 1/s"], 1000, 3000),
        Target("early", lambda f: f["early"], 0, 0, least=False),
        Target("twice", lambda f: f["twice"], 0, 0, least=False),
    ],
    plotted=(
        "idle before: LiteFlow, % of a core",
        "idle before: servers, % of a core",
        "idle: LiteFlow, % of a core",
        "idle: servers, % of a core",
    ),
)
