"""What short bodies pay for long ones: chains in memory, with every body watched and with none.

Bodies are watched so that those that take longer than `long_step` go on under a claim. Then the same chains
while half of the slots have long steps that wait.
"""

from __future__ import annotations

import json
import sys

from bench.harness import ROOT, Env, Figures, Target, Workload
from bench.processes import output

SCRIPT = """
import json, sys, threading, time
from bench.flows import Chain
from liteflow.core import Workflow, configure_workflow_host
count, settings, long = int(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
over, begun = threading.Event(), threading.Semaphore(0)

def waits(context):
    begun.release()
    over.wait()

class Long(Workflow):
    id = "long"
    def build(self, builder):
        builder.start_with(waits)

with configure_workflow_host(**settings) as host:
    host.register_workflow(Chain)
    host.register_workflow(Long)
    waiting = [host.start_workflow("long") for _ in range(long)]
    for _ in waiting:
        begun.acquire()
    began = time.perf_counter()
    ids = [host.start_workflow("chain") for _ in range(count)]
    for workflow_id in ids:
        host.wait_for_workflow(workflow_id, 120)
    print(json.dumps(count / (time.perf_counter() - began)))
    over.set()
"""

WAYS: dict[str, tuple[dict[str, float], int]] = {
    "watched": ({}, 0),
    "not watched": ({"long_step": 3600.0}, 0),
    "beside 8 long steps, 8 slots left": ({"concurrency": 16}, 8),
    "8 slots alone": ({"concurrency": 8}, 0),
}
"""Settings of the host, and how many long steps it has."""


def run(env: Env, quick: bool) -> Figures:
    count = 100 if quick else 1000
    return {
        name: float(
            json.loads(
                output(
                    [sys.executable, "-c", SCRIPT, str(count), json.dumps(settings), str(long)], folder=ROOT
                )
            )
        )
        for name, (settings, long) in WAYS.items()
    }


WORKLOAD = Workload(
    "long-steps",
    "chains in memory, with and without long steps",
    "workflows/s",
    run,
    [
        Target("watched to not watched", lambda f: f["watched"] / f["not watched"], 0.95, 1.0),
        Target(
            "beside long steps to alone",
            lambda f: f["beside 8 long steps, 8 slots left"] / f["8 slots alone"],
            0.9, 1.0,
        ),
    ],
)  # fmt: skip
