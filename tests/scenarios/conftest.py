from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from combinations import ALWAYS, CLOUDS, COMBINATIONS, Providers

from liteflow.core import Workflow, WorkflowHost, configure_workflow_host
from liteflow.core.providers import LockProvider, PersistenceProvider, QueueProvider

Hosts = Callable[..., WorkflowHost]
Trio = tuple[PersistenceProvider | None, QueueProvider | None, LockProvider | None]

A_CENTURY = 100 * 365 * 24 * 3600.0

SHARE, CLOUD_SHARE = 60, 300
"""Of so many scenarios one runs over each other combination, since all over all take hours: most of that over
the emulators of clouds, where a message takes up to a second.
``LITEFLOW_TEST_SCENARIOS`` names combinations that run whole, and alone; ``all`` stands for all of them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not this time's. Which scenarios share a combination is always the same."""
    named = os.environ.get("LITEFLOW_TEST_SCENARIOS", "").split()
    if any("::" in argument for argument in config.invocation_params.args):
        return  # somebody names a test and means it
    kept, left = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        over = callspec.params.get("make_host") if callspec is not None else None
        mine = Path(item.path).parent == Path(__file__).parent and over is not None
        if not mine or named == ["all"]:
            wanted = True
        elif named:
            wanted = over in named
        else:
            share = CLOUD_SHARE if CLOUDS.keys() & over.split("+") else SHARE
            wanted = over in ALWAYS or crc32(item.nodeid.encode()) % share == 0
        (kept if wanted else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.fixture(params=COMBINATIONS)
def make_host(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> Iterator[Hosts]:
    """Makes started hosts on the same servers. On memory there can be one only."""
    hosts: list[WorkflowHost] = []
    providers = Providers(request.param, request.getfixturevalue, tmp_path, prefix)

    def make(*workflows: type[Workflow] | Workflow, **options: Any) -> WorkflowHost:
        host = configure_workflow_host(*providers.make(), **{**providers.options, **options})
        for workflow in workflows:
            host.register_workflow(workflow)
        hosts.append(host)
        host.start()
        return host

    yield make
    for host in hosts:
        host.stop(timeout=5)
    providers.drop()
