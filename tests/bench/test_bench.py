"""The benchmarks run, in their quick form, and write down what they have measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import Servers

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("names", [["W2", "W3", "W7"], ["W5", "W8"]])
def test_quick_runs(servers: Servers, tmp_path: Path, names: list[str]) -> None:
    done = bench(servers, *names, "--quick", "--runs", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["versions"]["mongodb"] and results["machine"]["cpus"]
    assert list(results["workloads"]) == names
    for workload in results["workloads"].values():
        assert workload["medians"].keys() == workload["runs"].keys()
        assert all(target["value"] is not None for target in workload["targets"])
    assert f"### {names[0]}: " in (tmp_path / "results.md").read_text()


def test_an_unknown_name(servers: Servers) -> None:
    done = bench(servers, "W77")
    assert done.returncode == 2
    assert "unknown: W77" in done.stderr


def bench(servers: Servers, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "LITEFLOW_TEST_MONGO": servers.mongo_replica(),
        "LITEFLOW_TEST_AMQP": servers.amqp(),
        "LITEFLOW_TEST_REDIS": servers.redis(),
    }
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
