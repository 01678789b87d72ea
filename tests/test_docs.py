"""Every code block of the README runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from liteflow.worker.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
CONSOLE = [
    line[2:] for block in re.findall(r"```console\n(.*?)```", README, re.S) for line in block.splitlines()
]


def test_the_first_workflow_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(PYTHON[0], {})
    assert capsys.readouterr().out.splitlines() == ["Hello, Ada! (e-mail)", "COMPLETE Hello, Ada"]


def test_the_host_on_servers_is_made(mongo_url: str, amqp_url: str, redis_url: str, prefix: str) -> None:
    source = PYTHON[1]
    for shown, real in (
        ("mongodb://localhost:27017/liteflow", mongo_url),
        ("amqp://guest:guest@localhost:5672/", amqp_url),
        ("redis://localhost:6379/0", redis_url),
    ):
        assert shown in source
        source = source.replace(f'"{shown}"', f'"{real}", prefix={prefix!r}')
    space: dict[str, Any] = {}
    exec(source, space)
    with space["host"] as host:
        assert host.list_workflows().items == []
    assert len(PYTHON) == 2


@pytest.mark.parametrize("line", [line for line in CONSOLE if "liteflow " in line and "pip" not in line])
def test_liteflow_commands_exist_with_these_options(line: str) -> None:
    words = shlex.split(line)
    words = words[words.index("liteflow") + 1 :] if "liteflow" in words else words
    if line.startswith("docker compose") and " exec " not in line:
        return
    result = CliRunner().invoke(main, [words[0], "--help"])
    assert result.exit_code == 0
    for word in words:
        if word.startswith("--"):
            assert word in result.output


@pytest.mark.parametrize("line", [line for line in CONSOLE if line.startswith("make ")])
def test_make_targets_exist(line: str) -> None:
    assert f"\n{line.split()[1]}: " in (ROOT / "Makefile").read_text()


def test_the_sample_reads_its_orders() -> None:
    from samples.orders import Order, read_orders

    orders = read_orders()
    assert len(orders) == 1000
    assert all(order.lines for order in orders)
    assert [step.id for step in Order().definition().steps][:2] == ["ReserveStock", "ChargeCard"]
