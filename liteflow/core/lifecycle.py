"""Lifecycle events on their way out of this process, without their transport."""

from __future__ import annotations

import abc
from collections.abc import Container, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LifecycleMessage:
    """One event as it goes out: ``<workflow>.<version>.<kind>``, JSON, and an id by which it is told once."""

    routing_key: str
    body: bytes
    message_id: str


def routing_key(workflow_definition_id: str, version: int, kind: str) -> str:
    """The key that an event goes out with."""
    return f"{workflow_definition_id}.{version}.{kind}"


class LifecyclePublisher(abc.ABC):
    """What a queue provider also is if lifecycle events can go out over its servers."""

    @abc.abstractmethod
    def publish_lifecycle(self, messages: Sequence[LifecycleMessage]) -> None:
        """Publish events in order; returns when all are stored durably, whoever listens."""

    @abc.abstractmethod
    def unheard(self, workflow_definition_id: str, version: int) -> Container[str]:
        """Kinds of events of a definition that reached nobody a moment ago (a fraction of a second).

        They need not be recorded: who listens from now on hears what happens after that moment. Is
        asked about a kind only when such an event has happened.
        """
