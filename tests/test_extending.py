"""The worked example of docs/extending.md: built as a package, installed into an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "filelock"
PARTS = ("liteflow", "providers", "worker", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


class Environment:
    """A virtualenv in which only what is installed can be imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=True)

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        variables = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        return subprocess.run(
            [str(self.folder / "bin" / "python"), *arguments],
            cwd=cwd or self.folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def install(self, *packages: str) -> None:
        done = self.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
        assert done.returncode == 0, done.stderr

    def liteflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "liteflow.worker", *arguments)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """LiteFlow without any driver, and the sample's package."""
    folder = tmp_path_factory.mktemp("extending")
    for part in PARTS:  # so that building leaves nothing in the checkout
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / "liteflow" / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / "liteflow" / part)
    shutil.copytree(SAMPLE, folder / "sample", ignore=shutil.ignore_patterns("__pycache__", "build"))
    made = Environment(folder / "venv")
    made.install(f"{folder / 'liteflow'}[worker]", "pytest>=8", str(folder / "sample"))
    return made


@pytest.mark.timeout(300)
def test_its_package_passes_the_suite(environment: Environment) -> None:
    done = environment.run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", str(environment.folder.parent / "sample" / "tests")
    )
    assert done.returncode == 0, done.stdout
    assert "11 passed" in done.stdout


def test_it_is_listed_and_found_by_its_url(environment: Environment, tmp_path: Path) -> None:
    items = json.loads(environment.liteflow("providers", "--json", "--kind", "lock").stdout)["items"]
    mine = next(item for item in items if item["scheme"] == "filelock")
    assert mine == {
        "kind": "lock",
        "scheme": "filelock",
        "provider": "liteflow_filelock:FileLockProvider",
        "package": "liteflow-filelock",
        "needs": {},
        "installed": True,
    }
    done = environment.liteflow("providers", f"filelock://{tmp_path}")
    assert done.stdout == f"lock filelock://: files in {tmp_path}/liteflow\n", done.stderr
    done = environment.liteflow("providers", "filelock://nowhere")
    assert done.returncode == 1
    assert (
        done.stderr == "Error: lock filelock://: the URL is not valid; it is like filelock:///var/lib/shop\n"
    )


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("mongodb://h/d", "mongo"),
        ("amqp://h/", "rabbitmq"),
        ("redis://h/0", "redis"),
        ("sqlite:///x.db", "sql"),
        ("postgresql://h/d", "postgres"),
        ("mariadb://h/d", "mysql"),
    ],
)
def test_each_driver_that_is_not_installed_is_named(environment: Environment, url: str, extra: str) -> None:
    done = environment.liteflow("providers", url)
    assert done.returncode == 1
    for line in done.stderr.splitlines():
        assert line.endswith(f"pip install 'liteflow.core[{extra}]'"), line
    assert f"pip install 'liteflow.core[{extra}]'" in environment.liteflow("providers").stdout


def test_a_worker_without_a_driver_ends_with_one_line(environment: Environment) -> None:
    done = environment.liteflow("scheduler", "--store", "postgresql://h/d")
    assert done.returncode == 1
    assert "--store: the driver for postgresql:// is not installed" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_page_shows_the_package_as_it_is() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    for name in ("pyproject.toml", "liteflow_filelock/lock.py", "tests/test_lock.py"):
        assert (SAMPLE / name).read_text() in page, name
