"""W4: W1 in one process, on the memory provider, beside the library that LiteFlow succeeds.

Each in a process of its own, from the first call of start to the last end.
"""

from __future__ import annotations

import json
import math
import sys

from bench.harness import ROOT, Env, Figures, Target, Workload
from bench.peers import rates
from bench.processes import output

SCRIPT = """
import json, sys, time
from bench.flows import Chain
from liteflow.core import configure_workflow_host
count = int(sys.argv[1])
with configure_workflow_host() as host:
    host.register_workflow(Chain)
    began = time.perf_counter()
    ids = [host.start_workflow("chain") for _ in range(count)]
    for workflow_id in ids:
        host.wait_for_workflow(workflow_id, 120)
    print(json.dumps(count / (time.perf_counter() - began)))
"""


def run(env: Env, quick: bool) -> Figures:
    count = 100 if quick else 1000
    found = {"LiteFlow": float(json.loads(output([sys.executable, "-c", SCRIPT, str(count)], folder=ROOT)))}
    if "original" in env.peers:
        found |= rates("original", env, count)
    return found


WORKLOAD = Workload(
    "W4",
    "chains of 10 steps in memory",
    "workflows/s",
    run,
    [Target("to the original", lambda f: f["LiteFlow"] / f.get("original", math.nan), 3.0, 5.0)],
    references={"LiteFlow": "original"},
)
