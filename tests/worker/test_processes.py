"""Worker and scheduler processes whose servers are in trouble while they begin."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    Settings,
    SingleNodeQueueProvider,
    WorkflowHost,
)
from liteflow.core.errors import StoreUnavailableError
from liteflow.core.survey import ProcessRecord
from liteflow.worker import scheduler, worker

HERE = Path(__file__).parent


class SteppingDown(MemoryPersistenceProvider):
    """Has no primary when the process tells of itself for the first time, after it was opened."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self.beats = 0
        self._stop = stop

    def beat(self, process: ProcessRecord) -> None:
        self.beats += 1
        if self.beats == 1:
            raise StoreUnavailableError("another one is to be the primary")
        super().beat(process)
        self._stop.set()


class Servers:
    def __init__(self, store: MemoryPersistenceProvider) -> None:
        self.store = store

    def host(self, settings: Settings, **options: Any) -> WorkflowHost:
        return WorkflowHost(self.store, SingleNodeQueueProvider(), LocalLockProvider(), settings, **options)


@pytest.mark.parametrize("kind", ["worker", "scheduler"])
def test_a_process_waits_for_a_store_that_fails_it_while_it_begins(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found by a chaos run: a scheduler that began while a primary stepped down ended with an error."""
    stop = threading.Event()
    monkeypatch.setenv("LITEFLOW_HEALTH_FILE", str(tmp_path / "health"))
    monkeypatch.chdir(HERE)
    store = SteppingDown(stop)
    servers: Any = Servers(store)
    if kind == "worker":
        monkeypatch.setattr(worker, "stop_by_signal", lambda: stop)
        assert worker.run_worker(servers, Settings(), ["cluster_workflows"])
    else:
        monkeypatch.setattr(scheduler, "stop_by_signal", lambda: stop)
        scheduler.run_scheduler(servers, Settings())
    assert store.beats >= 2
    assert not store.processes()
