"""How a process learns from others that there is something for it: what both ways have in common."""

from __future__ import annotations

import abc
import hashlib
import selectors
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import Connection


def topic_key(topic: str) -> str:
    """A short text for a topic of any length."""
    return hashlib.blake2b(topic.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Bell:
    """Wakes the thread that waits on it. `ring` is for any thread."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._rung = False

    def ring(self) -> None:
        """Have `wait` return, or the next one not wait."""
        if not self._rung:
            self._rung = True
            with suppress(BlockingIOError, OSError):  # full: it is rung; closed: nobody waits
                self._writer.send(b"!")

    def wait(self, seconds: float) -> bool:
        """Return when it has been rung, when a watched file can be read, or after a while. Was it rung?"""
        self._selector.select(max(0.0, seconds))
        rung = False
        with suppress(BlockingIOError):
            rung = bool(self._reader.recv(64))
        self._rung = False  # before the waiter looks at what others have set before they rang
        return rung

    def watch(self, file: int) -> None:
        """Wait for this one too."""
        self._selector.register(file, selectors.EVENT_READ)

    def unwatch(self, file: int) -> None:
        """Not any more."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(file)

    def close(self) -> None:
        """Give back the sockets."""
        self._selector.close()
        self._reader.close()
        self._writer.close()


@dataclass(frozen=True, slots=True)
class Broadcast:
    """One on its way. `origin` tells who has sent it, and which of theirs it is."""

    topic: str
    body: str
    origin: str


@dataclass(slots=True)
class News:
    """What was learned: queues in which something may be ready, and broadcasts."""

    queues: set[str] = field(default_factory=set)
    broadcasts: list[Broadcast] = field(default_factory=list)


class Signals(abc.ABC):
    """Used by the provider's thread only, but for `sent` and `broadcast`."""

    started = False

    @abc.abstractmethod
    def start(self) -> None:
        """From now on nothing is missed."""

    @abc.abstractmethod
    def hold(self, session: int) -> None:
        """Show that a session lives, if this can. It does until `close`."""

    @abc.abstractmethod
    def sent(self, connection: Connection, queues: Iterable[str]) -> None:
        """Tell others that something is ready in these queues, when this transaction is committed."""

    @abc.abstractmethod
    def broadcast(self, connection: Connection, broadcasts: Sequence[Broadcast]) -> None:
        """Send broadcasts when this transaction is committed."""

    @abc.abstractmethod
    def wait(self, bell: Bell, seconds: float, queues: Sequence[str]) -> News:
        """Wait for the bell, for news of these queues or of others, or so long; what was learned."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what it has. `start` works again."""
