"""Runs benchmarks: python -m bench [NAME ...]

Starts its own RabbitMQ, Redis and MongoDB (a replica set of one, majority and journaled writes), unless
LITEFLOW_TEST_AMQP, _REDIS and _MONGO name some. The workloads, each with its references, are run in turn,
again and again, so that what disturbs the machine disturbs them alike. Results go to --out, after each round.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bench import (
    chains,
    cost,
    embedded,
    events,
    fanout,
    growth,
    latency,
    long_steps,
    many,
    memory,
    parallel,
    providers,
    scale,
    stores,
    submit,
    takeover,
    timers,
)
from bench.harness import ROOT, Env, Figures, Servers, Workload
from bench.peers import PEERS, versions
from bench.report import machine, summary, table, write

ALL: list[Workload] = [
    module.WORKLOAD
    for module in (
        chains,
        cost,
        latency,
        events,
        embedded,
        growth,
        many,
        fanout,
        submit,
        scale,
        timers,
        parallel,
        takeover,
        long_steps,
        memory,
        providers,
        stores,
    )
]
INTERRUPTED = 130
"""The exit code after Ctrl-C or SIGTERM."""

LONG = {"memory", "providers", "stores"}
"""Run only when they are asked for by name."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; ends the process with a sentence if it is wrong."""
    names = {workload.name.lower(): workload for workload in ALL}
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = ", ".join(workload.name for workload in ALL)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{listed}; default: all but {', '.join(sorted(LONG))}"
    )
    parser.add_argument("--runs", type=int, help="how often each is run (5; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="folder of the results")
    parser.add_argument(
        "--peers",
        default="original",
        help=f"other engines, by commas: {', '.join(PEERS)}; default: original, which W4 is compared with",
    )
    parser.add_argument("--steps", type=int, default=1_000_000, help="of `memory` (1,000,000)")
    options = parser.parse_args(arguments)
    options.peers = frozenset(filter(None, options.peers.split(",")))
    unknown = [name for name in options.names if name.lower() not in names]
    if unknown := [*unknown, *sorted(options.peers - set(PEERS))]:
        parser.error(f"unknown: {', '.join(unknown)}")
    options.runs = options.runs or (1 if options.quick else 5)
    options.workloads = [names[name.lower()] for name in options.names]
    options.workloads = options.workloads or [one for one in ALL if one.name not in LONG]
    return options


def measure(env: Env, options: argparse.Namespace) -> dict[Workload, list[Figures]]:
    """Run the workloads in turn, `runs` times, and store what there is after each round."""
    about = machine(env)
    results: dict[Workload, list[Figures]] = {workload: [] for workload in options.workloads}
    for run in range(options.runs):
        for workload in options.workloads:
            began = time.perf_counter()
            print(f"run {run + 1} of {options.runs}: {workload.name}, {workload.title}", flush=True)
            figures = workload.run(env, options.quick)
            results[workload].append(figures)
            for name, value in figures.items():
                print(f"  {name}: {value:,.4g}", flush=True)
            load = os.getloadavg()[0]
            print(f"  ({time.perf_counter() - began:.0f} s, load average {load:.1f})", flush=True)
        write(options.out, {**about, "peers": versions(env), "quick": options.quick}, results)
    return results


def draw(path: Path, results: dict[Workload, list[Figures]]) -> None:
    """The plot, if there is what draws it."""
    try:
        from bench.plot import plot
    except ImportError as exc:
        print(f"no plot: {exc}; pip install 'liteflow.core[bench]' gets it", file=sys.stderr)
        return
    plot(path, results)


def _stop(*_: object) -> NoReturn:
    # Where the interrupt lands in code that takes it for its own, the process ends all the same, and with it
    # those that it has started.
    late = threading.Timer(10, os._exit, (INTERRUPTED,))
    late.daemon = True
    late.start()
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    for sign in (signal.SIGINT, signal.SIGTERM):  # so that the processes are ended then too
        signal.signal(sign, _stop)  # shells have what they start in the background ignore SIGINT
    servers = Servers()
    try:
        print("starting the servers", flush=True)
        mongo = os.environ.get("LITEFLOW_TEST_MONGO") or servers.mongo_replica()
        env = Env(mongo, servers.amqp(), servers.redis(), options.peers, options.steps)
        results = measure(env, options)
        draw(options.out / "results.svg", results)
        for workload, runs in results.items():
            print(f"\n{table(workload, runs)}")
        print(f"\n{summary(results)}\n\nwritten to {options.out}")
        return 0
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return INTERRUPTED
    finally:
        servers.close()


if __name__ == "__main__":
    sys.exit(main())
