"""The queue provider of one process: no server, no durability, the behaviour of a real one.

One lock guards everything; one thread hands messages and broadcasts to the callbacks, never under it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from liteflow.core.errors import QueueUnavailableError
from liteflow.core.providers import Consumer, Delivery, Message, QueueProvider, QueueState

log = logging.getLogger("liteflow.queue")


@dataclass(slots=True)
class _Queue:
    """What waits in a queue (message, redelivered), and whose turn it is to take from it."""

    ready: deque[tuple[Message, bool]] = field(default_factory=deque)
    takers: deque[_MemoryConsumer] = field(default_factory=deque)


class _MemoryDelivery(Delivery):
    def __init__(self, consumer: _MemoryConsumer, message: Message, redelivered: bool) -> None:
        self.message = message
        self.redelivered = redelivered
        self.consumer = consumer

    def ack(self) -> None:
        self.consumer.provider._settle(self, back=False)

    def nack(self) -> None:
        self.consumer.provider._settle(self, back=True)


class _MemoryConsumer(Consumer):
    def __init__(
        self,
        provider: SingleNodeQueueProvider,
        queues: Sequence[str],
        prefetch: int,
        callback: Callable[[Delivery], None],
    ) -> None:
        self.provider = provider
        self.queues = list(dict.fromkeys(queues))
        self.prefetch = prefetch
        self.callback = callback
        self.unacked: Counter[str] = Counter()

    def limit(self, prefetch: int) -> None:
        self.provider._limit(self, prefetch)

    def cancel(self) -> None:
        self.provider._cancel(self)


class SingleNodeQueueProvider(QueueProvider):
    """Queues and broadcasts within this object, for one process. Messages live as long as the object.

    Closing it puts what was not acknowledged back into its queue; it can be opened again.
    """

    shared = False

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[str, _Queue] = {}
        self._with_work: OrderedDict[str, None] = OrderedDict()  # queues that may have something to hand out
        self._unacked: dict[_MemoryDelivery, None] = {}
        self._subscribers: dict[str, list[Callable[[str], None]]] = {}
        self._broadcasts: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._serving: dict[threading.Thread, _MemoryConsumer] = {}  # whose callback runs now

    def open(self) -> None:
        """Start the thread that runs the callbacks."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="liteflow-queue", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End all consumers and subscriptions; what was not acknowledged goes back to its queue."""
        with self._changed:
            thread, self._thread = self._thread, None
            for delivery in reversed(self._unacked):
                self._put_back(delivery)
            self._unacked.clear()
            for queue in self._queues.values():
                queue.takers.clear()
            self._subscribers.clear()
            self._broadcasts.clear()
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def send(self, messages: Sequence[Message]) -> None:
        """Put messages into their queues."""
        with self._changed:
            self._check_open()
            for message in messages:
                self._queue(message.queue).ready.append((message, False))
                self._with_work[message.queue] = None
            self._changed.notify_all()

    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """Hand messages to `callback`, on this provider's thread."""
        with self._changed:
            self._check_open()
            consumer = _MemoryConsumer(self, queues, prefetch, callback)
            for name in consumer.queues:
                self._queue(name).takers.append(consumer)
            self._look_again(consumer.queues)
        return consumer

    def depth(self, queue: str) -> int:
        """Messages that wait in a queue."""
        with self._changed:
            return len(self._queues[queue].ready) if queue in self._queues else 0

    def inspect(self, queues: Sequence[str]) -> list[QueueState]:
        """See `QueueProvider.inspect`."""
        with self._changed:
            unacknowledged = Counter(delivery.message.queue for delivery in self._unacked)
            return [self._state(name, unacknowledged[name]) for name in queues]

    def _state(self, name: str, unacknowledged: int) -> QueueState:
        queue = self._queues.get(name)
        if queue is None:
            return QueueState(name, False, 0, 0, 0)
        return QueueState(name, True, len(queue.ready), unacknowledged, len(queue.takers), "memory")

    def notify(self, topic: str, body: str = "") -> None:
        """Broadcast to the subscribers of this object."""
        with self._changed:
            callbacks = self._subscribers.get(topic)
            if callbacks:
                self._broadcasts.extend(partial(callback, body) for callback in callbacks)
                self._changed.notify_all()

    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each broadcast on the topic, on this provider's thread."""
        with self._changed:
            self._check_open()
            self._subscribers.setdefault(topic, []).append(callback)

        def unsubscribe() -> None:
            with self._changed:
                callbacks = self._subscribers.get(topic, [])
                if callback in callbacks:
                    callbacks.remove(callback)
                if not callbacks:
                    self._subscribers.pop(topic, None)

        return unsubscribe

    # -------------------------------------------------------------------------------- under the lock

    def _check_open(self) -> None:
        if self._thread is None:
            raise QueueUnavailableError("the queue provider is not open")

    def _queue(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue()
        return queue

    def _look_again(self, queues: Sequence[str]) -> None:
        self._with_work.update((name, None) for name in queues if self._queues[name].ready)
        self._changed.notify_all()

    def _put_back(self, delivery: _MemoryDelivery) -> None:
        self._queue(delivery.message.queue).ready.appendleft((delivery.message, True))

    def _next(self) -> _MemoryDelivery | None:
        """Take the next message for which a consumer has room; queues and consumers take turns."""
        while self._with_work:
            name, _ = self._with_work.popitem(last=False)
            queue = self._queues[name]
            for _ in range(len(queue.takers) if queue.ready else 0):
                consumer = queue.takers[0]
                queue.takers.rotate(-1)
                if consumer.unacked[name] < consumer.prefetch:
                    message, redelivered = queue.ready.popleft()
                    delivery = _MemoryDelivery(consumer, message, redelivered)
                    consumer.unacked[name] += 1
                    self._unacked[delivery] = None
                    if queue.ready:
                        self._with_work[name] = None
                    return delivery
        return None

    # ------------------------------------------------------------------- called by consumers, deliveries

    def _settle(self, delivery: _MemoryDelivery, *, back: bool) -> None:
        with self._changed:
            if delivery not in self._unacked:
                return  # settled before, or given back by `close`
            del self._unacked[delivery]
            delivery.consumer.unacked[delivery.message.queue] -= 1
            if back:
                self._put_back(delivery)
            self._look_again([delivery.message.queue])

    def _limit(self, consumer: _MemoryConsumer, prefetch: int) -> None:
        with self._changed:
            consumer.prefetch = prefetch
            self._look_again(consumer.queues)

    def _cancel(self, consumer: _MemoryConsumer) -> None:
        with self._changed:
            for name in consumer.queues:
                takers = self._queues[name].takers
                if consumer in takers:
                    takers.remove(consumer)
            me = threading.current_thread()
            self._changed.wait_for(
                lambda: all(served is not consumer or by is me for by, served in self._serving.items())
            )

    # ------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                if self._serving.pop(me, None) is not None:
                    self._changed.notify_all()
                delivery = broadcast = None
                while self._thread is me:
                    if self._broadcasts:
                        broadcast = self._broadcasts.popleft()
                        break
                    delivery = self._next()
                    if delivery is not None:
                        self._serving[me] = delivery.consumer
                        break
                    self._changed.wait()
                else:
                    return
            if delivery is not None:
                self._deliver(delivery)
            elif broadcast is not None:
                self._broadcast(broadcast)

    def _deliver(self, delivery: _MemoryDelivery) -> None:
        try:
            delivery.consumer.callback(delivery)
        except Exception:
            log.exception("the consumer of queue %s failed; the message goes back", delivery.message.queue)
            delivery.nack()

    def _broadcast(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.exception("a subscriber of a broadcast failed")
