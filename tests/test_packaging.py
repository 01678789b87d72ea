from __future__ import annotations

import configparser
from importlib.metadata import entry_points
from pathlib import Path

import liteflow.core

ROOT = Path(__file__).resolve().parent.parent
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg")
FOLDERS = {
    "liteflow": ROOT / "liteflow",
    "liteflow.providers": ROOT / "providers" / "liteflow" / "providers",
    "liteflow.worker": ROOT / "worker" / "liteflow" / "worker",
}


def packages() -> set[str]:
    found = set()
    for name, folder in FOLDERS.items():
        for init in folder.rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(folder).parts]))
    return found


def test_every_package_is_listed() -> None:
    assert set(SETUP["options"]["packages"].split()) == packages()


def test_namespace_folders_stay_namespaces() -> None:
    for folder in ("liteflow", "providers/liteflow", "providers/liteflow/providers", "worker/liteflow"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_each_package_is_typed() -> None:
    for name in ("core", "core/testing"):
        assert (ROOT / "liteflow" / name / "py.typed").exists()
    for name in ("aws", "azure", "mongo", "rabbitmq", "redis", "sql"):
        assert (ROOT / "providers" / "liteflow" / "providers" / name / "py.typed").exists()
    assert (ROOT / "worker" / "liteflow" / "worker" / "py.typed").exists()


def test_what_is_exported_exists_and_is_sorted() -> None:
    names = liteflow.core.__all__
    assert all(hasattr(liteflow.core, name) for name in names)
    assert list(names) == sorted(names)


def test_entry_points_load() -> None:
    for group in ("liteflow.persistence", "liteflow.queue", "liteflow.lock"):
        found = entry_points(group=group)
        assert found
        for entry in found:
            assert callable(entry.load())
    (command,) = (e for e in entry_points(group="console_scripts") if e.name == "liteflow")
    assert callable(command.load())
