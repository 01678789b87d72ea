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
    if not when_available(host.open, host.stop, stop):
        return
    presence = Presence(host.persistence, leading=lambda: poller.leads)
    poller = Poller(host.persistence, host.queue, host.lock, settings, leads_now=presence.nudge)
    try:
        presence.start()
        poller.start()
        run_until(stop, host.persistence.next_due, "ready: scheduling")
    finally:
        presence.stop()
        poller.stop()
        host.stop()
    log.info("stopped")
