"""Runs benchmarks: python -m bench [NAME ...]

Starts its own RabbitMQ, Redis and MongoDB (a replica set of one, majority and journaled writes), unless
LITEFLOW_TEST_AMQP, _REDIS and _MONGO name some. The workloads are run in turn, again and again, so that what
disturbs the machine disturbs them alike. Results go to --out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bench import chains, embedded, events, fanout, growth, latency, many, memory, report, scale, submit
from bench.harness import ROOT, Env, Servers, Workload

ALL: list[Workload] = [
    module.WORKLOAD
    for module in (chains, latency, events, embedded, growth, many, fanout, submit, scale, memory)
]
LONG = {"memory"}
"""Runs only when it is asked for by name."""

PEERS = ("restate", "dbos")


def main() -> int:
    names = {workload.name.lower(): workload for workload in ALL}
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join(w.name for w in ALL) + "; default all but memory"
    )
    parser.add_argument("--runs", type=int, default=5, help="how often each is run (5)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="folder of the results")
    parser.add_argument("--peers", default="", help=f"other engines, by commas: {', '.join(PEERS)}")
    options = parser.parse_args()
    unknown = [name for name in options.names if name.lower() not in names]
    peers = frozenset(filter(None, options.peers.split(",")))
    if unknown or not peers <= set(PEERS):
        parser.error(f"unknown: {', '.join([*unknown, *sorted(peers - set(PEERS))])}")
    chosen = [names[name.lower()] for name in options.names] or [w for w in ALL if w.name not in LONG]
    servers = Servers()
    try:
        print("starting the servers", flush=True)
        env = Env(
            os.environ.get("LITEFLOW_TEST_MONGO") or servers.mongo_replica(),
            servers.amqp(),
            servers.redis(),
            peers,
        )
        about = report.machine(env)
        results: dict[str, report.Runs] = {workload.name: {} for workload in chosen}
        for run in range(options.runs):
            for workload in chosen:
                began = time.perf_counter()
                print(f"run {run + 1} of {options.runs}: {workload.name}, {workload.title}", flush=True)
                for name, value in workload.run(env, options.quick).items():
                    results[workload.name].setdefault(name, []).append(value)
                    print(f"  {name}: {value:,.4g}", flush=True)
                print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
            report.write(options.out, about, chosen, results)
        print()
        for workload in chosen:
            print(report.table(workload, results[workload.name]), end="\n\n")
        print(f"written to {options.out}")
        return 0
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    finally:
        servers.close()


if __name__ == "__main__":
    sys.exit(main())
