"""Who may import whom: core nobody, providers core only, the worker reaches providers by URL only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PORTIONS = {
    "liteflow.core": ROOT / "liteflow" / "core",
    "liteflow.providers": ROOT / "providers" / "liteflow" / "providers",
    "liteflow.worker": ROOT / "worker" / "liteflow" / "worker",
}
DRIVERS = {
    *("pymongo", "bson", "gridfs", "pika", "redis", "click"),
    *("sqlalchemy", "alembic", "psycopg", "pymysql", "sqlite3"),
    *("azure", "requests", "boto3", "botocore"),
}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PORTIONS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *[part for part in parts if part != "__init__"]])
            found[name] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """All modules that a module imports by name, TYPE_CHECKING or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            assert not any(alias.name == "*" for alias in node.names), f"{name}: star import"
            module = node.module or ""
            found |= {f"{module}.{a.name}" if f"{module}.{a.name}" in MODULES else module for a in node.names}
    return found


def test_the_modules_are_found() -> None:
    assert {"liteflow.core.engine", "liteflow.worker.cli", "liteflow.providers.mongo"} <= MODULES.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_arrows_point_to_core(name: str) -> None:
    for target in imports(name):
        if name.startswith("liteflow.core"):
            assert not target.startswith(("liteflow.providers", "liteflow.worker"))
            assert target.partition(".")[0] not in DRIVERS
        elif name.startswith("liteflow.providers"):
            own = ".".join(name.split(".")[:3])
            if target.startswith("liteflow."):
                assert target.startswith(("liteflow.core", own))
        else:
            assert not target.startswith("liteflow.providers"), "wiring.py finds providers by entry points"


@pytest.mark.parametrize("name", sorted(n for n in MODULES if n.startswith("liteflow.core.engine")))
def test_the_engine_is_pure(name: str) -> None:
    todo, seen = [name], set()
    while todo:
        current = todo.pop()
        seen.add(current)
        if current in MODULES and current.rpartition(".")[2] in ("engine", "draft", "transition", "inputs"):
            assert not imports(current) & {"time", "threading", "logging", "random", "queue", "asyncio"}
            todo += [target for target in imports(current) if target not in seen]


def test_there_is_no_circle() -> None:
    graph = {name: {target for target in imports(name) if target in MODULES} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in graph[name] - {name}:
                visit(target, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())
