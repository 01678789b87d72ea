"""Consumers of queue servers that don't push: what is asked for, held, settled and given back.

For providers whose servers hide a message for some seconds (its visibility timeout) from when it is handed
out, and hand it out again unless it was deleted. Each queue of a consumer has a thread that asks for as many
messages as there is room for. One more thread, the clerk, settles messages and keeps those that are held
hidden: both by the same thread, since what extends a message may change the handle that settles it.
"""

from __future__ import annotations

import abc
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from liteflow.core.errors import ProviderError, QueueUnavailableError, UnavailableError
from liteflow.core.providers import Consumer, Delivery, Message

log = logging.getLogger("liteflow.queue")

MOST_AT_ONCE = 32
"""So many messages are asked for at a time, at most."""

FAILED_PAUSE = 1
"""Seconds, whole, after which a message whose callback failed comes again: it would fail again at once."""

TROUBLE_PAUSES = (0.2, 5.0)
"""Seconds between two tries while the server does not answer: the first pause and the longest."""

SETTLE_TRIES = 3
"""So often it is tried to settle messages; then the server delivers them again when their time is up."""


@dataclass(slots=True, eq=False)
class Received:
    """A message as the server handed it out. `handle` is what the server wants for settling it."""

    message: Message
    redelivered: bool
    handle: Any
    name: str = ""
    """The server's id of the message, where it has one."""


class QueueServer(abc.ABC):
    """What a server can do that has to be asked.

    All methods may be called from any thread, and raise `QueueUnavailableError` or `ProviderError`.
    """

    visibility: float
    """Seconds for which a message that was handed out or extended is hidden from others."""

    @abc.abstractmethod
    def ensure(self, queues: Sequence[str]) -> None:
        """Create those of the queues that don't exist."""

    @abc.abstractmethod
    def receive(self, queue: str, limit: int) -> list[Received]:
        """Take up to `limit` messages, perhaps after a wait for the first. Creates a missing queue."""

    @abc.abstractmethod
    def delete(self, batch: Sequence[Received]) -> None:
        """They are done with. One that is not ours any more is left out silently."""

    @abc.abstractmethod
    def give_back(self, batch: Sequence[Received], pause: int) -> None:
        """Show them to everybody after `pause` seconds. One that is not ours any more is left out."""

    @abc.abstractmethod
    def extend(self, batch: Sequence[Received]) -> None:
        """Hide them for another `visibility` seconds. One that is not ours any more is left out."""


class _PolledDelivery(Delivery):
    def __init__(self, feed: _Feed, received: Received) -> None:
        self.message = received.message
        self.redelivered = received.redelivered
        self.feed = feed
        self.received = received

    def ack(self) -> None:
        self.feed.queues._settle(self, _Settling(self.received))

    def nack(self) -> None:
        self.feed.queues._settle(self, _Settling(self.received, back=0))

    def failed(self) -> None:
        self.feed.queues._settle(self, _Settling(self.received, back=FAILED_PAUSE))


@dataclass(slots=True)
class _Settling:
    """What is to be done with a message: deleted or, after `back` seconds, shown to all again."""

    received: Received
    back: int | None = None


class _Feed:
    """One queue of a consumer, and what of it is held. Guarded by the lock of `PolledQueues`."""

    def __init__(self, queues: PolledQueues, consumer: _PolledConsumer, queue: str) -> None:
        self.queues = queues
        self.consumer = consumer
        self.queue = queue
        self.held = 0
        self.hinted = False
        self.thread = threading.Thread(
            target=queues._poll, args=(self,), name=f"liteflow-poll-{queue[:40]}", daemon=True
        )

    @property
    def over(self) -> bool:
        return self.consumer.cancelled or not self.queues._open

    @property
    def room(self) -> int:
        return min(self.consumer.prefetch - self.held, MOST_AT_ONCE)


class _PolledConsumer(Consumer):
    def __init__(
        self, queues: PolledQueues, names: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]
    ) -> None:
        self.queues = queues
        self.prefetch = prefetch
        self.callback = callback
        self.cancelled = False
        self.calling = threading.RLock()  # held while the callback runs; it may cancel its own consumer
        self.feeds = [_Feed(queues, self, name) for name in dict.fromkeys(names)]

    def limit(self, prefetch: int) -> None:
        with self.queues._changed:
            self.prefetch = prefetch
            self.queues._changed.notify_all()

    def cancel(self) -> None:
        with self.queues._changed:
            self.cancelled = True
            self.queues._changed.notify_all()
        with self.calling:
            return  # no callback runs, and none begins


