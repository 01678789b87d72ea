"""Lifecycle events on their way out of this process, without their transport."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LifecycleMessage:
    """One event as it goes out: ``<workflow>.<version>.<kind>``, JSON, and an id by which it is told once."""

    routing_key: str
    body: bytes
    message_id: str


class LifecyclePublisher(abc.ABC):
    """What a queue provider also is if lifecycle events can go out over its servers."""

    @abc.abstractmethod
    def publish_lifecycle(self, messages: Sequence[LifecycleMessage]) -> None:
        """Publish events in order; returns when all are stored durably, whoever listens."""
