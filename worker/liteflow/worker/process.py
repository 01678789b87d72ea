"""What worker and scheduler processes share: signals, the health file, a clean end."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from liteflow.core.errors import UnavailableError
from liteflow.core.retry import backoff

log = logging.getLogger("liteflow.process")

HEALTH_FILE = "/tmp/liteflow-health"
HEALTH_INTERVAL = 5.0


def health_file() -> Path:
    """The file whose time of change tells that the process in this container is well."""
    return Path(os.environ.get("LITEFLOW_HEALTH_FILE") or HEALTH_FILE)


def healthy(within: float) -> bool:
    """True if the health file was touched in the last `within` seconds."""
    try:
        return time.time() - health_file().stat().st_mtime <= within
    except OSError:
        return False


def stop_by_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set from now on; the second one ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(130)
        log.info("%s: finishing what runs; once more ends at once", signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def when_available(begin: Callable[[], object], undo: Callable[[], object], stop: threading.Event) -> bool:
    """Do what needs the servers, again and again until they are all there. `undo` cleans up after a try.

    So it does not matter whether servers or processes are started first. False if `stop` comes before.
    """
    for pause in backoff(0.2, 5.0):
        if stop.is_set():
            break
        try:
            begin()
            return True
        except UnavailableError as exc:
            log.warning("can't begin yet: %s; trying again in %.1f s", exc, pause)
            undo()
            stop.wait(pause)
    return False


def run_until(stop: threading.Event, alive: Callable[[], object], ready: str) -> None:
    """Log `ready`, then block until `stop` is set.

    `alive` is called now and then; as long as it returns without an error the health file is touched.
    """
    log.info(ready)
    while not stop.is_set():
        try:
            alive()
            health_file().touch()
        except Exception as exc:
            log.warning("not well: %s", exc)
        stop.wait(HEALTH_INTERVAL)
