"""W4: W1 in one process, on the memory provider, beside the library that LiteFlow succeeds."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness import ROOT, Env, Target, Workload
from bench.peers import original

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


def run(env: Env, quick: bool) -> dict[str, float]:
    count = 100 if quick else 1000
    command = [sys.executable, "-c", SCRIPT, str(count)]  # a process of its own, as the other gets
    rate = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    found = {"LiteFlow": float(rate)}
    reference = original.rate(env, count)
    return found if reference is None else found | {"the original": reference}


WORKLOAD = Workload(
    "W4",
    "chains of 10 steps in memory",
    "workflows/s",
    run,
    [Target("to the original", lambda m: m["LiteFlow"] / m.get("the original", float("nan")), 3.0, 5.0)],
)
