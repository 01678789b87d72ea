"""What every queue provider has to do, as tests. A provider's test file is fixtures and a subclass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from liteflow.core.errors import QueueUnavailableError
from liteflow.core.providers import Delivery, Message, QueueProvider

DEADLINE = 20.0
"""Seconds after which something that should have happened is taken not to happen at all."""

QUIET = 0.3
"""Seconds for which something that should not happen is watched."""


class Inbox:
    """A callback that keeps what it is given, and lets a test wait for it."""

    def __init__(self, *, ack: bool = False) -> None:
        self.items: list[Any] = []
        self._ack = ack
        self._changed = threading.Condition()

    def __call__(self, item: Any) -> None:
        """Take a delivery or the body of a broadcast."""
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()
        if self._ack:
            item.ack()

    def wait(self, count: int) -> list[Any]:
        """Return the first `count` items as soon as they are there; fail if they don't come."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.items) >= count, DEADLINE)
            assert len(self.items) >= count, f"{len(self.items)} of {count} came: {self.bodies()}"
            return self.items[:count]

    def stays(self, count: int) -> None:
        """Fail if more than `count` items come within a while."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.items) > count, QUIET)
            assert len(self.items) == count, f"{len(self.items)} instead of {count}: {self.bodies()}"

    def bodies(self) -> list[str]:
        """The bodies of what came so far."""
        return [item.message.body if isinstance(item, Delivery) else item for item in list(self.items)]


def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fail if it does not within the deadline."""
    deadline = time.monotonic() + DEADLINE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.01)


