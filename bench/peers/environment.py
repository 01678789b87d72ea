"""Virtualenvs for the peers, made when first needed and kept in the cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Env, Figures
from bench.processes import CommandError, output

DIES_WITH_PARENT = "import ctypes; ctypes.CDLL(None).prctl(1, 9)\n"
"""First line of code that a peer runs in child processes of its own, so that none of them is left behind."""


class PeerError(RuntimeError):
    """A peer can't be had here; says why, and what to do."""


@dataclass(frozen=True)
class Peer:
    """`rates`: chains a second, by series whose names begin with `title`. `version`: of what, in one line."""

    title: str
    rates: Callable[[Env, int], Figures]
    version: Callable[[Env], str]


def python(env: Env, name: str, *packages: str) -> Path:
    """The interpreter of an environment with these packages; made if it is not there."""
    folder = env.cache / name
    interpreter, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return interpreter
    print(f"  installing {' '.join(packages)}", flush=True)
    env.cache.mkdir(parents=True, exist_ok=True)
    try:
        output([sys.executable, "-m", "venv", "--clear", str(folder)], folder=env.cache)
        # Isolated (-I): what a PYTHONPATH leads to is not the peer's.
        output([str(interpreter), "-I", "-m", "pip", "install", *packages], folder=env.cache, seconds=600)
        installed = output([str(interpreter), "-I", "-m", "pip", "freeze"], folder=env.cache)
    except CommandError as exc:
        raise PeerError(f"{' '.join(packages)} can't be installed: {exc}") from exc
    ready.write_text(installed)
    return interpreter


def version(env: Env, name: str, *packages: str) -> str:
    """What was installed of these packages."""
    ready = env.cache / name / "ready"
    lines = ready.read_text().splitlines() if ready.exists() else []
    return ", ".join(line for line in lines if line.partition("==")[0].lower().replace("-", "_") in packages)


def processes(number: int) -> str:
    """As in the name of a series."""
    return f"{number} process{'' if number == 1 else 'es'}"