class PolledQueues:
    """All consumers of one provider. `pauses` are the first and the longest between two empty answers.

    The pause doubles while a queue stays empty, and begins anew when something came or `look` is called.
    """

    def __init__(self, server: QueueServer, pauses: tuple[float, float]) -> None:
        self._server = server
        self._pauses = pauses
        self._changed = threading.Condition()
        self._open = False
        self._stopping = False
        self._consumers: list[_PolledConsumer] = []
        self._held: dict[_PolledDelivery, float] = {}  # and when each is to be extended
        self._settlings: deque[_Settling] = deque()
        self._clerk: threading.Thread | None = None

    def open(self) -> None:
        """Begin; nothing is asked before there is a consumer."""
        with self._changed:
            self._open, self._stopping = True, False

    def close(self) -> None:
        """End all consumers and give back what they hold. Returns when the threads have ended.

        One that asks the server at this moment ends when it has its answer.
        """
        with self._changed:
            self._open = False
            self._changed.notify_all()
            consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            for feed in consumer.feeds:
                _join(feed.thread)
        with self._changed:
            self._settlings.extend(_Settling(delivery.received, back=0) for delivery in self._held)
            self._held.clear()
            self._stopping = True
            clerk, self._clerk = self._clerk, None
            self._changed.notify_all()
        _join(clerk)

    def require(self) -> None:
        """`QueueUnavailableError` if it is not open."""
        if not self._open:
            raise QueueUnavailableError("the queue provider is not open")

    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """See `QueueProvider`. The callback runs on one thread at a time."""
        self.require()
        try:
            self._server.ensure(list(dict.fromkeys(queues)))
        except UnavailableError as exc:
            log.warning("the consumer of %s waits for the server: %s", ", ".join(queues[:3]), exc)
        consumer = _PolledConsumer(self, queues, prefetch, callback)
        with self._changed:
            self.require()
            self._consumers = [one for one in self._consumers if any(f.thread.is_alive() for f in one.feeds)]
            self._consumers.append(consumer)
            if self._clerk is None:
                self._clerk = threading.Thread(target=self._work, name="liteflow-queue-clerk", daemon=True)
                self._clerk.start()
            for feed in consumer.feeds:
                feed.thread.start()
        return consumer

    def look(self, queues: Sequence[str]) -> None:
        """There may be something in these: whoever pauses asks at once."""
        with self._changed:
            for consumer in self._consumers:
                for feed in consumer.feeds:
                    if feed.queue in queues:
                        feed.hinted = True
            self._changed.notify_all()

    # ---------------------------------------------------------------------------------- asking the server

    def _poll(self, feed: _Feed) -> None:
        first, longest = self._pauses
        pause, troubled = first, 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: feed.over or feed.room > 0)
                if feed.over:
                    return
                room, feed.hinted = feed.room, False
            try:
                batch = self._server.receive(feed.queue, room)
            except ProviderError as exc:
                if not troubled:
                    log.warning("queue %s can't be read, trying again: %s", feed.queue, exc)
                rest = min(TROUBLE_PAUSES[0] * 2 ** min(troubled, 10), TROUBLE_PAUSES[1])
                troubled += 1
                self._rest(rest * random.uniform(0.7, 1.0), lambda: feed.over)
                continue
            if troubled:
                log.info("queue %s is read again", feed.queue)
                troubled = 0
            if batch:
                pause = first
                for received in batch:
                    self._hand_out(feed, received)
            elif self._rest(pause * random.uniform(0.8, 1.0), lambda: feed.over or feed.hinted):
                pause = first
            else:
                pause = min(2 * pause, longest)

    def _rest(self, seconds: float, unless: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(unless, seconds)

    def _hand_out(self, feed: _Feed, received: Received) -> None:
        consumer = feed.consumer
        with consumer.calling:
            with self._changed:
                if feed.over or feed.room <= 0:  # the limit was lowered while the server was asked
                    self._settlings.append(_Settling(received, back=0))
                    self._changed.notify_all()
                    return
                delivery = _PolledDelivery(feed, received)
                feed.held += 1
                self._held[delivery] = time.monotonic() + self._server.visibility / 3
            try:
                consumer.callback(delivery)
            except Exception:  # the callback is somebody else's
                log.exception("the consumer of queue %s failed; the message goes back", feed.queue)
                delivery.failed()

    # ------------------------------------------------------------------------------------------ the clerk

    def _settle(self, delivery: _PolledDelivery, settling: _Settling) -> None:
        with self._changed:
            if self._held.pop(delivery, None) is None:
                return  # settled before, or given back by `close`
            delivery.feed.held -= 1
            self._settlings.append(settling)
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                # A tick, not the time of the first extension: what is handed out need not wake this thread.
                self._changed.wait_for(lambda: self._settlings or self._stopping, self._server.visibility / 6)
                settlings, self._settlings = list(self._settlings), deque()
                if not settlings and self._stopping:
                    return
                now = time.monotonic()
                due = [delivery for delivery, at in self._held.items() if at <= now]
                for delivery in due:
                    self._held[delivery] = now + self._server.visibility / 3
            if settlings:
                self._settle_all(settlings)
            if due:
                self._try("extended", partial(self._server.extend, [one.received for one in due]), 1)

    def _settle_all(self, settlings: Sequence[_Settling]) -> None:
        done = [one.received for one in settlings if one.back is None]
        if done:
            self._try("deleted", partial(self._server.delete, done), SETTLE_TRIES)
        for pause in {one.back for one in settlings if one.back is not None}:
            back = [one.received for one in settlings if one.back == pause]
            self._try("given back", partial(self._server.give_back, back, pause), SETTLE_TRIES)
            if not pause:
                self.look([received.message.queue for received in back])

    def _try(self, what: str, act: Callable[[], None], tries: int) -> None:
        for number in range(1, tries + 1):
            try:
                act()
            except UnavailableError as exc:
                problem: ProviderError = exc
            except ProviderError as exc:
                problem = exc
                break
            else:
                return
            if number < tries:
                self._rest(TROUBLE_PAUSES[0] * number, lambda: self._stopping)
        log.warning("messages could not be %s; the server delivers them again: %s", what, problem)


def _join(thread: threading.Thread | None) -> None:
    # A callback may close the provider: its own thread ends after it.
    if thread is not None and thread.ident is not None and thread is not threading.current_thread():
        thread.join()
