"""Commands from outside, without their transport: what a queue provider hands to whoever serves them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from liteflow.core.providers import Consumer


@dataclass(frozen=True, slots=True)
class Command:
    """One command as it came. Nothing of it has been checked: anybody may have written it.

    `timestamp` is what the sender's AMQP property says, in whole seconds. `headers` are decoded AMQP
    values. `redelivered`: somebody may have handled it before. `transport` is how it came.
    """

    routing_key: str
    body: bytes
    message_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, object] = field(default_factory=dict)
    timestamp: datetime | None = None
    redelivered: bool = False
    transport: str = "amqp"


@dataclass(frozen=True, slots=True)
class Answer:
    """The command is done, durably. `body` (plain JSON) is sent to whoever asked for a reply."""

    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The command can't be done, now or later: it is dead-lettered unchanged, with code and reason.

    The sender gets ``{"error": code, "reason": reason}`` if it asked for a reply.
    """

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused command: where it was sent, and why it was refused (code and reason)."""

    routing_key: str
    error: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """How many refused commands there are, and the first of them."""

    count: int
    first: list[DeadLetter]


class CommandServer(abc.ABC):
    """What a queue provider also is if commands can come over its servers."""

    @abc.abstractmethod
    def serve_commands(self, handler: Callable[[Command], Answer | Refusal], concurrency: int) -> Consumer:
        """Hand commands to `handler`, up to `concurrency` at once, each on a thread of its own.

        A command is acknowledged last: after the handler returned and its answer, or its copy to the
        dead letters, was sent. If the handler raises `UnavailableError`, the command is given back after
        a pause, as often as it takes. Any other exception counts as a defect: the command is given back
        once, and dead-lettered with the code ``internal`` when it happens again.
        """

    @abc.abstractmethod
    def dead_letters(self, limit: int) -> DeadLetters:
        """The refused commands, at most `limit` of them in detail. They stay where they are."""
