"""Many histories from the command line: ``python -m liteflow.core.testing.simulation --seeds 50000``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from liteflow.core.testing.simulation.simulate import Explored
from liteflow.core.testing.simulation.workloads import WORKLOADS, Workload, history_of

AT_ONCE = 250
"""Histories between two lines of progress."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make histories, or one again. Returns 1 if a promise was broken."""
    options = _options().parse_args(arguments)
    workload = next((one for one in WORKLOADS if one.name == options.workload), None)
    if options.replay is not None:
        return _replay(options.replay, workload)
    began, explored, failed = time.monotonic(), Explored(), 0
    end = options.first + options.seeds
    parts = [range(first, min(first + AT_ONCE, end)) for first in range(options.first, end, AT_ONCE)]
    with ProcessPoolExecutor(options.jobs) as pool:
        for part, broken in pool.map(_part, parts, [options.workload] * len(parts)):
            explored.histories += part.histories
            explored.calls += part.calls
            explored.runs += part.runs
            explored.faults.update(part.faults)
            failed += len(broken)
            for line in broken:
                print(line, flush=True)
            print(_progress(explored, failed, time.monotonic() - began), flush=True)
            if failed and not options.keep_going:
                pool.shutdown(cancel_futures=True)
                return 1
    for fault, times in explored.faults.most_common():
        print(f"{times:10} {fault.value}")
    return 1 if failed else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m liteflow.core.testing.simulation",
        description="Simulated histories of a cluster, each from a seed, checked for broken promises.",
    )
    parser.add_argument("--seeds", type=int, default=5000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    names = [one.name for one in WORKLOADS]
    parser.add_argument("--workload", choices=names, help="only this one; else each seed chooses")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first broken promise")
    parser.add_argument(
        "--replay", type=int, metavar="SEED", help="make one history again and print its trace"
    )
    return parser


def _part(seeds: range, name: str | None) -> tuple[Explored, list[str]]:
    workload = next((one for one in WORKLOADS if one.name == name), None)
    explored, broken = Explored(), []
    for seed in seeds:
        history = history_of(seed, workload)
        explored.add(history)
        if history.broken:
            only = f" --workload {name}" if name else ""
            broken.append(
                f"seed {seed}: {history.broken[0]}\n"
                f"  again: python -m liteflow.core.testing.simulation --replay {seed}{only}"
            )
    return explored, broken


def _replay(seed: int, workload: Workload | None) -> int:
    history = history_of(seed, workload, verbose=True)
    print(history.trace())
    for one in history.broken:
        print(f"broken: {one}")
    return 1 if history.broken else 0


def _progress(explored: Explored, failed: int, seconds: float) -> str:
    return (
        f"{explored.histories} histories, {explored.calls} calls, {explored.runs} bodies,"
        f" {sum(explored.faults.values())} faults, {failed} broken, {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
