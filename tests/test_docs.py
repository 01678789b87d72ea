"""Every example of the README and of docs/ runs and prints what the page says; every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from liteflow.worker.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
CONSOLE = [
    line[2:]
    for page in PAGES
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.S)
    for line in block.splitlines()
]

EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.S)
"""A block of Python and, if there is one, the block of what it prints."""


@dataclass(frozen=True)
class Example:
    """One block of Python in docs/, with what it is to print."""

    page: Path
    line: int
    source: str
    prints: str


def examples() -> Iterator[Example]:
    for page in PAGES[1:]:
        text = page.read_text()
        for found in EXAMPLE.finditer(text):
            line = text[: found.start(1)].count("\n")
            yield Example(page, line, found[1], found[2] or "")


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.M)
    }


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


@pytest.mark.parametrize("example", [pytest.param(e, id=f"{e.page.stem}:{e.line}") for e in examples()])
def test_examples_print_what_the_page_says(
    example: Example, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert example.prints, "an example prints something that the reader can compare"
    module = types.ModuleType("example")  # classes look their module up
    monkeypatch.setitem(sys.modules, "example", module)
    source = "\n" * example.line + example.source  # so that a traceback names the line of the page
    exec(compile(source, str(example.page), "exec"), module.__dict__)
    assert capsys.readouterr().out == example.prints


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem) for page in (*PAGES, ROOT / "SECURITY.md")]
)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        if name.startswith("http"):
            continue
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), target
        assert not anchor or anchor in headings(to), target


def test_the_index_names_all_pages() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES[1:]:
        assert page.name == "index.md" or f"({page.name})" in index


@pytest.mark.parametrize(
    "line", sorted({line for line in CONSOLE if "liteflow " in line and "pip" not in line})
)
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
