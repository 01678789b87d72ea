"""Who hears lifecycle events: learned from what became of those that were published a moment ago."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from liteflow.core.lifecycle import routing_key

MOMENT = 0.2
"""Seconds for which a routing key that reached no queue counts as unheard. Then one event tries again."""


class Listeners:
    """The routing keys that nobody has bound a queue for. Used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unheard_until: dict[str, float] = {}

    def note(self, key: str, heard: bool) -> None:
        """An event with this key has reached a queue, or none."""
        if heard:
            self._unheard_until.pop(key, None)
        else:
            self._unheard_until[key] = self._clock() + MOMENT

    def is_unheard(self, key: str) -> bool:
        """True if an event with this key need not be published.

        Who asks first after a moment is told to publish, so that it is learned anew; others need not
        until that is known.
        """
        until = self._unheard_until.get(key)
        if until is None:
            return False
        now = self._clock()
        if now < until:
            return True
        self._unheard_until[key] = now + MOMENT
        return False


@dataclass(frozen=True, slots=True)
class Unheard:
    """The kinds of events of one definition that nobody hears, asked for one by one."""

    listeners: Listeners
    workflow_definition_id: str
    version: int

    def __contains__(self, kind: object) -> bool:
        key = routing_key(self.workflow_definition_id, self.version, str(kind))
        return self.listeners.is_unheard(key)
