"""Each sample runs as its own first lines say, and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRINTS = {
    "hello": ["Hello world", "Goodbye"],
    "data": ["adding", "the sum is 5", "value3 = 5"],
    "events": ["waiting for event1", "got hello"],
    "for_each": ["Hello world", "doing stuff...abc", "doing stuff...def", "doing stuff...xyz", "Goodbye"],
    "while_loop": ["Hello world", "doing stuff... 1", "doing stuff... 2", "doing stuff... 3", "Goodbye"],
    "if_condition": ["value1 is 2", "Goodbye", "value1 is 4", "doing stuff...", "Goodbye"],
}


pytestmark = pytest.mark.timeout(300)  # 1,000 orders go to the disk step by step


def run(name: str) -> list[str]:
    command = [sys.executable, "-m", f"samples.{name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=270)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_every_sample_is_here() -> None:
    names = {path.stem for path in (ROOT / "samples").glob("*.py")}
    assert names == {*PRINTS, "orders", "__init__"}


@pytest.mark.parametrize("name", PRINTS)
def test_sample(name: str) -> None:
    assert run(name) == PRINTS[name]


def test_a_thousand_orders() -> None:
    lines = run("orders")
    assert "  orders      1000 COMPLETE" in lines
    assert any(line.startswith("  reminders   2000,") for line in lines)
