"""The broker of a simulation: one for all nodes, at least once, in any order, and each node's way to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from liteflow.core.commands import Answer, Command, CommandServer, DeadLetters, Refusal
from liteflow.core.errors import QueueUnavailableError, UnavailableError
from liteflow.core.providers import Consumer, Delivery, Message, QueueProvider
from liteflow.core.testing.simulation.faults import Fault
from liteflow.core.testing.simulation.line import Line
from liteflow.core.testing.simulation.world import SECOND, Node, World

COMMANDS = "commands"
"""The queue of commands from outside."""


@dataclass(eq=False)
class Waiting:
    """A message in a queue. Nobody gets it before `ready`."""

    message: Message
    command: Command | None = None
    redelivered: bool = False
    ready: int = 0


class SimulatedDelivery(Delivery):
    """A message in a node's hands."""

    def __init__(self, consumer: SimulatedConsumer, waiting: Waiting) -> None:
        self.message = waiting.message
        self.redelivered = waiting.redelivered
        self.waiting = waiting
        self._consumer = consumer

    def ack(self) -> None:
        """Done with it. If that gets lost, it comes again."""
        self._consumer.line.silent("ack", partial(self._settle, back=False), partial(self._settle, back=True))

    def nack(self) -> None:
        """Give it back."""
        back = partial(self._settle, back=True)
        self._consumer.line.silent("nack", back, back)

    def _settle(self, *, back: bool) -> None:
        self._consumer.broker.settle(self._consumer, self, back)


class SimulatedConsumer(Consumer):
    """A node's subscription to some queues; an actor hands out what comes."""

    def __init__(
        self,
        broker: Broker,
        line: Line,
        queues: Sequence[str],
        prefetch: int,
        callback: Callable[[SimulatedDelivery], None],
    ) -> None:
        self.broker = broker
        self.line = line
        self.queues = list(dict.fromkeys(queues))
        self.prefetch = prefetch
        self.callback = callback
        self.unacked: Counter[str] = Counter()
        self.open = True
        self.actor = line.node.actor(f"consume {queues[0]}", self._step)

    def limit(self, prefetch: int) -> None:
        """At most so many from now on."""
        self.prefetch = prefetch
        self.actor.wake()

    def cancel(self) -> None:
        """End it."""
        self.open = False

    def _step(self) -> bool:
        delivery = self.broker.next(self)
        if delivery is not None:
            self.callback(delivery)
        return delivery is not None


@dataclass
class Broker:
    """Queues, who consumes from them, what is in whose hands, and who listens to broadcasts."""

    world: World
    queues: dict[str, list[Waiting]] = field(default_factory=dict)
    consumers: list[SimulatedConsumer] = field(default_factory=list)
    unacked: dict[SimulatedDelivery, SimulatedConsumer] = field(default_factory=dict)
    listeners: dict[str, list[tuple[Node, Callable[[str], None]]]] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)

    @property
    def idle(self) -> bool:
        """True if no message waits, and nobody has one."""
        return not self.unacked and not any(self.queues.values())

    def put(self, waiting: Waiting, delay: float = 0.0) -> None:
        """Store a message."""
        waiting.ready = self.world.micros + int(delay * SECOND)
        self.queues.setdefault(waiting.message.queue, []).append(waiting)
        if delay:
            self.world.at(waiting.ready, partial(self.offer, waiting.message.queue))
        else:
            self.offer(waiting.message.queue)

    def offer(self, queue: str) -> None:
        """Somebody may get something."""
        for consumer in self.consumers:
            if queue in consumer.queues:
                consumer.actor.wake()

    def next(self, consumer: SimulatedConsumer) -> SimulatedDelivery | None:
        """A message for this consumer, not always the first."""
        random = self.world.random.random
        for name in consumer.queues if consumer.open else ():
            waiting = self.queues.get(name)
            if not waiting or consumer.unacked[name] >= consumer.prefetch:
                continue
            index = 0 if len(waiting) == 1 or random() < 0.7 else int(random() * len(waiting))
            if waiting[index].ready > self.world.micros:
                continue
            delivery = SimulatedDelivery(consumer, waiting.pop(index))
            consumer.unacked[name] += 1
            self.unacked[delivery] = consumer
            return delivery
        return None

    def settle(self, consumer: SimulatedConsumer, delivery: SimulatedDelivery, back: bool) -> None:
        """It is done, or goes back."""
        if self.unacked.pop(delivery, None) is not None:
            consumer.unacked[delivery.message.queue] -= 1
            if back:
                self._return(delivery)
            consumer.actor.wake()

    def _return(self, delivery: SimulatedDelivery) -> None:
        delivery.waiting.redelivered = True
        self.queues.setdefault(delivery.message.queue, []).insert(0, delivery.waiting)
        self.offer(delivery.message.queue)

    def drop(self, node: Node) -> None:
        """A node is gone: what it had goes back to the queues."""
        for consumer in self.consumers:
            if consumer.line.node is node:
                consumer.open = False
        self.consumers = [consumer for consumer in self.consumers if consumer.open]
        for topic, listeners in self.listeners.items():
            self.listeners[topic] = [one for one in listeners if one[0] is not node]
        for delivery, consumer in list(self.unacked.items()):
            if consumer.line.node is node:
                del self.unacked[delivery]
                self._return(delivery)


