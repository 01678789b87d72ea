"""What is left behind: from a worker's end to the next step elsewhere, and from terminate to the body.

Twelve instances make short steps all the time, on two workers with a lease of 2 s. One worker is killed with
SIGKILL; then one is told to end by SIGTERM. The longest that any instance stood still is what counts, less
the lease after SIGKILL. Then long steps are terminated, and note when their token tells them.
"""

from __future__ import annotations

import signal
import time

from bench.harness import Cluster, Env, Figures, StepLog, Target, Workload, log_of_steps, until

TTL = 2.0
INSTANCES = 12


def run(env: Env, quick: bool) -> Figures:
    rounds = 1 if quick else 5
    with log_of_steps() as log, env.cluster() as cluster:
        workers = [cluster.worker("busy", "--lease-ttl", str(TTL)) for _ in range(2)]
        cluster.scheduler()
        cluster.know("steps")
        ids = [cluster.client.start_workflow("steps", data={"round": 0}) for _ in range(INSTANCES)]
        killed: list[float] = []
        ended: list[float] = []
        for _ in range(rounds):
            for sign, still in ((signal.SIGKILL, killed), (signal.SIGTERM, ended)):
                _settle(log)
                workers.append(cluster.worker("busy", "--lease-ttl", str(TTL)))
                time.sleep(3)  # it is there, and has its share
                at = time.time()
                workers.pop(0).send_signal(sign)
                still.append(_stood_still(log, ids, at))
        for one in ids:
            cluster.client.terminate_workflow(one)
        told = [_told(cluster, log) for _ in range(10 * rounds)]
    return {
        "SIGKILL, beyond the lease": (max(killed) - TTL) * 1000,
        "SIGTERM": max(ended) * 1000,
        "terminate": max(told) * 1000,
    }


def _settle(log: StepLog) -> None:
    before = log.size()
    until(lambda: log.size() > before, 60)


def _stood_still(log: StepLog, ids: list[str], since: float) -> float:
    """The longest time between two steps of an instance of which the second came after `since`."""
    time.sleep(TTL + 3)
    longest = 0.0
    for one in ids:
        times = [step.at for step in log.runs() if step.instance_id == one]
        after = next(n for n, at in enumerate(times) if at > since)
        longest = max(longest, *(b - a for a, b in zip(times[after - 1 :], times[after:], strict=False)))
    return longest


def _told(cluster: Cluster, log: StepLog) -> float:
    workflow_id = cluster.client.start_workflow("hour")
    until(lambda: any(step.instance_id == workflow_id for step in log.runs()), 60)
    time.sleep(0.2)  # it is a long step by now
    asked = time.time()
    cluster.client.terminate_workflow(workflow_id)
    until(lambda: sum(step.instance_id == workflow_id for step in log.runs()) == 2, 60)
    return max(step.at for step in log.runs() if step.instance_id == workflow_id) - asked


WORKLOAD = Workload(
    "takeover",
    "longest stand-still after a worker's end; terminate to the running body",
    "ms",
    run,
    [
        Target("SIGKILL, beyond the lease", lambda f: f["SIGKILL, beyond the lease"], 1000, 100, least=False),
        Target("terminate", lambda f: f["terminate"], 1000, 100, least=False),
    ],
)
