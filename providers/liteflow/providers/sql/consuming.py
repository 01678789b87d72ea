"""Consumers and what they hold. All of it is touched under the lock of a `Holdings`."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Sequence

from liteflow.core.providers import Consumer, Delivery, Message
from liteflow.providers.sql.columns import short_name
from liteflow.providers.sql.messages import Claimed, Settled

log = logging.getLogger("liteflow.sql")

MOST_AT_ONCE = 200
"""Messages of one queue that are claimed in one go."""

FAILED_PAUSE = 1.0
"""Seconds after which a message whose callback failed goes back: it would fail again at once."""


class SqlDelivery(Delivery):
    """A message of the table `messages` that is this session's."""

    def __init__(self, consumer: SqlConsumer, queue: str, claimed: Claimed) -> None:
        self.message = Message(consumer.names[queue], claimed.body, claimed.traceparent)
        self.redelivered = claimed.redelivered
        self.consumer = consumer
        self.queue = queue
        self.number = claimed.id

    def ack(self) -> None:
        self.consumer.holdings.settle(self, back=False)

    def nack(self) -> None:
        self.consumer.holdings.settle(self, back=True)


class SqlConsumer(Consumer):
    """A subscription to some queues."""

    def __init__(
        self,
        holdings: Holdings,
        queues: Sequence[str],
        prefetch: int,
        callback: Callable[[Delivery], None],
    ) -> None:
        self.holdings = holdings
        self.names = {short_name(name): name for name in queues}
        self.prefetch = prefetch
        self.callback = callback
        self.held: dict[str, set[SqlDelivery]] = {name: set() for name in self.names}

    def limit(self, prefetch: int) -> None:
        """See `Consumer`."""
        self.holdings.limit(self, prefetch)

    def cancel(self) -> None:
        """See `Consumer`."""
        self.holdings.cancel(self)


class Holdings:
    """The consumers of a provider, what they hold, and where there may be more for them.

    `changed` is called when there is something for the provider's thread to do.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._guard = threading.Condition()
        self._consumers: list[SqlConsumer] = []
        self._maybe: dict[str, None] = {}  # queues that may have something ready, in the order of their turns
        self._settled = Settled()
        self._failed: list[tuple[float, int, SqlDelivery]] = []
        self._serving: SqlConsumer | None = None
        self._thread: int | None = None

    # ------------------------------------------------------------------------------- from any thread

    def add(self, consumer: SqlConsumer) -> None:
        """Begin to serve it."""
        with self._guard:
            self._consumers.append(consumer)
            self._maybe.update(dict.fromkeys(consumer.names))
        self._changed()

    def limit(self, consumer: SqlConsumer, prefetch: int) -> None:
        """From now on it has at most so many of each queue."""
        with self._guard:
            consumer.prefetch = max(0, prefetch)
        self._changed()

    def cancel(self, consumer: SqlConsumer) -> None:
        """Serve it no more; returns when its callback does not run."""
        with self._guard:
            if consumer in self._consumers:
                self._consumers.remove(consumer)
                # What it does not take any more may have been left to it alone.
                self._maybe.update(dict.fromkeys(consumer.names))
            if self._thread != threading.get_ident():
                self._guard.wait_for(lambda: self._serving is not consumer)
        self._changed()

    def settle(self, delivery: SqlDelivery, *, back: bool) -> None:
        """Acknowledge or give back; only the first counts."""
        with self._guard:
            held = delivery.consumer.held[delivery.queue]
            if delivery not in held:
                return
            held.discard(delivery)
            if back:
                self._settled.back.append(delivery.number)
                self._settled.queues.add(delivery.queue)
            else:
                self._settled.done.append(delivery.number)
        self._changed()

    def look_into(self, queues: Sequence[str] | set[str]) -> None:
        """Something may be ready in these. Those that nobody here consumes are passed over."""
        with self._guard:
            ours = [queue for queue in queues if any(queue in one.names for one in self._consumers)]
            self._maybe.update(dict.fromkeys(ours))
        if ours:
            self._changed()

    @property
    def active(self) -> bool:
        """Is there somebody who takes messages, or has any?"""
        with self._guard:
            return bool(self._consumers) or bool(self._settled)

    def queues(self) -> list[str]:
        """All that somebody takes messages from and has room for."""
        with self._guard:
            return list(
                {
                    queue: None
                    for consumer in self._consumers
                    for queue, held in consumer.held.items()
                    if len(held) < consumer.prefetch
                }
            )

    # ------------------------------------------------------------------------- by the provider's thread

    def settled(self) -> Settled:
        """What is to be stored; it is the caller's now."""
        now = time.monotonic()
        while self._failed and self._failed[0][0] <= now:
            heapq.heappop(self._failed)[2].nack()
        with self._guard:
            settled, self._settled = self._settled, Settled()
        return settled

    def not_stored(self, settled: Settled) -> None:
        """It could not be: it is to be tried again."""
        with self._guard:
            for mine, theirs in (
                (self._settled.done, settled.done),
                (self._settled.back, settled.back),
                (self._settled.unseen, settled.unseen),
            ):
                mine[:0] = theirs
            self._settled.queues |= settled.queues

    def wanted(self) -> list[tuple[SqlConsumer, str, int]]:
        """For whom to claim how many from which queue; those count as empty until told otherwise."""
        wanted = []
        with self._guard:
            for queue in list(self._maybe):
                room = [
                    (consumer, queue, min(free, MOST_AT_ONCE))
                    for consumer in self._consumers
                    if queue in consumer.names and (free := consumer.prefetch - len(consumer.held[queue])) > 0
                ]
                if room:
                    del self._maybe[queue]
                    wanted += room
            self._consumers = self._consumers[1:] + self._consumers[:1]  # they take turns
        return wanted

    def hand_out(self, consumer: SqlConsumer, queue: str, claimed: Sequence[Claimed]) -> None:
        """Give what was claimed to the callback; what it may not have any more goes back unseen."""
        self._thread = threading.get_ident()
        for one in claimed:
            delivery = SqlDelivery(consumer, queue, one)
            with self._guard:
                wanted = consumer in self._consumers and len(consumer.held[queue]) < consumer.prefetch
                if wanted:
                    consumer.held[queue].add(delivery)
                    self._serving = consumer
                else:
                    self._settled.unseen.append(one.id)
                    self._settled.queues.add(queue)
            if wanted:
                try:
                    consumer.callback(delivery)
                except Exception:
                    # The callback is others' code, and this thread serves all of them.
                    log.exception(
                        "the callback for a message of %s failed; it goes back", delivery.message.queue
                    )
                    due = time.monotonic() + FAILED_PAUSE
                    heapq.heappush(self._failed, (due, one.id, delivery))
                finally:
                    with self._guard:
                        self._serving = None
                        self._guard.notify_all()

    def next_failed(self) -> float | None:
        """When the next one whose callback has failed is to go back, by the monotonic clock."""
        return self._failed[0][0] if self._failed else None

    def lose_all(self) -> None:
        """Others took this session for dead: what it had is theirs."""
        with self._guard:
            for consumer in self._consumers:
                for held in consumer.held.values():
                    held.clear()
                self._maybe.update(dict.fromkeys(consumer.names))
            self._settled = Settled()
            self._failed.clear()

    def clear(self) -> None:
        """No consumers any more, and nothing that they hold can be settled."""
        with self._guard:
            for consumer in self._consumers:
                for held in consumer.held.values():
                    held.clear()
            self._consumers.clear()
            self._maybe.clear()
            self._thread = None
            self._settled = Settled()
            self._failed.clear()
