"""A worker process: runs workflows of the definitions it has, and serves the AMQP commands."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from liteflow.core.commands import CommandServer
from liteflow.core.settings import Settings
from liteflow.worker.gateway import Gateway
from liteflow.worker.loading import load_workflows
from liteflow.worker.process import run_until, stop_by_signal, when_available
from liteflow.worker.wiring import Servers

log = logging.getLogger("liteflow.worker")

COMMANDS_AT_ONCE = 96
"""Commands that one worker handles side by side. What they store is stored together, so many cost little."""


def run_worker(
    servers: Servers, settings: Settings, targets: Sequence[str], *, scheduler: bool = False
) -> bool:
    """Work until SIGTERM or SIGINT, then drain. False if running bodies had to be left behind.

    With `scheduler` it wakes what is due, too, so that no other process is needed.
    """
    host = servers.host(settings, scheduler=scheduler)
    for target in targets:
        load_workflows(host, target)
    stop = stop_by_signal()
    try:
        if when_available(host.start, host.stop, stop):
            commands = None
            if isinstance(host.queue, CommandServer):
                commands = host.queue.serve_commands(Gateway(host).handle, COMMANDS_AT_ONCE)
            else:
                log.info("the queue carries no commands: workflows are started by clients of the store")
            names = ", ".join(f"{d.id} version {d.version}" for d in host.registry.get_all())
            ready = f"ready: {settings.concurrency} slots for {names}"
            run_until(stop, host.persistence.definitions, ready)
            if commands is not None:
                commands.cancel()
    finally:
        finished = host.stop()
    log.info("stopped" if finished else "stopped; steps that still ran will run again elsewhere")
    return finished
