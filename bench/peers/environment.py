"""Virtualenvs for the peers, made when first needed and kept in the cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.harness import Env


def python(env: Env, name: str, *packages: str) -> Path | None:
    """The interpreter of an environment with these packages; None, and a word why, if it can't be had."""
    folder = env.cache / name
    interpreter, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return interpreter
    try:
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True
        )
        install = [str(interpreter), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, check=True, capture_output=True, timeout=600)
    except (subprocess.SubprocessError, OSError) as exc:
        return missing(name, f"{' '.join(packages)} can't be installed: {exc}")
    ready.touch()
    return interpreter


def missing(name: str, why: str) -> None:
    """Say why a peer is left out."""
    print(f"  {name} is left out: {why}", flush=True)
