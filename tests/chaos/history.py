"""What the processes of a chaos run write down: one line of JSON for each thing that happened.

A line is written by one call to the system, so it is there when the process is killed right after it.
`mono` is the machine's monotonic clock, the same for all processes, also for one whose wall clock is wrong.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from liteflow.core import StepExecutionContext

FOLDER, SLOT = "CHAOS_HISTORY", "CHAOS_SLOT"
"""Environment variables: where the histories are, and the name of the process."""

BEAT, GAP = 0.25, 1.0
"""A process looks at the clock so often, in seconds, and writes down when it was away for that long."""


class History:
    """The history of this process."""

    def __init__(self, folder: Path, slot: str) -> None:
        self.slot = slot
        name = folder / f"history-{slot}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl"
        self._file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @classmethod
    def of_environment(cls) -> History:
        """Where the environment says."""
        return cls(Path(os.environ[FOLDER]), os.environ[SLOT])

    def write(self, what: str, **fields: Any) -> None:
        """Append a line."""
        line = {"what": what, "slot": self.slot, "mono": time.monotonic(), "wall": time.time(), **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def note_gaps(self) -> None:
        """Write down, from now on, when this process did not get to run: it was stopped, or starved."""
        threading.Thread(target=self._beat, name="chaos-beat", daemon=True).start()

    def _beat(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(BEAT)
            now = time.monotonic()
            if now - before > GAP:
                self.write("gap", since=before, until=now)
            before = now

    def begin(self, context: StepExecutionContext, part: int = 1, **more: Any) -> str:
        """A body has begun; returns the name of this run. `part` counts the calls of a re-entrant step."""
        run = uuid.uuid4().hex
        self.write(
            "begin",
            run=run,
            instance=context.workflow.id,
            workflow=context.workflow.workflow_definition_id,
            pointer=context.execution_pointer.id,
            step=context.step.id,
            attempt=context.attempt,
            part=part,
            **more,
        )
        return run

    def end(self, run: str) -> None:
        """The body of a run is about to return."""
        self.write("end", run=run)


def read(folder: Path) -> list[dict[str, Any]]:
    """All that was written in a folder, in order of time. A line that a kill has cut is left out."""
    lines = []
    for path in folder.glob("history-*.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return sorted(lines, key=lambda line: float(line["mono"]))
