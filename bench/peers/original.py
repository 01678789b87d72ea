"""The library that LiteFlow succeeds, version 0.3.1 from PyPI, on its memory provider."""

from __future__ import annotations

import json
import subprocess

from bench.harness import Env
from bench.peers.environment import missing, python

SCRIPT = """
import json, os, sys, time
from liteflow.core import *

class Nothing(StepBody):
    def run(self, context):
        return ExecutionResult.next()

class Chain(Workflow):
    def id(self):
        return "chain"
    def version(self):
        return 1
    def build(self, builder):
        steps = builder.start_with(Nothing)
        for _ in range(9):
            steps = steps.then(Nothing)

count = int(sys.argv[1])
host = configure_workflow_host()
host.register_workflow(Chain())
host.start()
began = time.perf_counter()
ids = [host.start_workflow("chain", 1, None) for _ in range(count)]
store = host._persistence_service
for one in ids:
    while store.get_workflow_instance(one).status != 2:  # COMPLETE
        time.sleep(0.001)
print(json.dumps(count / (time.perf_counter() - began)), flush=True)
os._exit(0)  # its threads take their time
"""


def rate(env: Env, count: int) -> float | None:
    """Chains a second; None if it can't be had."""
    interpreter = python(env, "original", "liteflow.core==0.3.1")
    if interpreter is None:
        return None
    command = [str(interpreter), "-c", SCRIPT, str(count)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, timeout=300, cwd=env.cache, env={})
    except subprocess.SubprocessError as exc:
        return missing("the original", str(exc))
    return float(json.loads(done.stdout.splitlines()[-1]))
