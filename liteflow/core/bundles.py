"""Wake-ups of many instances in few messages.

Where hundreds of instances are to be woken at once, a message for each of them would cost the broker and its
clients more than all the rest. So a message may carry some ids, for the same queue. Each of them is still a
wake-up of its own: it is begun, seen through and settled by itself, and the message with the last of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from liteflow.core.providers import Delivery, Message

SEPARATOR = "\n"

MOST = 8
"""Ids in one message; one with more was not made here. Consumers get so many times what they ask for."""


def bundled(messages: Sequence[Message], spread: int) -> list[Message]:
    """The same wake-ups in fewer messages, if there are many for a queue.

    At least `spread` messages are left for each queue, so that all its consumers get their share.
    """
    alike: dict[Message, list[str]] = {}
    for message in messages:
        alike.setdefault(replace(message, body=""), []).append(message.body)
    found = []
    for common, ids in alike.items():
        size = max(1, min(MOST, len(ids) // spread))
        for first in range(0, len(ids), size):
            found.append(replace(common, body=SEPARATOR.join(ids[first : first + size])))
    return found


def unbundled(delivery: Delivery) -> list[Delivery]:
    """A delivery for each id in it; the delivery itself if it has one, or was not made by `bundled`."""
    message = delivery.message
    if SEPARATOR not in message.body:
        return [delivery]
    ids = message.body.split(SEPARATOR)
    if len(ids) > MOST:
        return [delivery]
    bundle = _Bundle(delivery, len(ids))
    return [_Part(bundle, replace(message, body=one)) for one in ids]


class _Bundle:
    """Settles a delivery when all of its parts are. One that is given back has all of them come again."""

    def __init__(self, delivery: Delivery, parts: int) -> None:
        self.delivery = delivery
        self._lock = threading.Lock()
        self._left = parts
        self._back = False

    def settle(self, back: bool) -> None:
        with self._lock:
            self._left -= 1
            self._back |= back
            last = self._left == 0
        if last and self._back:
            self.delivery.nack()
        elif last:
            self.delivery.ack()


class _Part(Delivery):
    def __init__(self, bundle: _Bundle, message: Message) -> None:
        self.message = message
        self.redelivered = bundle.delivery.redelivered
        self._bundle: _Bundle | None = bundle

    def ack(self) -> None:
        self._settle(False)

    def nack(self) -> None:
        self._settle(True)

    def _settle(self, back: bool) -> None:
        bundle, self._bundle = self._bundle, None  # like any delivery, it is settled once
        if bundle is not None:
            bundle.settle(back)
