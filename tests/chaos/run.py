"""Hurts a cluster of real servers and processes, and checks that LiteFlow's promises have held.

    python -m chaos.run [--seconds 600] [--seed n]

Exit code 0: no promise was broken. 1: some were; the folder with all logs and histories is kept. 2: the
run itself failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chaos import workflows
from chaos.evidence import Evidence
from chaos.faults import PRODUCERS, SCHEDULERS, WORKERS, plan
from chaos.fleet import Fleet
from chaos.gathering import gather
from chaos.nemesis import Nemesis, missing
from chaos.promises import PROMISES, Violation, broken

from liteflow.core import Workflow

log = logging.getLogger("chaos")

NOT_ENDED = {"status": {"$lt": 2}}
DISK = "700m"
"""Size of the store's file system, when it is to be filled."""


@dataclass(frozen=True)
class Options:
    """How to run. `fault_pause` and `work_pause` are seconds between two faults and two starts of a thread;
    `drain` those for everything to end once nothing is hurt any more."""

    seconds: float = 600.0
    seed: int = 0
    fault_pause: float = 3.0
    work_pause: float = 1.0
    drain: float = 120.0
    members: int = 1
    disk_full: bool = False
    keep: bool = False


@dataclass
class Result:
    """What came of a run."""

    seed: int
    folder: Path
    violations: list[Violation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    evidence: Evidence | None = None


def run(options: Options) -> Result:
    """One run, from the first server's start to the verdict."""
    folder = Path(tempfile.mkdtemp(prefix=f"liteflow-chaos-{options.seed}-"))
    result = Result(options.seed, folder)
    disk = _small_disk(folder) if options.disk_full else None
    database = None if disk is None else disk / "db"
    fleet = Fleet(folder, options.seed, options.work_pause, members=options.members, db=database)
    try:
        for text in missing():
            log.warning("%s", text)
        fleet.start()
        wall = time.time() - time.monotonic()
        began = time.monotonic()
        faults = plan(options.seed, options.seconds, options.fault_pause, disk_full=options.disk_full)
        nemesis = Nemesis(fleet, faults, disk)
        nemesis.run(_ticker(fleet, nemesis, began))
        _drain(fleet, options.drain)
        names = [
            kind.id for kind in vars(workflows).values()
            if isinstance(kind, type) and issubclass(kind, Workflow) and kind is not Workflow
        ]  # fmt: skip
        (folder / "disturbances.jsonl").write_text(
            "".join(json.dumps(asdict(one)) + "\n" for one in nemesis.done)
        )
        result.evidence = gather(fleet, nemesis.done, wall, [str(name) for name in names])
        result.violations = broken(result.evidence)
        result.problems = nemesis.problems
    finally:
        fleet.close()
        if disk is not None:
            subprocess.run(["umount", str(disk)], check=True)
    if not (result.violations or result.problems or options.keep):
        shutil.rmtree(folder)
    return result


def _small_disk(folder: Path) -> Path:
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], check=True)
    return disk


def _ticker(fleet: Fleet, nemesis: Nemesis, began: float) -> Callable[[], None]:
    told = [began]

    def tick() -> None:
        fleet.revive()
        now = time.monotonic()
        if now - told[0] > 5:
            told[0] = now
            lines = sum(path.read_bytes().count(b"\n") for path in fleet.folder.glob("history-*"))
            log.info(
                "%3.0f s: %d faults, %d lines of history, %d exits",
                now - began, len(nemesis.done), lines, len(fleet.exits),
            )  # fmt: skip

    return tick


def _drain(fleet: Fleet, seconds: float) -> None:
    """Let the producers finish, everything end, and the processes, too."""
    log.info("all is healed; waiting for everything to end")
    for name in PRODUCERS:
        fleet.terminate(name, seconds)
    deadline = time.monotonic() + seconds
    with fleet.store() as client:
        instances = client["liteflow"][f"{fleet.prefix}.instances"]
        while left := instances.count_documents(NOT_ENDED):
            fleet.revive()
            if time.monotonic() > deadline:
                log.warning("%d instances have not ended", left)
                break
            time.sleep(0.5)
    for name in ("activities", *WORKERS, *SCHEDULERS):
        fleet.terminate(name)


def report(result: Result) -> str:
    """The summary, as a table, and every violation."""
    lines = [f"seed {result.seed}"]
    if result.evidence is not None:
        lines += _table(result.evidence)
        found = Counter(violation.promise for violation in result.violations)
        for promise in PROMISES:
            name = promise.__name__.replace("_", " ")
            lines.append(f"  {name:<60} {'broken ' + str(found[name]) + ' times' if found[name] else 'held'}")
    lines += [f"BROKEN {violation}" for violation in result.violations]
    lines += [f"the nemesis failed: {problem}" for problem in result.problems]
    if result.violations or result.problems:
        lines.append(f"logs and histories: {result.folder}")
    return "\n".join(lines)


def _table(evidence: Evidence) -> list[str]:
    done = Counter(one.kind for one in evidence.disturbances if not one.skipped)
    started = Counter(line["workflow"] for line in evidence.lines("started"))
    repeated = len(evidence.runs) - len({run.activation for run in evidence.runs.values()})
    published = sum(1 for _ in evidence.lines("published"))
    requested = sum(1 for _ in evidence.lines("requested"))
    return [
        "  faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(done.items())),
        "  workflows: " + ", ".join(f"{name} {count}" for name, count in sorted(started.items())),
        f"  {len(evidence.documents)} instances, {len(evidence.runs)} runs of steps ({repeated} repeated),"
        f" {sum(len(s.revisions) for s in evidence.logs.values())} commits, {published} events,"
        f" {requested} requests",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long to hurt it (600)")
    parser.add_argument("--seed", type=int, help="what decides which faults come when (at random)")
    parser.add_argument("--fault-pause", type=float, default=3, help="seconds between faults, on average (3)")
    parser.add_argument("--work-pause", type=float, default=1, help="seconds between a thread's starts (1)")
    parser.add_argument("--members", type=int, default=1, help="members of MongoDB's replica set (1)")
    parser.add_argument("--disk-full", action="store_true", help="fill the store's disk, too (needs root)")
    parser.add_argument("--keep", action="store_true", help="keep the folder in any case")
    chosen = vars(parser.parse_args())
    if chosen["disk_full"] and chosen["members"] > 1:
        parser.error("--disk-full fills the disk of the one member that there is without --members")
    if chosen["seed"] is None:
        chosen["seed"] = random.randrange(1_000_000)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    log.info("seed %d", chosen["seed"])
    try:
        result = run(Options(**chosen))
    except Exception:
        log.exception("the run itself failed")
        sys.exit(2)
    print(report(result), flush=True)
    sys.exit(2 if result.problems else 1 if result.violations else 0)


if __name__ == "__main__":
    main()
