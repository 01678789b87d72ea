"""A scheduler process: wakes what is due. Run two; one leads, the other takes over."""

from __future__ import annotations

import logging

from liteflow.core.poller import Poller
from liteflow.core.presence import Presence
from liteflow.core.settings import Settings
from liteflow.worker.process import run_until, stop_by_signal, when_available
from liteflow.worker.wiring import Servers

log = logging.getLogger("liteflow.scheduler")


def run_scheduler(servers: Servers, settings: Settings) -> None:
    """Schedule until SIGTERM or SIGINT."""
    host = servers.host(settings, scheduler=False)
    stop = stop_by_signal()
    begun: list[Presence | Poller] = []

    def begin() -> None:
        host.open()
        presence = Presence(host.persistence, leading=lambda: poller.leads)
        poller = Poller(host.persistence, host.queue, host.lock, settings, leads_now=presence.nudge)
        for part in (presence, poller):
            begun.append(part)
            part.start()

    def end() -> None:
        while begun:
            begun.pop().stop()
        host.stop()

    try:
        if when_available(begin, end, stop):
            run_until(stop, host.persistence.next_due, "ready: scheduling")
    finally:
        end()
    log.info("stopped")
