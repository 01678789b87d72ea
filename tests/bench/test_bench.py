"""Each workload runs in its quick form, and what it gives is stored as valid JSON, tables and a plot."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import Servers, wait_for

from bench.__main__ import ALL, main, parse
from bench.harness import Env, Figures, Target, Workload, percentile, rate
from bench.report import machine, medians, ratios, summary, table, verdicts, write

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "bench" / "README.md").read_text()


@pytest.fixture(scope="session")
def env(servers: Servers) -> Env:
    return Env(servers.mongo_replica(), servers.amqp(), servers.redis())


@pytest.mark.parametrize("workload", ALL, ids=lambda workload: workload.name)
def test_a_quick_run_gives_figures_that_can_be_stored(env: Env, workload: Workload, tmp_path: Path) -> None:
    figures = workload.run(env, True)
    write(tmp_path, {**machine(env), "peers": {}, "quick": True}, {workload: [figures]})
    stored = json.loads((tmp_path / "results.json").read_text())
    kept = stored["workloads"][workload.name]
    assert kept["runs"] == [figures]
    assert all(math.isfinite(value) for value in figures.values())
    assert len(kept["targets"]) == len(workload.targets)
    assert set(workload.plotted) <= set(figures)
    assert stored["servers"].keys() == {"mongodb", "rabbitmq", "redis"}
    assert stored["revision"] and stored["machine"]["cpus"] >= 1
    for name in figures:
        assert name in (tmp_path / "results.md").read_text()


def workload(*targets: Target, run: Callable[[Env, bool], Figures] = lambda env, quick: {}) -> Workload:
    return Workload("X", "a thing", "1/s", run, targets, references={"ours": "theirs,"})


def test_ratios_are_of_medians_to_the_best_reference() -> None:
    runs = [
        {"ours": 10.0, "theirs, a": 4.0, "theirs, b": 5.0},
        {"ours": 30.0, "theirs, a": 4.0, "theirs, b": 5.0},
        {"ours": 20.0, "theirs, a": 4.0, "theirs, b": 5.0},
    ]
    assert medians(runs)["ours"] == 20
    assert ratios(workload(), runs) == {"ours": 4.0}
    assert "| ours " in table(workload(), runs)


def test_a_target_is_reached_or_not_or_was_not_measured() -> None:
    at_least = Target("rate", lambda f: f["ours"] / f.get("theirs, a", math.nan), 2.0, 4.0)
    at_most = Target("time", lambda f: f["ours"], 10.0, 5.0, least=False)
    runs: list[Figures] = [{"ours": 11.0, "theirs, a": 5.0}, {"ours": 13.0, "theirs, a": 5.0}]
    first, second = verdicts(workload(at_least, at_most), runs)
    assert first["reached"] is True and (first["least"], first["most"]) == (2.2, 2.6)
    assert second["reached"] is False and second["value"] == 12
    (unknown,) = verdicts(workload(at_least), [{"ours": 11.0}])
    assert unknown["reached"] is None and unknown["value"] is None
    text = summary({workload(at_least, at_most): runs})
    assert "reached" in text and "**not reached**" in text
    assert "not measured" in summary({workload(at_least): [{"ours": 11.0}]})


def test_a_series_that_one_run_lacks_is_no_error() -> None:
    needs = Target("needs", lambda f: f["theirs, a"], 1.0, 1.0)
    runs: list[Figures] = [{"ours": 1.0}, {"ours": 2.0, "theirs, a": 3.0}]
    assert verdicts(workload(needs), runs)[0]["value"] == 3.0
    assert medians(runs) == {"ours": 1.5, "theirs, a": 3.0}


def test_a_rate_counts_from_the_first_step() -> None:
    answers = iter([0, 40, 100])
    asked: list[bool] = []
    found = rate(lambda: bool(asked) or asked.append(True) is not None, lambda: next(answers), 100)
    assert found > 0


def test_a_rate_that_never_comes_about_says_how_far_it_came() -> None:
    with pytest.raises(TimeoutError, match="3 of 10"):
        rate(lambda: True, lambda: 3, 10, seconds=0.05)


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(200)], 0.99) == 198.0


@pytest.mark.parametrize("arguments", [["W99"], ["W1", "--peers", "nobody"]])
def test_unknown_names_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert f"unknown: {arguments[-1]}" in capsys.readouterr().err


def test_the_command_writes_json_tables_and_a_plot(
    env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LITEFLOW_TEST_MONGO", env.mongo)
    monkeypatch.setenv("LITEFLOW_TEST_AMQP", env.amqp)
    monkeypatch.setenv("LITEFLOW_TEST_REDIS", env.redis)
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main(["W2", "timers", "--quick", "--runs", "2", "--peers", "", "--out", str(tmp_path)]) == 0
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert {name: len(kept["runs"]) for name, kept in stored["workloads"].items()} == {"W2": 2, "timers": 2}
    assert ElementTree.parse(tmp_path / "results.svg").getroot().tag.endswith("svg")
    printed = capsys.readouterr().out
    assert "run 2 of 2: timers" in printed and "### Targets" in printed


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_what_is_interrupted_leaves_no_process(env: Env, tmp_path: Path, sign: signal.Signals) -> None:
    urls = {"MONGO": env.mongo, "AMQP": env.amqp, "REDIS": env.redis}
    environment = {**os.environ, **{f"LITEFLOW_TEST_{name}": url for name, url in urls.items()}}
    command = [sys.executable, "-m", "bench", "W2", "--out", str(tmp_path)]
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    try:
        children = wait_for(
            "worker and scheduler run", lambda: len(found := descendants(running.pid)) > 1 and found
        )
        running.send_signal(sign)
        assert running.wait(30) == 130
    finally:
        running.kill()
        running.communicate()
    wait_for("they have ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 10)


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def test_the_readme_tells_of_each_workload() -> None:
    for one in ALL:
        assert f"| `{one.name}` |" in README
