"""How queues are named and messages written on servers that take plain text and narrow names."""

from __future__ import annotations

import hashlib
import json
import re

from liteflow.core.providers import Message

HASH = 16
"""Hexadecimal digits of the hash in a name: what keeps names apart that read the same."""


def plain_name(prefix: str, name: str, longest: int = 63) -> str:
    """A name of a-z, 0-9 and single dashes, at most `longest` long, for any prefix and name.

    It begins as the prefix does, and ends in a hash that tells any two pairs apart.
    """
    digest = hashlib.sha256(json.dumps([prefix, name]).encode()).hexdigest()[:HASH]
    room = longest - HASH - 2
    start = _slug(prefix)[: room // 2] or "x"
    rest = _slug(name)[: room - len(start)]
    return "-".join(part.strip("-") for part in (start, rest, digest) if part.strip("-"))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def message_text(message: Message) -> str:
    """A message as a line of ASCII; its queue is not in it."""
    content = {"body": message.body}
    if message.traceparent is not None:
        content["traceparent"] = message.traceparent
    return json.dumps(content)


def read_message(queue: str, text: str) -> Message | None:
    """The message that `message_text` has written; None if it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("body"), str):
        return None
    traceparent = content.get("traceparent")
    return Message(queue, content["body"], traceparent if isinstance(traceparent, str) else None)
