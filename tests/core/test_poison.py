"""What kills its process each time is found out with a queue in the process too, which tells of no deaths."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLACES = ["first", "second", "retry", "event", "output", "condition"]


@pytest.mark.parametrize("place", PLACES)
def test_a_step_that_kills_the_process_is_suspended_after_three_deaths(tmp_path: Path, place: str) -> None:
    log = tmp_path / "log"
    ends: list[int] = []
    while len(ends) < 6 and 0 not in ends:
        process = subprocess.run(
            [sys.executable, "-m", "deadly_process", str(tmp_path / "store.db"), str(log), place],
            capture_output=True,
            text=True,
            timeout=90,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        ends.append(process.returncode)
    assert ends == [1, 1, 1, 0], process.stderr
    assert log.read_text().split() == ["2" if place == "retry" else "1"] * 3
    assert process.stdout.startswith("poison: the process that ran step")
