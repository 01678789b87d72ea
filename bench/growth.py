"""W5: does a step cost more at the end of a long instance than at its begin?

A while_ of 10,000 rounds and a for_each of 10,000 items, each one instance with all these ended steps: the
time of the last tenth of the steps to that of the first.
"""

from __future__ import annotations

from bench.harness import Env, Target, Workload, log_of_steps


def run(env: Env, quick: bool) -> dict[str, float]:
    count = 200 if quick else 10_000
    found = {}
    for workflow in ("loop", "each"):
        with log_of_steps() as log, env.cluster() as cluster:
            cluster.worker("loops")
            cluster.scheduler()
            cluster.know(workflow)
            one = cluster.client.start_workflow(workflow, data={"round": 0, "count": count})
            cluster.client.wait_for_workflow(one, 600)
            moments = [int(line.split()[1]) for line in log.read_text().splitlines()]
        assert len(moments) == count
        tenth = count // 10
        first, last = moments[tenth] - moments[0], moments[-1] - moments[-1 - tenth]
        found[f"{workflow}, last to first tenth"] = last / first
        found[f"{workflow}, steps/s"] = count / ((moments[-1] - moments[0]) / 1e9)
    return found


WORKLOAD = Workload(
    "W5",
    "growth over 10,000 steps",
    "ratio; steps/s",
    run,
    [
        Target("while_", lambda m: m["loop, last to first tenth"], 1.2, 1.05, least=False),
        Target("for_each", lambda m: m["each, last to first tenth"], 1.2, 1.05, least=False),
    ],
)
