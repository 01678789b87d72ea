"""Runs LiteFlow's command line in a process whose wall clock libfaketime shifts.

Under libfaketime 0.9.10 `clock_nanosleep`, by which Python sleeps, refuses each call; waiting works.
"""

from __future__ import annotations

import threading
import time

from liteflow.worker.cli import main


def sleep(seconds: float) -> None:
    """What `time.sleep` does."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    threading.Event().wait(seconds)


if __name__ == "__main__":
    time.sleep = sleep
    main()