class NodeQueue(QueueProvider, CommandServer):
    """A node's way to the broker."""

    def __init__(self, line: Line, broker: Broker) -> None:
        self._line = line
        self._broker = broker

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Nothing to give back."""

    def send(self, messages: Sequence[Message]) -> None:
        """Store messages; some are stored twice, or are on their way for a while."""
        self._send([Waiting(message) for message in messages])

    def begin_send(self, messages: Sequence[Message]) -> Callable[[], None]:
        """Store them at once, or when they are waited for; what goes wrong is told then."""
        if self._line.node.world.random.random() < 0.5:
            return partial(self.send, messages)
        try:
            self.send(messages)
        except QueueUnavailableError as exc:
            return partial(_raise, exc)
        return lambda: None

    def command(self, command: Command) -> None:
        """Send a command, as a producer in any language does."""
        self._send([Waiting(Message(COMMANDS, command.routing_key), command)])

    def _send(self, messages: Sequence[Waiting]) -> None:
        fault = self._line.boundary("send", before=True)
        if fault is Fault.FAILURE:
            self.unconfirmed(messages)
            return
        random = self._line.node.world.random.random
        for waiting in messages:
            self._broker.sent[waiting.message.body] += 1
            delay = random() * self._line.faults.patience if random() < 0.1 else 0.0
            self._broker.put(waiting, delay)
            if fault is Fault.DUPLICATE:
                self._broker.put(Waiting(waiting.message, waiting.command), random())
        if self._line.boundary("send", before=False) is Fault.LOST_REPLY:
            raise QueueUnavailableError("send: the confirmation got lost")

    def unconfirmed(self, messages: Sequence[Waiting]) -> None:
        """The broker did not confirm: whoever sends has to know."""
        raise QueueUnavailableError(f"send: {len(messages)} messages are not confirmed")

    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """Hand messages to `callback`."""
        return self._consume(queues, prefetch, callback)

    def _consume(
        self, queues: Sequence[str], prefetch: int, callback: Callable[[SimulatedDelivery], None]
    ) -> Consumer:
        consumer = SimulatedConsumer(self._broker, self._line, queues, prefetch, callback)
        self._broker.consumers.append(consumer)
        consumer.actor.wake()
        return consumer

    def dead_letters(self, limit: int) -> DeadLetters:
        """None: nobody looks for refused commands here."""
        return DeadLetters(0, [])

    def serve_commands(self, handler: Callable[[Command], Answer | Refusal], concurrency: int) -> Consumer:
        """Hand commands to `handler`; what it can't do now is given back."""

        def serve(delivery: SimulatedDelivery) -> None:
            assert delivery.waiting.command is not None
            try:
                handler(delivery.waiting.command)
            except UnavailableError:
                self._line.node.world.actor().wait(int(0.2 * SECOND))
                delivery.nack()
            else:
                delivery.ack()

        return self._consume([COMMANDS], concurrency, serve)

    def depth(self, queue: str) -> int:
        """Messages that wait in a queue."""
        waiting = self._broker.queues.get(queue, ())
        return self._line.call("depth", QueueUnavailableError, len, waiting)

    def notify(self, topic: str, body: str = "") -> None:
        """Broadcast; may get lost."""
        if self._line.boundary("notify", before=True) is Fault.LOST_BROADCAST:
            return
        world = self._line.node.world
        for node, callback in self._broker.listeners.get(topic, ()):
            _Broadcast(node, callback, body).after(world.random.random() * 0.01)

    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each broadcast on the topic."""
        listeners = self._broker.listeners
        entry = (self._line.node, callback)
        listeners.setdefault(topic, []).append(entry)

        def unsubscribe() -> None:
            listeners[topic] = [one for one in listeners[topic] if one is not entry]

        return unsubscribe


def _raise(error: QueueUnavailableError) -> None:
    raise error


class _Broadcast:
    """One broadcast on its way to one listener."""

    def __init__(self, node: Node, callback: Callable[[str], None], body: str) -> None:
        self._callback = partial(callback, body)
        self._actor = node.actor("broadcast", self._step)

    def after(self, seconds: float) -> None:
        """It arrives then."""
        self._actor.wake_in(seconds)

    def _step(self) -> bool:
        self._callback()
        return False
