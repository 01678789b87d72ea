"""Who is there: each process tells the store that it lives and what it runs, and anybody can ask."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from liteflow.core._version import __version__
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.errors import ProviderError
from liteflow.core.models import DefinitionRecord
from liteflow.core.providers import PersistenceProvider
from liteflow.core.runtime import THREADS, Runtime
from liteflow.core.survey import ProcessRecord

log = logging.getLogger("liteflow.presence")

BEAT_EVERY = 5.0
"""Seconds between two heartbeats."""

ALIVE_FOR = 15.0
"""Seconds after its last heartbeat from when a process counts as dead."""

KNOWN_FOR = 1.0
"""Seconds for which what the living processes run is not read again."""

DefinitionKey = tuple[str, int]


class Presence:
    """The heartbeat of one process.

    `definitions` gives what it runs. `leading` tells whether its scheduler leads, or None if it has none.
    `revived` is called after a heartbeat that came so late that the process may have been taken for dead.
    """

    def __init__(
        self,
        persistence: PersistenceProvider,
        definitions: Callable[[], list[WorkflowDefinition]] = list,
        *,
        leading: Callable[[], bool | None] = lambda: None,
        revived: Callable[[], None] = lambda: None,
        runtime: Runtime = THREADS,
    ) -> None:
        self._persistence = persistence
        self._definitions = definitions
        self._leading = leading
        self._revived = revived
        self._periodic = runtime.periodic("presence", self._beat_again)
        now = persistence.now()
        self._last = ProcessRecord(
            id=uuid.uuid4().hex,
            machine=socket.gethostname(),
            pid=os.getpid(),
            release=__version__,
            started=now,
            seen=now,
            until=now,
        )

    def start(self) -> None:
        """Tell of this process, before this returns and from now on."""
        self.beat()
        self._periodic.start()

    def stop(self) -> None:
        """It ends: nobody is to wait for it."""
        self._periodic.stop()
        try:
            self._persistence.forget_processes([self._last.id])
        except ProviderError as exc:
            log.info("the store does not learn that this process ends (%s); it will take it for dead", exc)

    def nudge(self) -> None:
        """Something has changed: tell it now."""
        self._periodic.nudge()

    def beat(self) -> None:
        """Store a heartbeat."""
        now, leads = self._persistence.now(), self._leading()
        beat = replace(
            self._last,
            seen=now,
            until=now + timedelta(seconds=ALIVE_FOR),
            definitions=tuple(DefinitionRecord(d.id, d.version, d.fingerprint) for d in self._definitions()),
            schedules=leads is not None,
            leads=bool(leads),
            clock_offset=clock_offset(now),
        )
        self._persistence.beat(beat)
        self._last = beat

    def _beat_again(self) -> float:
        until = self._last.until
        self.beat()
        if self._last.seen >= until:
            log.warning("this process counted as dead since %s: its heartbeat was late", until.isoformat())
            self._revived()
        return BEAT_EVERY


def clock_offset(now: datetime) -> float:
    """By how many seconds this machine's clock is ahead of the store's, which says that it is `now`."""
    return time.time() - now.timestamp()


def alive(persistence: PersistenceProvider) -> list[ProcessRecord]:
    """The processes that live."""
    now = persistence.now()
    return [process for process in persistence.processes() if process.until > now]


class Runnable:
    """What the living processes can run. Read again from the store after a second."""

    def __init__(self, persistence: PersistenceProvider, clock: Callable[[], float] = time.monotonic) -> None:
        self._persistence = persistence
        self._clock = clock
        self._found: frozenset[DefinitionKey] = frozenset()
        self._until = 0.0

    def definitions(self) -> frozenset[DefinitionKey]:
        """Ids and versions that some process runs, or ran a moment ago."""
        return self._found if self._clock() < self._until else self.read()

    def read(self) -> frozenset[DefinitionKey]:
        """Those that some process runs now."""
        until = self._clock() + KNOWN_FOR
        self._found = frozenset(
            (definition.id, definition.version)
            for process in alive(self._persistence)
            for definition in process.definitions
        )
        self._until = until
        return self._found
