"""Worker and scheduler processes on real servers, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from servers import wait_for

from liteflow.core import Settings, WorkflowHost, WorkflowStatus
from liteflow.worker.wiring import Servers as Wiring


class Processes:
    """What runs of one prefix: started by a test with the command line, and ended with it."""

    def __init__(self, mongo_url: str, amqp_url: str, redis_url: str, prefix: str, folder: Path) -> None:
        self.wiring = Wiring(mongo_url, amqp_url, redis_url, prefix)
        self.logs = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "LITEFLOW_STORE": mongo_url,
            "LITEFLOW_QUEUE": amqp_url,
            "LITEFLOW_LOCK": redis_url,
            "LITEFLOW_PREFIX": prefix,
            "LITEFLOW_LEASE_TTL": "2",
            "LITEFLOW_POLL_INTERVAL": "1",
            "LITEFLOW_HEALTH_FILE": str(folder / "health"),
        }
        self.client: WorkflowHost = self.wiring.host(Settings()).open()

    def run(self, *arguments: str, folder: Path) -> subprocess.Popen[bytes]:
        """Start `liteflow` with these arguments, in a folder; its log is kept."""
        log = self.logs / f"{len(self.processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "liteflow.worker", *arguments],
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=folder,
            )
        self.processes.append(process)
        process.log = log  # type: ignore[attr-defined]
        return process

    def ready(self, *processes: subprocess.Popen[bytes]) -> None:
        """Return when all of them take work."""
        for process in processes:
            log: Path = process.log  # type: ignore[attr-defined]
            wait_for(f"{process.args} is ready", lambda log=log: "ready" in log.read_text(), 30)

    def count(self, status: WorkflowStatus) -> int:
        """Instances with this status."""
        total, cursor = 0, None
        while True:
            page = self.client.list_workflows(status=status, limit=1000, cursor=cursor)
            total += len(page.items)
            if page.next is None:
                return total
            cursor = page.next

    def log_text(self) -> str:
        """All that was logged."""
        return "\n".join(path.read_text() for path in sorted(self.logs.glob("*.log")))

    def close(self) -> None:
        """End all of them."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.client.stop()
