"""Runs the checker Spin on the model `wakeup.pml`.

    python tests/protocol/check.py EVENTS=1 CRASHES=1            every interleaving of this much
    python tests/protocol/check.py EVENTS=1 WITHOUT=MARK         ... with one protection taken away
    python tests/protocol/check.py TIMERS=1 CRASHES=1 LIVENESS=1 progress, under weak fairness

What can be set is at the top of the model. Violations are shown as the acts that lead to them.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("wakeup.pml")
DEEPEST = 1_000_000
"""Statements that one run may have: far more than any has, and the checker tells if it is too few."""

ACT = re.compile(r"proc +\d+ \((\w+):\d+\) wakeup\.pml:(\d+) \(state \d+\)\t\[(.*)\]$")
LOCAL = re.compile(r"^(mine|clean|stop|unseen|early|k|same\[\w\]) = |^\(*\(?k<=|^\.\(goto\)")


@dataclass(frozen=True)
class Result:
    """What came out: the assertion that fails, or None; how many states there were, and the seconds it took.

    `complete` tells that every state was visited. `acts` are the statements that lead to the violation.
    """

    violated: str | None
    complete: bool
    states: int
    seconds: float
    acts: list[str]


def check(settings: dict[str, str], deadline: float = 100.0, megabytes: int = 4000) -> Result:
    """Search all states of the model under these settings, until the first violation.

    Stops after `deadline` seconds or with so much memory; then the result is not complete. A setting
    that the model does not know is of no effect. `FileNotFoundError` if spin or a C compiler is missing.
    """
    live = "LIVENESS" in settings
    defined = [f"-D{name}={value}" for name, value in settings.items()]
    with tempfile.TemporaryDirectory(prefix="liteflow-spin-") as folder:
        (Path(folder) / MODEL.name).write_text(MODEL.read_text())
        _run(["spin", "-a", *defined, MODEL.name], folder)
        kind = ["-DNFAIR=4"] if live else ["-DSAFETY", "-DNOCLAIM"]
        compiler = ["cc", "-O2", "-w", "-DCOLLAPSE", "-DVECTORSZ=1024", f"-DMEMLIM={megabytes}", *kind]
        _run([*compiler, "-o", "pan", "pan.c"], folder)
        began = time.monotonic()
        search = ["./pan", f"-m{DEEPEST}", "-n", *(["-a", "-f"] if live else [])]
        told = _search(["nice", "-n", "19", *search], folder, deadline)
        seconds = time.monotonic() - began
        states = re.search(r"([\d.e+]+) states, stored", told)
        failed = re.search(r"^pan:1: (.*?)(?: \(at depth \d+\))?$", told, re.M)
        complete = failed is None and states is not None
        complete = complete and not re.search(
            r"Search not completed|max search depth too small|out of memory", told
        )
        acts = _acts(_run(["spin", "-t", "-p", *defined, MODEL.name], folder)) if failed else []
    return Result(
        failed[1] if failed else None, complete, int(float(states[1])) if states else 0, seconds, acts
    )


def _run(command: list[str], folder: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}")
    return done.stdout


def _search(command: list[str], folder: str, deadline: float) -> str:
    """What the search prints; when its time is up it is interrupted, and prints how far it got."""
    searching = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        return searching.communicate(timeout=deadline)[0]
    except subprocess.TimeoutExpired:
        searching.send_signal(signal.SIGINT)
        return searching.communicate()[0] + "\nSearch not completed"
    finally:
        searching.kill()


def _acts(trail: str) -> list[str]:
    """The statements of a trail that change something that others see, each with who does it."""
    found = (ACT.search(line) for line in trail.splitlines())
    return [f"{m[1]:<10} line {m[2]:>3}: {m[3]}" for m in found if m and not LOCAL.search(m[3])]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Check the model of the protocol.")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--deadline", type=float, default=3600.0, help="seconds, default an hour")
    parser.add_argument("--megabytes", type=int, default=8000, help="memory, default 8000")
    options = parser.parse_args()
    settings = dict(one.split("=", 1) for one in options.settings)
    result = check(settings, options.deadline, options.megabytes)
    print(*result.acts, sep="\n")
    verdict = f"violated: {result.violated}" if result.violated else "nothing is violated"
    whole = "" if result.complete or result.violated else ", but not every state was visited"
    print(f"{verdict}{whole} ({result.states:,} states, {result.seconds:.1f} s)")
    raise SystemExit(0 if result.complete else 1)


if __name__ == "__main__":
    main()
