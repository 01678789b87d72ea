"""W5: does a step cost more at the end of a long instance than at its begin?

A while_ of 10,000 rounds and a for_each of 10,000 items, each one instance, at the end with all these ended
steps: the time of the last tenth of the steps to that of the first, and the same of the worker's CPU time,
which the disk's moods don't change.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.harness import Env, Figures, StepRun, Target, Workload, log_of_steps

WARM = 200
"""Steps of an instance before, so that the first tenth does not pay for what a young process has to load."""


def run(env: Env, quick: bool) -> Figures:
    count = 200 if quick else 10_000
    found: Figures = {}
    for workflow, name in (("loop", "while_"), ("each", "for_each")):
        with log_of_steps() as log, env.cluster() as cluster:
            cluster.worker("loops")
            cluster.scheduler()
            cluster.know(workflow)
            for rounds in (WARM, count):
                one = cluster.client.start_workflow(workflow, data={"round": 0, "count": rounds})
                cluster.client.wait_for_workflow(one, 600)
            runs = log.runs()[WARM:]
        assert len(runs) == count
        tenth = count // 10
        first, last = _spent(runs[: tenth + 1]), _spent(runs[-1 - tenth :])
        found[f"{name}, last to first tenth"] = last[0] / first[0]
        found[f"{name}, last to first tenth, CPU"] = last[1] / first[1]
        found[f"{name}, steps/s"] = count / _spent(runs)[0]
    return found


def _spent(runs: Sequence[StepRun]) -> tuple[float, float]:
    """Seconds, and CPU seconds, from the first of these runs to the last."""
    return runs[-1].at - runs[0].at, runs[-1].cpu - runs[0].cpu


WORKLOAD = Workload(
    "W5",
    "growth over 10,000 steps",
    "see each",
    run,
    [
        Target("while_", lambda f: f["while_, last to first tenth"], 1.2, 1.05, least=False),
        Target("for_each", lambda f: f["for_each, last to first tenth"], 1.2, 1.05, least=False),
    ],
    plotted=[f"{name}, last to first tenth{cpu}" for name in ("while_", "for_each") for cpu in ("", ", CPU")],
)
