"""W9: more workers, and more at once in one worker, when the store is some milliseconds away.

A proxy lets each call to MongoDB wait. "share": what one worker with 16 slots reaches of what overlap allows,
which is the least of 16 times what a worker with one slot reaches at the same latency (one instance at a
time), and of what the 16 slots reach without the latency (the limit that CPU sets).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.chains import drain
from bench.harness import ROOT, Env, Target, Workload


@contextmanager
def late(url: str, milliseconds: float) -> Iterator[str]:
    """The URL of a proxy to the store at this URL."""
    port = url.partition("://")[2].partition("/")[0].rpartition(":")[2]
    command = [sys.executable, "-m", "bench.proxy", port, str(milliseconds)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        own = process.stdout.readline().decode().strip()
        yield f"mongodb://127.0.0.1:{own}/liteflow?directConnection=true"
    finally:
        process.kill()
        process.wait()


def run(env: Env, quick: bool) -> dict[str, float]:
    one, full = ("--concurrency", "1"), ("--concurrency", "16")
    few, many = (20, 40) if quick else (100, 1000)
    found = {"0 ms, 16 slots": drain(env, 1, many, *full)}
    for latency in (1, 5):
        with late(env.mongo, latency) as store:
            for workers in (1, 2, 4):
                rate = drain(env, workers, few * workers, *one, store=store)
                found[f"{latency} ms, {workers} x 1 slot"] = rate
            found[f"{latency} ms, 16 slots"] = drain(env, 1, many, *full, store=store)
    return found


def _share(medians: dict[str, float]) -> float:
    allowed = min(16 * medians["5 ms, 1 x 1 slot"], medians["0 ms, 16 slots"])
    return medians["5 ms, 16 slots"] / allowed


WORKLOAD = Workload(
    "W9",
    "scale at 1 and 5 ms to the store",
    "workflows/s",
    run,
    [
        Target("5 ms: 4 workers to 1", lambda m: m["5 ms, 4 x 1 slot"] / m["5 ms, 1 x 1 slot"], 3.5, 3.9),
        Target("5 ms: 16 slots, share of what overlap allows", _share, 0.8, 0.95),
    ],
)