class QueueContract:
    """Subclass it with the fixtures `provider` and `second`.

    Both are open providers on the same servers and prefix, as in two processes; for a provider whose
    state is its object's (`shared` is False) they are the same object. Queues are empty at first.
    `elsewhere` is a provider with another prefix, or another object.
    """

    counts_held = False
    """True where `depth` counts what consumers hold, too."""

    @pytest.fixture
    def provider(self) -> Iterator[QueueProvider]:
        """An open provider."""
        raise NotImplementedError

    @pytest.fixture
    def second(self, provider: QueueProvider) -> Iterator[QueueProvider]:
        """Another one on the same servers, or the same."""
        raise NotImplementedError

    @pytest.fixture
    def elsewhere(self) -> Iterator[QueueProvider]:
        """One that shares nothing with `provider`, though its servers may be the same."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------- queues

    def test_message_arrives_as_sent(self, provider: QueueProvider) -> None:
        """Queue, body and traceparent come through, on another thread than the sender's."""
        threads: list[threading.Thread] = []
        inbox = Inbox()

        def callback(delivery: Delivery) -> None:
            threads.append(threading.current_thread())
            inbox(delivery)

        provider.consume(["one"], 10, callback)
        sent = [Message("one", "ä/1"), Message("one", "b", traceparent="00-aa-bb-01")]
        provider.send(sent)
        deliveries = inbox.wait(2)
        # Not every server keeps the order of sending, and nothing relies on it.
        assert {d.message for d in deliveries} == set(sent)
        assert not any(d.redelivered for d in deliveries)
        assert threading.current_thread() not in threads

    def test_nothing_to_send(self, provider: QueueProvider) -> None:
        """An empty list is allowed."""
        provider.send([])

    def test_what_was_begun_to_be_sent_has_arrived_when_it_was_waited_for(
        self, provider: QueueProvider
    ) -> None:
        """`begin_send` loses nothing, and who sends early says so to who gets it."""
        confirmed = provider.begin_send([Message("one", "a", early=True), Message("one", "b")])
        confirmed()
        inbox = Inbox(ack=True)
        provider.consume(["one"], 10, inbox)
        told = {delivery.message.body: delivery.message.early for delivery in inbox.wait(2)}
        sends_early = type(provider).begin_send is not QueueProvider.begin_send
        assert told.keys() == {"a", "b"}
        assert not told["b"]
        assert told["a"] or not sends_early
        provider.begin_send([])()

    def test_message_waits_for_its_first_consumer(
        self, provider: QueueProvider, second: QueueProvider
    ) -> None:
        """What is sent to a queue that nobody has ever consumed is kept."""
        provider.send([Message("later", "1"), Message("later", "2")])
        inbox = Inbox(ack=True)
        second.consume(["later"], 10, inbox)
        inbox.wait(2)
        assert sorted(inbox.bodies()) == ["1", "2"]

    def test_prefetch_is_never_exceeded(self, provider: QueueProvider) -> None:
        """So many unacknowledged and no more; each settled one makes room for one."""
        provider.send([Message("one", str(n)) for n in range(6)])
        inbox = Inbox()
        provider.consume(["one"], 2, inbox)
        first, second = inbox.wait(2)
        inbox.stays(2)
        first.ack()
        inbox.wait(3)
        inbox.stays(3)
        second.ack()
        inbox.wait(4)
        inbox.stays(4)

    def test_prefetch_is_for_each_queue(self, provider: QueueProvider) -> None:
        """A full queue does not hold up another one of the same consumer."""
        provider.send([Message("one", str(n)) for n in range(5)] + [Message("two", "x")] * 5)
        inbox = Inbox()
        provider.consume(["one", "two"], 2, inbox)
        inbox.wait(4)
        inbox.stays(4)
        assert sorted(d.message.queue for d in inbox.items) == ["one", "one", "two", "two"]

    def test_acknowledged_never_comes_again(self, provider: QueueProvider, second: QueueProvider) -> None:
        """Neither here nor elsewhere, and the queue is empty."""
        inbox = Inbox(ack=True)
        consumer = provider.consume(["one"], 3, inbox)
        provider.send([Message("one", str(n)) for n in range(20)])
        inbox.wait(20)
        consumer.cancel()
        again = Inbox()
        second.consume(["one"], 10, again)
        again.stays(0)
        assert sorted(inbox.bodies(), key=int) == [str(n) for n in range(20)]
        assert second.depth("one") == 0

    def test_given_back_comes_again(self, provider: QueueProvider) -> None:
        """A nack makes the message available again, marked as redelivered."""
        inbox = Inbox()
        provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "a")])
        inbox.wait(1)[0].nack()
        again = inbox.wait(2)[1]
        assert again.message.body == "a"
        assert again.redelivered
        again.ack()
        inbox.stays(2)

    def test_given_back_very_often_is_not_lost(self, provider: QueueProvider) -> None:
        """No server limit on deliveries may drop a message."""
        inbox = Inbox()
        provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "a")])
        for count in range(1, 60):
            inbox.wait(count)[count - 1].nack()
        inbox.wait(60)[59].ack()

    def test_settled_twice(self, provider: QueueProvider) -> None:
        """Only the first settling counts, and nothing breaks."""
        inbox = Inbox()
        provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "a"), Message("one", "b")])
        first = inbox.wait(1)[0]
        first.ack()
        first.nack()
        first.ack()
        inbox.wait(2)[1].ack()
        inbox.stays(2)

    def test_callback_that_fails(self, provider: QueueProvider) -> None:
        """An exception gives the message back and ends nothing."""
        inbox = Inbox(ack=True)

        def callback(delivery: Delivery) -> None:
            if not delivery.redelivered:
                raise RuntimeError("on purpose")
            inbox(delivery)

        provider.consume(["one"], 1, callback)
        provider.send([Message("one", "a")])
        inbox.wait(1)

    def test_settled_from_other_threads(self, provider: QueueProvider) -> None:
        """Acknowledging is for any thread."""
        inbox = Inbox()
        provider.consume(["one"], 4, inbox)
        provider.send([Message("one", str(n)) for n in range(40)])
        for count in range(1, 41):
            delivery = inbox.wait(count)[count - 1]
            threading.Thread(target=delivery.ack).start()
        inbox.stays(40)
        assert sorted(inbox.bodies(), key=int) == [str(n) for n in range(40)]

    def test_two_consumers_share(self, provider: QueueProvider, second: QueueProvider) -> None:
        """Each message goes to one of them, and both get some."""
        mine, theirs = Inbox(), Inbox()
        provider.consume(["one"], 2, mine)
        second.consume(["one"], 2, theirs)
        provider.send([Message("one", str(n)) for n in range(4)])
        mine.wait(2)
        theirs.wait(2)
        assert sorted(mine.bodies() + theirs.bodies()) == ["0", "1", "2", "3"]

    def test_queue_names_are_kept_apart(self, provider: QueueProvider) -> None:
        """Any name works, however long, and similar ones are not mixed up."""
        names = [
            "w.Ünï cödé/1",
            "w.a*#",
            "w.a",
            "w." + "x" * 400 + "1",
            "w." + "x" * 400 + "2",
            "w." + "ä" * 200,
        ]
        inbox = Inbox(ack=True)
        provider.consume(names, 1, inbox)
        provider.send([Message(name, str(number)) for number, name in enumerate(names)])
        inbox.wait(len(names))
        got = {d.message.queue: d.message.body for d in inbox.items}
        assert got == {name: str(number) for number, name in enumerate(names)}

    def test_many_threads_send(self, provider: QueueProvider) -> None:
        """Calls from several threads at once each return when their own messages are safe."""
        inbox = Inbox(ack=True)
        provider.consume(["one"], 50, inbox)
        failures: list[BaseException] = []

        def send(thread: int) -> None:
            try:
                for n in range(20):
                    provider.send([Message("one", f"{thread}-{n}-{i}") for i in range(3)])
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert not failures
        inbox.wait(360)
        inbox.stays(360)
        assert len(set(inbox.bodies())) == 360

    # -------------------------------------------------------------------------------------------- limit

    def test_limit_zero_takes_no_more(self, provider: QueueProvider, second: QueueProvider) -> None:
        """What is held stays held; the rest is for others."""
        inbox, other = Inbox(), Inbox(ack=True)
        consumer = provider.consume(["one"], 2, inbox)
        provider.send([Message("one", "1"), Message("one", "2")])
        held = inbox.wait(2)
        consumer.limit(0)
        held[0].ack()
        provider.send([Message("one", "3"), Message("one", "4")])
        second.consume(["one"], 10, other)
        other.wait(2)
        assert sorted(other.bodies()) == ["3", "4"]
        inbox.stays(2)
        held[1].nack()
        other.wait(3)
        assert other.bodies()[2] == held[1].message.body

    def test_limit_raised_resumes(self, provider: QueueProvider) -> None:
        """From none to some, and from few to more."""
        inbox = Inbox()
        consumer = provider.consume(["one"], 0, inbox)
        provider.send([Message("one", str(n)) for n in range(6)])
        inbox.stays(0)
        consumer.limit(1)
        inbox.wait(1)
        inbox.stays(1)
        consumer.limit(4)
        inbox.wait(4)
        inbox.stays(4)

    def test_limit_lowered(self, provider: QueueProvider) -> None:
        """What is held counts against the new limit."""
        inbox = Inbox()
        consumer = provider.consume(["one"], 4, inbox)
        provider.send([Message("one", str(n)) for n in range(8)])
        held = inbox.wait(4)
        consumer.limit(2)
        held[0].ack()
        held[1].ack()
        inbox.stays(4)
        held[2].ack()
        inbox.wait(5)
        inbox.stays(5)

    def test_limit_back_and_forth(self, provider: QueueProvider) -> None:
        """Changed often and quickly, under load: each message comes, and none is held for nothing."""
        done: set[str] = set()
        finished = threading.Event()

        def callback(delivery: Delivery) -> None:
            done.add(delivery.message.body)
            delivery.ack()
            if len(done) == 200:
                finished.set()

        consumer = provider.consume(["one"], 1, callback)
        for n in range(200):
            provider.send([Message("one", str(n))])
            consumer.limit(n % 4)
        consumer.limit(3)
        assert finished.wait(DEADLINE), f"{len(done)} of 200 came"

    # ------------------------------------------------------------------------------------------- cancel

    def test_cancelled_consumer(self, provider: QueueProvider, second: QueueProvider) -> None:
        """It is called no more; what it holds is still its to acknowledge."""
        inbox, other = Inbox(), Inbox(ack=True)
        consumer = provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "1"), Message("one", "2")])
        held = inbox.wait(1)[0]
        consumer.cancel()
        consumer.cancel()
        second.consume(["one"], 10, other)
        other.wait(1)
        other.stays(1)
        held.ack()
        other.stays(1)
        inbox.stays(1)
        consumer.limit(5)
        provider.send([Message("one", "3")])
        other.wait(2)
        inbox.stays(1)

    def test_cancelled_consumer_gives_back(self, provider: QueueProvider) -> None:
        """A nack after the cancel makes the message available to the next consumer."""
        inbox, other = Inbox(), Inbox(ack=True)
        consumer = provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "1")])
        held = inbox.wait(1)[0]
        consumer.cancel()
        held.nack()
        provider.consume(["one"], 1, other)
        other.wait(1)

    def test_cancel_waits_for_the_callback(self, provider: QueueProvider, second: QueueProvider) -> None:
        """When it returns, no callback runs."""
        entered, leave, left = threading.Event(), threading.Event(), threading.Event()

        def callback(delivery: Delivery) -> None:
            entered.set()
            leave.wait(DEADLINE)
            left.set()
            delivery.ack()

        consumer = provider.consume(["one"], 1, callback)
        second.send([Message("one", "1")])
        assert entered.wait(DEADLINE)
        threading.Timer(0.1, leave.set).start()
        consumer.cancel()
        assert left.is_set()

    def test_cancel_within_the_callback(self, provider: QueueProvider) -> None:
        """A callback may end its own consumer."""
        done = threading.Event()

        def callback(delivery: Delivery) -> None:
            delivery.ack()
            consumer.cancel()
            done.set()

        consumer = provider.consume(["one"], 1, callback)
        provider.send([Message("one", "1")])
        assert done.wait(DEADLINE)

    # -------------------------------------------------------------------------------------------- depth

    def test_depth(self, provider: QueueProvider) -> None:
        """Counts what is ready, and 0 for a queue that does not exist."""
        assert provider.depth("nowhere") == 0
        provider.send([Message("one", str(n)) for n in range(7)])
        until(lambda: provider.depth("one") == 7)
        assert provider.depth("nowhere") == 0

    # ------------------------------------------------------------------------------------- open and close

    def test_inspect(self, provider: QueueProvider, second: QueueProvider) -> None:
        """What is told of a queue is true, a queue that is not there is not made, and nothing is taken."""
        (missing,) = provider.inspect(["one"])
        assert (missing.queue, missing.ready) == ("one", 0)
        assert missing.exists in (False, None)
        assert provider.inspect(["one"])[0].exists in (False, None)
        provider.send([Message("one", str(n)) for n in range(3)])
        until(lambda: provider.inspect(["one"])[0].ready == 3)
        (alone, _) = provider.inspect(["one", "two"])
        assert alone.exists in (True, None)
        assert alone.consumers in (0, None)
        assert alone.unacknowledged in (0, None)
        inbox = Inbox()
        second.consume(["one"], 2, inbox)
        inbox.wait(2)
        assert not any(delivery.redelivered for delivery in inbox.items)
        until(lambda: provider.inspect(["one"])[0].ready == (3 if self.counts_held else 1))
        (used,) = provider.inspect(["one"])
        assert used.consumers in (1, None)
        assert used.unacknowledged in (2, None)
        assert provider.inspect([]) == []

    def test_closed_provider_loses_nothing(self, provider: QueueProvider, second: QueueProvider) -> None:
        """What a closed provider had not acknowledged is delivered to another."""
        inbox, other = Inbox(), Inbox(ack=True)
        provider.consume(["one"], 3, inbox)
        provider.send([Message("one", str(n)) for n in range(5)])
        held = inbox.wait(3)
        held[0].ack()
        provider.close()
        held[1].ack()
        held[2].nack()
        second.open()
        second.consume(["one"], 10, other)
        other.wait(4)
        assert held[0].message.body not in other.bodies()
        assert len(set(other.bodies())) == 4

    def test_closed_twice_and_opened_again(self, provider: QueueProvider) -> None:
        """Both are safe at any time."""
        provider.open()
        provider.close()
        provider.close()
        provider.open()
        inbox = Inbox(ack=True)
        provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "1")])
        inbox.wait(1)
        provider.close()

    def test_closed_provider_refuses(self, provider: QueueProvider) -> None:
        """A closed provider takes nothing that it could not keep; what needs no answer is harmless."""
        inbox = Inbox()
        consumer = provider.consume(["one"], 1, inbox)
        unsubscribe = provider.subscribe("topic", inbox)
        provider.send([Message("one", "1")])
        held = inbox.wait(1)[0]
        provider.close()
        with pytest.raises(QueueUnavailableError):
            provider.send([Message("one", "2")])
        provider.notify("topic")
        held.ack()
        consumer.limit(3)
        consumer.cancel()
        unsubscribe()
        inbox.stays(1)

    def test_no_thread_is_left(self, provider: QueueProvider) -> None:
        """Closing ends the provider's threads."""
        provider.close()
        before = set(threading.enumerate())
        provider.open()
        provider.consume(["one"], 1, Inbox())
        provider.subscribe("topic", Inbox())
        provider.close()
        assert set(threading.enumerate()) <= before

    # ---------------------------------------------------------------------------------------- broadcast

    def test_broadcast_reaches_all(self, provider: QueueProvider, second: QueueProvider) -> None:
        """Each subscriber of the topic once, of any process; nobody else."""
        one, two, three, other = Inbox(), Inbox(), Inbox(), Inbox()
        provider.subscribe("ended.1", one)
        provider.subscribe("ended.1", two)
        second.subscribe("ended.1", three)
        second.subscribe("ended.10", other)
        provider.subscribe("ended", other)
        provider.subscribe("ended.*", other)
        provider.subscribe("#", other)
        provider.notify("ended.1", "x")
        second.notify("ended.1", "y")
        for inbox in (one, two, three):
            inbox.wait(2)
            assert sorted(inbox.bodies()) == ["x", "y"]
            inbox.stays(2)
        other.stays(0)

    def test_broadcast_without_subscribers(self, provider: QueueProvider) -> None:
        """It is not kept, and harms nobody."""
        provider.notify("nobody", "x")
        inbox = Inbox()
        provider.subscribe("nobody", inbox)
        inbox.stays(0)
        provider.notify("nobody")
        inbox.wait(1)
        assert inbox.bodies() == [""]

    def test_broadcast_topics_are_any_text(self, provider: QueueProvider, second: QueueProvider) -> None:
        """Wildcards of the server mean nothing here; long and similar topics are kept apart."""
        topics = ["#", "*", "a.*.b", "a.#", "a.x.b", "Ünï cödé", "t" * 300 + "1", "t" * 300 + "2", "%23", ""]
        inboxes = [Inbox() for _ in topics]
        for topic, inbox in zip(topics, inboxes, strict=True):
            second.subscribe(topic, inbox)
        for number, topic in enumerate(topics):
            provider.notify(topic, str(number))
        for number, inbox in enumerate(inboxes):
            inbox.wait(1)
            assert inbox.bodies() == [str(number)]
        for inbox in inboxes:
            assert len(inbox.items) == 1

    def test_unsubscribed(self, provider: QueueProvider, second: QueueProvider) -> None:
        """No call after it, others of the topic go on; twice is harmless."""
        gone, stays = Inbox(), Inbox()
        unsubscribe = second.subscribe("topic", gone)
        second.subscribe("topic", stays)
        provider.notify("topic", "1")
        gone.wait(1)
        unsubscribe()
        unsubscribe()
        provider.notify("topic", "2")
        stays.wait(2)
        gone.stays(1)

    def test_topics_come_and_go(self, provider: QueueProvider, second: QueueProvider) -> None:
        """Many short subscriptions, each in force when it is returned."""
        for number in range(50):
            inbox = Inbox()
            unsubscribe = second.subscribe(f"ended.{number}", inbox)
            provider.notify(f"ended.{number}", str(number))
            inbox.wait(1)
            unsubscribe()

    def test_subscriber_that_fails(self, provider: QueueProvider) -> None:
        """An exception in one ends neither it nor others."""
        inbox = Inbox()

        def fails(body: str) -> None:
            raise RuntimeError("on purpose")

        provider.subscribe("topic", fails)
        provider.subscribe("topic", inbox)
        provider.notify("topic", "1")
        provider.notify("topic", "2")
        inbox.wait(2)

    def test_subscribe_and_send_within_callbacks(self, provider: QueueProvider) -> None:
        """A broadcast may be sent from a callback."""
        inbox = Inbox()
        provider.subscribe("second", inbox)
        provider.subscribe("first", lambda body: provider.notify("second", body))
        provider.notify("first", "x")
        inbox.wait(1)

    # ----------------------------------------------------------------------------------------- prefixes

    def test_others_are_others(self, provider: QueueProvider, elsewhere: QueueProvider) -> None:
        """Neither messages nor broadcasts pass from one prefix to another."""
        inbox, mine = Inbox(), Inbox()
        elsewhere.consume(["one"], 1, inbox)
        elsewhere.subscribe("topic", inbox)
        provider.consume(["one"], 1, mine)
        provider.subscribe("topic", mine)
        provider.send([Message("one", "1")])
        provider.notify("topic", "2")
        mine.wait(2)
        inbox.stays(0)
        assert elsewhere.depth("one") == 0
