"""W9: more workers, and more at once in one worker, when the servers are some milliseconds away.

A proxy lets whatever the workers send to store, queue and lock wait, so that each call takes so much longer.
"share of what overlap allows": the rate of one worker with 16 slots, of the least of two limits: 16 times the
rate of a worker with one slot at the same latency, which is what perfect overlap would give; and the rate of
the 16 slots without the latency, which is what the CPU gives.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import redis

from bench.chains import drain
from bench.harness import ROOT, Env, Figures, Target, Workload
from bench.processes import kill, spawn


@contextmanager
def distant(env: Env, milliseconds: float) -> Iterator[Env]:
    """The same servers, each call to them so much later."""
    ports = env.ports()
    command = [sys.executable, "-m", "bench.proxy", str(milliseconds), *map(str, ports)]
    process = spawn(command, folder=ROOT, piped=True)
    assert process.stdout is not None
    try:
        own = process.stdout.readline().decode().split()
        mongo, amqp, lock = (
            url.replace(f":{there}", f":{here}")
            for url, there, here in zip((env.mongo, env.amqp, env.redis), ports, own, strict=True)
        )
        # A client that knows the replica set would go past the proxy to the member's own address.
        direct = mongo.partition("?")[0] + "?directConnection=true"
        yield replace(env, mongo=direct, amqp=amqp, redis=lock)
    finally:
        process.stdout.close()
        kill([process])


def added(env: Env, way: Env) -> float:
    """Milliseconds by which a call over this way really takes longer."""

    def call(url: str) -> float:
        times = []
        with redis.Redis.from_url(url) as client:
            for _ in range(50):
                began = time.perf_counter()
                client.ping()
                times.append(time.perf_counter() - began)
        return statistics.median(times) * 1000

    return call(way.redis) - call(env.redis)


def run(env: Env, quick: bool) -> Figures:
    one, full = ("--concurrency", "1"), ("--concurrency", "16")
    few, many = (10, 60) if quick else (100, 1000)
    found = {}
    for workers in (1, 2, 4):
        found[f"0 ms, {workers} x 1 slot"] = drain(env, workers, few * workers, one)
    found["0 ms, 1 x 16 slots"] = drain(env, 1, many, full)
    for latency in (1, 5):
        with distant(env, latency) as way:
            found[f"{latency} ms: really added to a call, ms"] = added(env, way)
            for workers in (1, 2, 4):
                found[f"{latency} ms, {workers} x 1 slot"] = drain(env, workers, few * workers, one, way)
            found[f"{latency} ms, 1 x 16 slots"] = drain(env, 1, many, full, way)
    return found


def _share(figures: Figures) -> float:
    allowed = min(16 * figures["5 ms, 1 x 1 slot"], figures["0 ms, 1 x 16 slots"])
    return figures["5 ms, 1 x 16 slots"] / allowed


WORKLOAD = Workload(
    "W9",
    "scale at 1 and 5 ms to the servers",
    "workflows/s",
    run,
    [
        Target("5 ms: 4 workers to 1", lambda f: f["5 ms, 4 x 1 slot"] / f["5 ms, 1 x 1 slot"], 3.5, 3.9),
        Target("5 ms: 16 slots, share of what overlap allows", _share, 0.8, 0.95),
    ],
    plotted=[
        f"{latency} ms, {shape}"
        for latency in (0, 1, 5)
        for shape in ("1 x 1 slot", "2 x 1 slot", "4 x 1 slot", "1 x 16 slots")
    ],
)
