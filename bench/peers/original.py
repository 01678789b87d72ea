"""The library that LiteFlow succeeds, version 0.3.1 from PyPI, on its memory provider."""

from __future__ import annotations

import json

from bench.harness import Env, Figures
from bench.peers.environment import Peer, python, version
from bench.processes import output

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


def rates(env: Env, count: int) -> Figures:
    """Chains a second of one process."""
    interpreter = python(env, "original", "liteflow.core==0.3.1")
    # Isolated (-I): it has our name, and must not find us.
    printed = output([str(interpreter), "-I", "-c", SCRIPT, str(count)], folder=env.cache)
    return {"original": float(json.loads(printed.splitlines()[-1]))}


PEER = Peer("original", rates, lambda env: version(env, "original", "liteflow.core"))
