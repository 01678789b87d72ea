"""What is done to a cluster, and when: a plan that a seed determines."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

WORKERS = ("worker-1", "worker-2", "worker-3")
SHIFTED = "worker-3"
"""The worker whose wall clock is wrong, ahead or behind, anew each time that it starts."""
SCHEDULERS = ("scheduler-1", "scheduler-2")
PRODUCERS = ("producer-1", "producer-2")
REDIS = ("redis-0", "redis-1", "redis-2")
SERVERS = ("mongo", "rabbit", *REDIS)

LEASE_TTL = 3.0
"""Seconds: a process that is stopped for longer loses its leases."""


@dataclass(frozen=True)
class Fault:
    """One thing that is done: `at` seconds after the beginning, for `seconds`. `target` is a process, a
    server, several servers joined by `+`, or a link, as in ``worker-1>mongo``."""

    at: float
    kind: str
    target: str
    seconds: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind} {self.target}{lasting}"


KINDS = {
    "kill": 5,
    "term": 2,
    "stop": 4,
    "cut": 3,
    "refuse": 3,
    "stall": 3,
    "cut_all": 2,
    "restart_rabbit": 1,
    "empty_redis": 2,
    "kill_redis": 2,
    "kill_two_redis": 1,
    "kill_mongo": 1,
    "step_down": 1,
}
"""Kinds of faults, with how often they are to come relative to each other."""

DISK_FULL = "disk_full"
"""Comes only if it is asked for: it needs a file system of its own for the store."""


def plan(seed: int, seconds: float, pause: float, *, disk_full: bool = False) -> list[Fault]:
    """The faults of a run, one every `pause` seconds on average; first each kind once, in a random order."""
    source = random.Random(seed)
    weights = {**KINDS, **({DISK_FULL: 1} if disk_full else {})}
    first = list(weights)
    source.shuffle(first)
    faults: list[Fault] = []
    at = 0.0
    while True:
        at += source.uniform(0.4, 1.6) * pause
        if at > seconds:
            return faults
        kind = first.pop() if first else source.choices(list(weights), list(weights.values()))[0]
        faults.append(_fault(source, at, kind))


def _fault(source: random.Random, at: float, kind: str) -> Fault:
    def of(targets: Sequence[str], least: float, most: float) -> Fault:
        return Fault(at, kind, source.choice(targets), round(source.uniform(least, most), 1))

    processes = (*WORKERS, *SCHEDULERS)
    links = [
        f"{process}>{server}"
        for process in (*processes, *PRODUCERS)
        for server in ("mongo", "mongo", "rabbit", "rabbit", *REDIS)
    ]
    if kind == "kill":
        return of((*processes, *WORKERS), 0.1, 4)
    if kind == "term":
        return of(processes, 0.1, 1)
    if kind == "stop":
        return of((*processes, *WORKERS), 0.8 * LEASE_TTL, 3 * LEASE_TTL)
    if kind == "cut":
        return Fault(at, kind, source.choice(links))
    if kind in ("refuse", "stall"):
        return of(links, 1, 2.5 * LEASE_TTL)
    if kind == "cut_all":
        return Fault(at, kind, source.choice(SERVERS))
    if kind == "empty_redis":
        return Fault(at, kind, source.choice(REDIS))
    if kind == "kill_redis":
        return of(REDIS, 1, 8)
    if kind == "kill_two_redis":
        return of(["+".join(two) for two in (REDIS[:2], REDIS[1:], REDIS[::2])], 1, 6)
    if kind == "restart_rabbit":
        return of(["rabbit"], 0.1, 4)
    return of(["mongo"], 0.1, 4)  # kill_mongo, step_down and disk_full
