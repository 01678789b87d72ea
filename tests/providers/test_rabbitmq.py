"""The queue provider for RabbitMQ, on real servers: the contract, outages, and the commands."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pika
import pytest
from servers import RabbitServer, free_port

from liteflow.core.commands import Answer, Command, DeadLetter, DeadLetters, Refusal
from liteflow.core.errors import ProviderError, QueueUnavailableError, SettingsError, StoreUnavailableError
from liteflow.core.findings import Severity
from liteflow.core.lifecycle import LifecycleMessage
from liteflow.core.providers import Message, QueueProvider
from liteflow.core.testing.queue import DEADLINE, Inbox, QueueContract, until
from liteflow.providers.rabbitmq import RabbitMQQueueProvider, topology
from liteflow.providers.rabbitmq.commands import CommandConsumer
from liteflow.providers.rabbitmq.driver import Driver, connect, into
from liteflow.providers.rabbitmq.listeners import Listeners
from liteflow.providers.rabbitmq.publishing import Letter, Publisher
from liteflow.providers.rabbitmq.topology import short


@contextmanager
def opened(url: str, prefix: str, **options: Any) -> Iterator[RabbitMQQueueProvider]:
    provider = RabbitMQQueueProvider(url, prefix, **options)
    provider.open()
    try:
        yield provider
    finally:
        provider.close()


class Raw:
    """A plain client, as any other service would be one."""

    def __init__(self, url: str, prefix: str) -> None:
        self.prefix = prefix
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()
        self.channel.confirm_delivery()

    def name(self, what: str = "") -> str:
        return f"{self.prefix}.{what}" if what else self.prefix

    def publish(self, key: str, body: bytes, **properties: Any) -> None:
        self.channel.basic_publish(self.prefix, key, body, pika.BasicProperties(**properties), mandatory=True)

    def get(self, queue: str) -> tuple[Any, pika.BasicProperties, bytes]:
        got: list[Any] = []

        def fetch() -> bool:
            got[:] = self.channel.basic_get(queue, auto_ack=True)
            return got[0] is not None

        until(fetch)
        if got[1].headers and got[1].headers.get("x-delivery-count") == 0:
            del got[1].headers["x-delivery-count"]  # the server's word about this very `get`
        return got[0], got[1], got[2]

    def count(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def reply_queue(self) -> str:
        return str(self.channel.queue_declare("", exclusive=True).method.queue)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def raw(amqp_url: str, prefix: str) -> Iterator[Raw]:
    client = Raw(amqp_url, prefix)
    yield client
    client.close()


@pytest.fixture
def provider(amqp_url: str, prefix: str) -> Iterator[RabbitMQQueueProvider]:
    with opened(amqp_url, prefix) as provider:
        yield provider


class TestContract(QueueContract):
    @pytest.fixture
    def provider(self, amqp_url: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(amqp_url, prefix) as provider:
            yield provider

    @pytest.fixture
    def second(self, amqp_url: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(amqp_url, prefix) as provider:
            yield provider

    @pytest.fixture
    def elsewhere(self, amqp_url: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(amqp_url, prefix + "x") as provider:
            yield provider


# ----------------------------------------------------------------------------------------- inspection


def test_the_kind_of_a_queue_is_told(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    raw.channel.queue_declare(raw.name("old"), durable=True)
    raw.channel.queue_declare(raw.name("other"), durable=True, arguments={"x-queue-type": "quorum"})
    provider.send([Message("new", "1")])
    states = provider.inspect(["old", "other", "new", "none"])
    assert [state.kind for state in states] == ["classic", "quorum, with other arguments", "quorum", None]
    assert [state.exists for state in states] == [True, True, True, False]


def test_dead_letters_are_told_of_and_stay(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    assert provider.dead_letters(5) == DeadLetters(0, [])
    provider.serve_commands(lambda command: Refusal("malformed", f"no {command.body.decode()}"), 1)
    for number in range(3):
        raw.publish("workflow.start", str(number).encode())
    until(lambda: raw.count(raw.name("dead")) == 3)
    first = [DeadLetter("workflow.start", "malformed", f"no {number}") for number in range(2)]
    for _ in range(2):
        assert provider.dead_letters(2) == DeadLetters(3, first)
        until(lambda: raw.count(raw.name("dead")) == 3)
    raw.publish("", b"x")
    raw.channel.basic_publish(raw.name("dead"), "", b"by somebody else")
    until(lambda: raw.count(raw.name("dead")) == 5)
    assert DeadLetter("", "", "") in provider.dead_letters(10).first


def test_check_of_a_server_that_is_well(amqp_url: str, prefix: str, raw: Raw) -> None:
    checked = RabbitMQQueueProvider(amqp_url, prefix).check()
    assert {finding.severity for finding in checked} == {Severity.OK}
    assert any("version" in finding.message for finding in checked)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        raw.count(raw.name("dead"))  # nothing was declared


def test_check_of_a_server_that_is_not_there(prefix: str) -> None:
    (found,) = RabbitMQQueueProvider(f"amqp://guest:s3cret@127.0.0.1:{free_port()}/", prefix).check()
    assert found.severity is Severity.PROBLEM
    assert "can't be reached" in found.message
    assert "s3cret" not in f"{found}"


def test_check_with_a_wrong_password(amqp_url: str, prefix: str) -> None:
    (found,) = RabbitMQQueueProvider(amqp_url.replace("guest:guest", "guest:s3cret"), prefix).check()
    assert (found.severity, "refuses" in found.message) == (Severity.PROBLEM, True)
    assert "s3cret" not in f"{found}"


def test_check_without_permissions(own_rabbitmq: RabbitServer, prefix: str) -> None:
    control(own_rabbitmq, "set_permissions", "guest", "^other", ".*", ".*")
    found = RabbitMQQueueProvider(own_rabbitmq.url, prefix).check()[-1]
    assert found.severity is Severity.PROBLEM
    assert "refuses this user" in found.message
    assert prefix in found.advice


class ManagedServer(RabbitServer):
    """One with the management plugin."""

    def __init__(self) -> None:
        super().__init__()
        self.management_port = free_port()
        (self.folder / "plugins").write_text("[rabbitmq_management].\n")
        with (self.folder / "rabbitmq.conf").open("a") as configuration:
            configuration.write(
                f"management.tcp.port = {self.management_port}\nmanagement.tcp.ip = 127.0.0.1\n"
                "collect_statistics_interval = 1000\n"
            )

    def management(self, password: str = "guest") -> str:
        return f"http://guest:{password}@127.0.0.1:{self.management_port}"


def test_what_the_management_plugin_tells(prefix: str) -> None:
    server = ManagedServer()
    server.start()
    try:
        with opened(server.url, prefix, management=server.management()) as provider:
            assert "management plugin" in provider.check()[-1].message
            assert provider.check()[-1].severity is Severity.OK
            inbox = Inbox()
            provider.consume(["one"], 2, inbox)
            provider.send([Message("one", str(n)) for n in range(3)])
            inbox.wait(2)
            until(lambda: provider.inspect(["one"])[0].unacknowledged == 2)
            assert provider.inspect(["one"])[0].consumer_timeout is None
            raw = Raw(server.url, prefix)
            raw.channel.queue_declare(raw.name("short"), durable=True, arguments={"x-consumer-timeout": 5000})
            until(lambda: provider.inspect(["short"])[0].consumer_timeout == 5)
            raw.close()
            assert provider.inspect(["none"])[0].exists is False
        wrong = RabbitMQQueueProvider(server.url, prefix, management=server.management("s3cret"))
        found = wrong.check()[-1]
        assert (found.severity, "refuses: 401" in found.message) == (Severity.PROBLEM, True)
        assert "s3cret" not in f"{found}"
    finally:
        server.close()


def test_a_management_plugin_that_is_not_there(amqp_url: str, prefix: str) -> None:
    url = f"http://guest:s3cret@127.0.0.1:{free_port()}"
    found = RabbitMQQueueProvider(amqp_url, prefix, management=url).check()[-1]
    assert (found.severity, "does not answer" in found.message) == (Severity.PROBLEM, True)
    assert "s3cret" not in f"{found}"


# ---------------------------------------------------------------------------------- names and arguments


def test_overlong_names_stay_apart() -> None:
    assert short("a" * 255) == "a" * 255
    one, two = short("ä" * 200 + "1"), short("ä" * 200 + "2")
    assert one != two
    assert max(len(one.encode()), len(two.encode())) <= 255


@pytest.mark.parametrize(
    "url", ["amqp://u:s3cret@host:port/", "amqp://u:s3cret@host/?nonsense=1", "redis://x"]
)
def test_bad_url(url: str) -> None:
    with pytest.raises(SettingsError) as failure:
        RabbitMQQueueProvider(url)
    assert "s3cret" not in str(failure.value)
    assert failure.value.__cause__ is None


@pytest.mark.parametrize("options", [{"prefix": ""}, {"prefix": "amq.x"}, {"queue_type": "stream"}])
def test_bad_option(options: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        RabbitMQQueueProvider("amqp://localhost/", **options)  # type: ignore[arg-type]


def test_wrong_password(amqp_url: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "liteflow")
    url = amqp_url.replace("guest:guest", "guest:s3cret-word")
    provider = RabbitMQQueueProvider(url, prefix)
    began = time.monotonic()
    with pytest.raises(ProviderError, match="refuses") as failure:
        provider.open()
    assert not isinstance(failure.value, QueueUnavailableError)
    assert time.monotonic() - began < 10
    assert "s3cret" not in str(failure.value) + caplog.text
    provider.close()


def test_unknown_virtual_host(amqp_url: str, prefix: str) -> None:
    with pytest.raises(ProviderError, match="refuses"):
        RabbitMQQueueProvider(amqp_url + "no-such-host", prefix).open()


def test_nobody_there(prefix: str) -> None:
    before = set(threading.enumerate())
    provider = RabbitMQQueueProvider(f"amqp://u:s3cret@127.0.0.1:{free_port()}/", prefix, open_timeout=0.5)
    with pytest.raises(QueueUnavailableError, match=r"127\.0\.0\.1:\d+ can't be reached.*0\.5 s") as failure:
        provider.open()
    assert "s3cret" not in str(failure.value)
    assert set(threading.enumerate()) <= before


def test_next_node(amqp_url: str, prefix: str) -> None:
    with opened(f"amqp://guest:guest@127.0.0.1:{free_port()}/,{amqp_url}", prefix) as provider:
        provider.send([Message("one", "1")])


def test_exchange_of_another_kind(amqp_url: str, prefix: str, raw: Raw) -> None:
    raw.channel.exchange_declare(prefix, "direct", durable=True)
    with pytest.raises(ProviderError, match="inequivalent"):
        RabbitMQQueueProvider(amqp_url, prefix).open()


def test_wake_ups_are_persistent(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    provider.send([Message("workflows.order.1", "id", traceparent="00-1-2-01")])
    _, properties, body = raw.get(raw.name("workflows.order.1"))
    assert body == b"id"
    assert properties.delivery_mode == 2
    assert properties.headers == {"traceparent": "00-1-2-01"}


def test_topology_is_there_from_the_start(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    for exchange in ("", "dead", "lifecycle"):
        raw.channel.exchange_declare(raw.name(exchange), passive=True)
    raw.publish("workflow.start", b"{}")
    until(lambda: raw.count(raw.name("commands")) == 1)


def test_queue_of_another_kind_is_used(
    provider: RabbitMQQueueProvider, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    raw.channel.queue_declare(raw.name("one"), durable=True)
    inbox = Inbox(ack=True)
    provider.consume(["one"], 1, inbox)
    provider.send([Message("one", "1")])
    inbox.wait(1)
    assert "used as it is" in caplog.text


def full_queue(raw: Raw, most: int) -> str:
    """A queue that refuses messages once it holds so many."""
    limits = {"x-max-length": most, "x-overflow": "reject-publish"}
    raw.channel.queue_declare(raw.name("one"), durable=True, arguments=limits)
    return raw.name("one")


def test_message_that_the_server_could_not_store_is_sent_again(
    provider: RabbitMQQueueProvider, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, refused = full_queue(raw, 1), threading.Event()
    original = Publisher._refused

    def note(publisher: Publisher, letter: Letter) -> None:
        refused.set()
        original(publisher, letter)

    monkeypatch.setattr(Publisher, "_refused", note)
    provider.send([Message("one", "1")])
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(provider.send, [Message("one", "2")])
        assert refused.wait(DEADLINE)
        assert raw.get(queue)[2] == b"1"
        sending.result(DEADLINE)
    assert raw.get(queue)[2] == b"2"


def test_message_that_the_server_can_never_store(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    full_queue(raw, 0)
    with pytest.raises(QueueUnavailableError, match="could not store"):
        provider.send([Message("one", "1")])


def test_server_without_quorum_queues(
    amqp_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(topology, "QUORUM", {"x-queue-type": "nonsense"})
    with opened(amqp_url, prefix) as provider:
        inbox = Inbox(ack=True)
        provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "1")])
        inbox.wait(1)
    assert caplog.text.count("no quorum queues") == 1


def test_classic_queues_if_asked_for(amqp_url: str, prefix: str, raw: Raw) -> None:
    with opened(amqp_url, prefix, queue_type="classic") as provider:
        provider.send([Message("one", "1")])
    raw.channel.queue_declare(raw.name("one"), durable=True)


def test_lifecycle_events(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    provider.publish_lifecycle([LifecycleMessage("order.1.started", b"{}", "m0")])
    queue = raw.reply_queue()
    raw.channel.queue_bind(queue, raw.name("lifecycle"), "order.#")
    provider.publish_lifecycle([LifecycleMessage("order.1.completed", b'{"id": 1}', "m1")])
    method, properties, body = raw.get(queue)
    assert (method.routing_key, body) == ("order.1.completed", b'{"id": 1}')
    assert (properties.message_id, properties.delivery_mode) == ("m1", 2)


def test_lifecycle_events_that_nobody_hears_are_known(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    queue = raw.reply_queue()
    raw.channel.queue_bind(queue, raw.name("lifecycle"), "order.*.completed")
    kinds = ("started", "completed", "error")
    provider.publish_lifecycle([LifecycleMessage(f"order.1.{kind}", b"{}", kind) for kind in kinds])
    assert [kind in provider.unheard("order", 1) for kind in kinds] == [True, False, True]
    assert "started" not in provider.unheard("order", 2)
    raw.get(queue)


def test_what_was_unheard_is_tried_again_by_one_after_a_moment() -> None:
    now = [0.0]
    listeners = Listeners(lambda: now[0])
    listeners.note("key", False)
    assert listeners.is_unheard("key")
    now[0] = 0.3
    assert [listeners.is_unheard("key") for _ in range(2)] == [False, True]
    listeners.note("key", True)
    assert not listeners.is_unheard("key")


def test_callback_must_not_wait(provider: RabbitMQQueueProvider) -> None:
    """A call that could never return says so instead."""
    inbox = Inbox()

    def callback(body: str) -> None:
        try:
            provider.send([Message("one", body)])
        except ProviderError as exc:
            inbox(str(exc))

    provider.subscribe("topic", callback)
    provider.notify("topic", "x")
    assert "callback" in inbox.wait(1)[0]


# ------------------------------------------------------------------------ what the server takes away


def test_deleted_queue_is_restored_for_a_message(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    provider.send([Message("one", "1")])
    raw.channel.queue_delete(raw.name("one"))
    provider.send([Message("one", "2"), Message("two", "3"), Message("one", "4"), Message("one", "4")])
    bodies = [raw.get(raw.name("one"))[2] for _ in range(3)]
    assert sorted(bodies) == [b"2", b"4", b"4"]


def test_deleted_queue_is_restored_for_a_consumer(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    inbox = Inbox(ack=True)
    provider.consume(["one", "two"], 5, inbox)
    raw.channel.queue_delete(raw.name("one"))
    provider.send([Message("one", "1"), Message("two", "2")])
    inbox.wait(2)


def test_deleted_exchange(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    """Costs the channel; the next one declares it again."""
    raw.channel.exchange_delete(raw.name("lifecycle"))
    with pytest.raises(QueueUnavailableError):
        provider.publish_lifecycle([LifecycleMessage("order.1.started", b"{}", "m0")])

    def works() -> bool:
        with suppress(QueueUnavailableError):
            provider.publish_lifecycle([LifecycleMessage("order.1.started", b"{}", "m0")])
            provider.send([Message("one", "1")])
            return True
        return False

    until(works)


def test_channel_closed_by_the_server(
    provider: RabbitMQQueueProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The consumer gets another one; what it held comes again, and settling the old delivery is harmless."""
    inbox = Inbox()
    consumer = provider.consume(["one"], 5, inbox)
    provider.send([Message("one", "1")])
    old = inbox.wait(1)[0]
    (feed,) = consumer._feeds  # type: ignore[attr-defined]
    provider._connection.call(lambda: feed.channel.raw.basic_ack(4711))
    new = inbox.wait(2)[1]
    assert (new.message.body, new.redelivered) == ("1", True)
    old.ack()
    old.nack()
    new.ack()
    provider.send([Message("one", "2")])
    assert inbox.wait(3)[2].message.body == "2"
    inbox.stays(3)
    assert "unknown delivery tag" in caplog.text


# ----------------------------------------------------------------------------------------- outages


class Senders:
    """Threads that send numbers, again after each failure, until they are stopped."""

    def __init__(self, provider: QueueProvider, threads: int) -> None:
        self.confirmed: list[str] = []
        self._stop = threading.Event()
        self._provider = provider
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _send(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            bodies = [f"{thread}-{number}-{i}" for i in range(3)]
            try:
                self._provider.send([Message("one", body) for body in bodies])
            except QueueUnavailableError:
                self._stop.wait(0.02)
            else:
                self.confirmed += bodies
                number += 1

    def more(self, count: int) -> None:
        aim = len(self.confirmed) + count
        until(lambda: len(self.confirmed) >= aim)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)


def until_recoverable(server: RabbitServer, prefix: str) -> None:
    """Wait until the server would find its quorum queues again after a crash.

    It writes their names to a file that it flushes once a second only, whatever it has confirmed before.
    """
    with opened(server.url, prefix) as provider:
        provider.send([Message("marker", "1")])
    marker = f"{prefix}.marker".encode()
    until(lambda: all(marker in f.read_bytes() for f in server.folder.glob("mnesia/*/quorum/*/names.dets")))


def test_server_killed_and_started_again(
    own_rabbitmq: RabbitServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that was confirmed is lost, and everything goes on by itself."""
    caplog.set_level(logging.INFO, "liteflow")
    inbox, heard = Inbox(ack=True), Inbox()
    with opened(own_rabbitmq.url, prefix) as provider, opened(own_rabbitmq.url, prefix) as second:
        second.consume(["one"], 10, inbox)
        second.subscribe("topic", heard)
        senders = Senders(provider, 3)
        try:
            senders.more(100)
            until_recoverable(own_rabbitmq, prefix)
            own_rabbitmq.kill()
            until(lambda: "lost" in caplog.text)
            provider.notify("topic", "lost without harm")
            with pytest.raises(QueueUnavailableError, match=f"127.0.0.1:{own_rabbitmq.port}"):
                provider.depth("one")
            own_rabbitmq.start()
            senders.more(100)
        finally:
            senders.stop()
        until(lambda: set(senders.confirmed) <= set(inbox.bodies()))
        provider.notify("topic", "again")
        heard.wait(1)
        assert second.depth("one") == 0
    lost = [r.getMessage() for r in caplog.records if "was lost" in r.getMessage()]
    again = [r.getMessage() for r in caplog.records if " again, after" in r.getMessage()]
    assert (len(lost), len(again)) == (2, 2)
    assert all(f"127.0.0.1:{own_rabbitmq.port}" in line for line in lost + again)
    assert "guest" not in caplog.text


@pytest.mark.parametrize("first", [True, False])
def test_given_up_at_the_moment_in_which_it_is_connected(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """The connection is closed, and nothing but the cancellation is raised."""
    create = Driver.create_connection
    made: list[Driver] = []

    async def scenario() -> None:
        def create_and_give_up(nodes: Any, on_done: Any, custom_ioloop: Any) -> Any:
            def connected(result: Any) -> None:
                made.append(result)
                for act in (task.cancel, partial(on_done, result))[:: 1 if first else -1]:
                    act()

            return create(nodes, on_done=connected, custom_ioloop=custom_ioloop)

        monkeypatch.setattr(Driver, "create_connection", create_and_give_up)
        task = asyncio.create_task(connect(pika.URLParameters(amqp_url)))
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, DEADLINE)
        closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        made[0].add_on_close_callback(into(closed))
        if not made[0].is_closed:
            await asyncio.wait_for(closed, DEADLINE)

    asyncio.run(scenario())


def test_a_connection_that_is_lost_before_it_is_used(
    amqp_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    create = Driver.create_connection
    made: list[Driver] = []

    def create_and_lose(nodes: Any, on_done: Any, custom_ioloop: Any) -> Any:
        def connected(driver: Any) -> None:
            on_done(driver)
            if not made:
                driver._terminate_stream(ConnectionError("lost at once"))
            made.append(driver)

        return create(nodes, on_done=connected, custom_ioloop=custom_ioloop)

    monkeypatch.setattr(Driver, "create_connection", create_and_lose)
    with opened(amqp_url, prefix) as provider:
        provider.send([Message("one", "1")])
        assert provider.depth("one") == 1
    assert "stopped working" not in caplog.text
    assert "it was lost before it was used" in caplog.text


def test_closed_while_the_server_is_away(own_rabbitmq: RabbitServer, prefix: str) -> None:
    before = set(threading.enumerate())
    with opened(own_rabbitmq.url, prefix) as provider:
        inbox = Inbox()
        consumer = provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "1")])
        held = inbox.wait(1)[0]
        own_rabbitmq.kill()
        held.ack()
        until(lambda: provider._connection.driver is None)
        with pytest.raises(QueueUnavailableError):
            provider.send([Message("one", "2")])
        waiting = provider.consume(["two"], 1, inbox)
        consumer.limit(0)
        consumer.cancel()
        waiting.limit(2)
    assert set(threading.enumerate()) <= before


def test_hanging_server(own_rabbitmq: RabbitServer, prefix: str) -> None:
    """No call waits longer than its timeout, nor does a farewell; after that all goes on."""
    with opened(own_rabbitmq.url, prefix, confirm_timeout=1.0) as provider:
        provider.send([Message("one", "1")])
        second = RabbitMQQueueProvider(own_rabbitmq.url, prefix)
        second.open()
        own_rabbitmq.pause()
        try:
            for call in (lambda: provider.send([Message("one", "2")]), lambda: provider.depth("one")):
                with pytest.raises(QueueUnavailableError, match="did not answer within 1 s"):
                    call()
            began = time.monotonic()
            second.close()
            assert time.monotonic() - began < 10
        finally:
            own_rabbitmq.resume()
        provider.send([Message("one", "3")])


def control(server: RabbitServer, *arguments: str) -> None:
    """rabbitmqctl."""
    subprocess.run(
        ["/usr/lib/rabbitmq/bin/rabbitmqctl", *arguments],
        env={**os.environ, **server.environment()},
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_server_short_of_memory(own_rabbitmq: RabbitServer, prefix: str) -> None:
    """It blocks publishers: they hear why, and can go on when it is over."""
    with opened(own_rabbitmq.url, prefix, confirm_timeout=2.0) as provider:
        provider.send([Message("one", "1")])
        control(own_rabbitmq, "set_vm_memory_high_watermark", "0.00001")

        def refused() -> bool:
            try:
                provider.send([Message("one", "2")])
            except QueueUnavailableError as exc:
                return "low on memory" in str(exc)
            return False

        until(refused)
        checked = RabbitMQQueueProvider(own_rabbitmq.url, prefix).check()[-1]
        assert checked.severity is Severity.PROBLEM
        assert "low on memory" in checked.message
        control(own_rabbitmq, "set_vm_memory_high_watermark", "0.6")

        def works() -> bool:
            with suppress(QueueUnavailableError):
                provider.send([Message("one", "3")])
                return True
            return False

        until(works)


# ---------------------------------------------------------------------------------------- commands


class Handler:
    """Keeps the commands and does with each what the test says."""

    def __init__(self, act: Callable[[Command], Answer | Refusal]) -> None:
        self.commands: list[Command] = []
        self._act = act

    def __call__(self, command: Command) -> Answer | Refusal:
        self.commands.append(command)
        return self._act(command)


def accept(command: Command) -> Answer:
    return Answer({"id": command.body.decode()})


def refuse(command: Command) -> Refusal:
    return Refusal("bad_field", "version must be ä\ud800 number")


def test_answer(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    handler = Handler(accept)
    provider.serve_commands(handler, 2)
    queue = raw.reply_queue()
    raw.publish(
        "workflow.start",
        b"w1",
        message_id="m1",
        reply_to=queue,
        correlation_id="c1",
        content_type="application/json",
        headers={"traceparent": "00-1-2-01"},
        timestamp=1_700_000_000,
    )
    _, properties, body = raw.get(queue)
    assert json.loads(body) == {"id": "w1"}
    assert properties.correlation_id == "c1"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    (command,) = handler.commands
    assert (command.routing_key, command.message_id, command.body) == ("workflow.start", "m1", b"w1")
    assert command.headers == {"traceparent": "00-1-2-01"}
    assert command.timestamp is not None and command.timestamp.timestamp() == 1_700_000_000
    assert not command.redelivered
    until(lambda: raw.count(raw.name("commands")) == 0)


def test_direct_reply(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    provider.serve_commands(accept, 2)
    answers: list[bytes] = []
    raw.channel.basic_consume(
        "amq.rabbitmq.reply-to", lambda *message: answers.append(message[3]), auto_ack=True
    )
    raw.publish("workflow.start", b"w1", reply_to="amq.rabbitmq.reply-to", correlation_id="c1")

    def answered() -> bool:
        raw._connection.process_data_events(0)
        return bool(answers)

    until(answered)
    assert json.loads(answers[0]) == {"id": "w1"}


def test_refusal(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    """The message ends among the dead letters as it was, with the reason; then the sender hears of it."""
    provider.serve_commands(refuse, 2)
    queue = raw.reply_queue()
    sent = {
        "message_id": "m1",
        "correlation_id": "c1",
        "reply_to": queue,
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "timestamp": 1_700_000_000,
        "priority": 3,
        "type": "t",
        "app_id": "shop",
        "user_id": "guest",
        "delivery_mode": 1,
    }
    headers = {"traceparent": "00-1-2-01", "n": 5, "nested": {"list": ["a", None, True, 2**40]}}
    raw.publish("workflow.start.now", b"\xff\x00nonsense", headers=headers, **sent)
    assert json.loads(raw.get(queue)[2]) == {
        "error": "bad_field",
        "reason": "version must be ä\ud800 number",
    }
    method, properties, body = raw.get(raw.name("dead"))
    assert body == b"\xff\x00nonsense"
    assert method.routing_key == "workflow.start.now"
    assert {name: getattr(properties, name) for name in sent} == sent
    assert properties.headers == headers | {
        "x-liteflow-error": "bad_field",
        "x-liteflow-reason": "version must be ä\\ud800 number",
        "x-liteflow-routing-key": "workflow.start.now",
    }
    until(lambda: raw.count(raw.name("commands")) == 0)


def test_refused_message_that_would_expire(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    provider.serve_commands(refuse, 2)
    raw.publish("workflow.start", b"x", expiration="60000")
    _, properties, _ = raw.get(raw.name("dead"))
    assert properties.expiration is None
    assert properties.headers["x-liteflow-expiration"] == "60000"


def test_refused_message_of_another_user(own_rabbitmq: RabbitServer, prefix: str) -> None:
    """The server lets nobody send with another's name: a header has it."""
    control(own_rabbitmq, "add_user", "shop", "shop")
    control(own_rabbitmq, "set_permissions", "shop", ".*", ".*", ".*")
    with opened(own_rabbitmq.url, prefix) as provider:
        provider.serve_commands(refuse, 2)
        raw = Raw(own_rabbitmq.url.replace("guest:guest", "shop:shop"), prefix)
        raw.publish("workflow.start", b"x", user_id="shop")
        _, properties, _ = raw.get(raw.name("dead"))
        assert properties.user_id is None
        assert properties.headers["x-liteflow-user-id"] == "shop"
        raw.close()


def test_large_body(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    handler = Handler(refuse)
    provider.serve_commands(handler, 2)
    body = os.urandom(5_000_000)
    raw.publish("workflow.start", body)
    assert raw.get(raw.name("dead"))[2] == body
    assert handler.commands[0].body == body


def test_large_headers(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    """With ours they would not fit a frame, which costs the connection: the reason is what is kept."""
    provider.serve_commands(refuse, 2)
    raw.publish("workflow.start", b"x", headers={"large": "x" * 130_000})
    _, properties, body = raw.get(raw.name("dead"))
    assert body == b"x"
    assert properties.headers["x-liteflow-error"] == "bad_field"


class Unreadable(pika.BasicProperties):
    """A header with a date in the year 36 billion, which AMQP allows and pika can't read."""

    def encode(self) -> list[bytes]:
        table = b"\x04when" + b"T" + struct.pack(">Q", 2**60)
        return [struct.pack(">H", self.FLAG_HEADERS), struct.pack(">I", len(table)), table]


def test_unreadable_properties(
    provider: RabbitMQQueueProvider, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    """One odd message is refused, and does not cost the connection that everybody uses."""
    provider.serve_commands(accept, 2)
    raw.channel.basic_publish(raw.prefix, "workflow.start", b"odd", Unreadable())
    _, properties, body = raw.get(raw.name("dead"))
    assert body == b"odd"
    assert properties.headers["x-liteflow-error"] == "malformed"
    assert "lost" not in caplog.text


def test_reply_to_a_vanished_queue(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    handler = Handler(accept)
    provider.serve_commands(handler, 1)
    for vanished in ("nowhere", "amq.rabbitmq.reply-to.nonsense"):
        raw.publish("workflow.start", b"1", reply_to=vanished)
    queue = raw.reply_queue()
    raw.publish("workflow.start", b"2", reply_to=queue)
    assert json.loads(raw.get(queue)[2]) == {"id": "2"}
    until(lambda: raw.count(raw.name("commands")) == 0)
    assert len(handler.commands) == 3


def test_command_waits_for_a_backend(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    """It is given back as often as it takes, more often than a server's delivery limit."""
    failures = iter(range(25))

    def act(command: Command) -> Answer:
        if next(failures, None) is not None:
            raise StoreUnavailableError("away")
        return accept(command)

    handler = Handler(act)
    server = provider.serve_commands(handler, 1)
    server._pauses = iter(lambda: 0.001, None)  # type: ignore[attr-defined]
    queue = raw.reply_queue()
    raw.publish("workflow.start", b"1", reply_to=queue)
    assert json.loads(raw.get(queue)[2]) == {"id": "1"}
    assert len(handler.commands) == 26


def test_command_that_meets_a_defect(
    provider: RabbitMQQueueProvider, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    """Tried twice, then among the dead letters: no loop, and others go on."""

    def act(command: Command) -> Answer:
        if command.body == b"bad":
            raise ZeroDivisionError("on purpose")
        return accept(command)

    handler = Handler(act)
    provider.serve_commands(handler, 2)
    queue = raw.reply_queue()
    raw.publish("workflow.start", b"bad", reply_to=queue, correlation_id="1")
    raw.publish("workflow.start", b"good", reply_to=queue, correlation_id="2")
    answers = [raw.get(queue)[1:] for _ in range(2)]
    by_id = {properties.correlation_id: json.loads(body) for properties, body in answers}
    assert by_id["2"] == {"id": "good"}
    assert by_id["1"]["error"] == "internal"
    _, properties, body = raw.get(raw.name("dead"))
    assert body == b"bad"
    assert "x-delivery-count" not in properties.headers
    assert [c.body for c in handler.commands].count(b"bad") == 2
    assert "on purpose" in caplog.text


def test_commands_side_by_side(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    """As many as was asked for, and no more; each off the connection's thread."""
    together = threading.Barrier(3)
    running: list[int] = []
    most: list[int] = []

    def act(command: Command) -> Answer:
        running.append(1)
        most.append(len(running))
        together.wait(DEADLINE)
        provider.send([Message("one", "from a handler")])
        running.pop()
        return accept(command)

    provider.serve_commands(act, 3)
    for n in range(12):
        raw.publish("workflow.start", str(n).encode())
    until(lambda: len(most) == 12)
    assert max(most) == 3


def test_handler_outlived_by_nobody(amqp_url: str, prefix: str, raw: Raw) -> None:
    """A provider that is closed while a handler runs: the command comes again, elsewhere."""
    entered, leave = threading.Event(), threading.Event()

    def act(command: Command) -> Answer:
        entered.set()
        leave.wait(DEADLINE)
        return accept(command)

    with opened(amqp_url, prefix) as provider:
        provider.serve_commands(act, 1)
        queue = raw.reply_queue()
        raw.publish("workflow.start", b"1", reply_to=queue)
        raw.publish("workflow.start", b"2", reply_to=queue)
        assert entered.wait(DEADLINE)
    with opened(amqp_url, prefix) as second:
        handler = Handler(accept)
        second.serve_commands(handler, 1)
        bodies = {raw.get(queue)[2] for _ in range(2)}
        assert bodies == {b'{"id": "1"}', b'{"id": "2"}'}
        assert next(c for c in handler.commands if c.body == b"1").redelivered
    leave.set()


def test_cancel_lets_handlers_finish(provider: RabbitMQQueueProvider, raw: Raw) -> None:
    """What runs is answered; what was not begun is for others; no thread is left."""
    before = set(threading.enumerate())
    entered, leave = threading.Event(), threading.Event()

    def act(command: Command) -> Answer:
        entered.set()
        leave.wait(DEADLINE)
        return accept(command)

    server = provider.serve_commands(act, 1)
    assert isinstance(server, CommandConsumer)
    queue = raw.reply_queue()
    for n in range(3):
        raw.publish("workflow.start", str(n).encode(), reply_to=queue)
    assert entered.wait(DEADLINE)
    with ThreadPoolExecutor(1) as pool:
        cancelling = pool.submit(server.cancel)
        until(lambda: server._ending)
        leave.set()
        cancelling.result(DEADLINE)
    assert set(threading.enumerate()) <= before
    assert json.loads(raw.get(queue)[2]) == {"id": "0"}
    until(lambda: raw.count(raw.name("commands")) == 2)
    server.cancel()


def test_commands_go_on_after_an_outage(own_rabbitmq: RabbitServer, prefix: str) -> None:
    with opened(own_rabbitmq.url, prefix) as provider:
        provider.serve_commands(refuse, 2)
        raw = Raw(own_rabbitmq.url, prefix)
        raw.publish("workflow.start", b"1", delivery_mode=2)
        until(lambda: raw.count(raw.name("dead")) == 1)
        until_recoverable(own_rabbitmq, prefix)
        own_rabbitmq.kill()
        until(lambda: provider._connection.driver is None)
        own_rabbitmq.start()
        raw = Raw(own_rabbitmq.url, prefix)
        raw.publish("workflow.start", b"2", delivery_mode=2)
        assert {raw.get(raw.name("dead"))[2] for _ in range(2)} == {b"1", b"2"}
        raw.close()


def test_who_gives_up_a_server_that_says_nothing_leaves_nothing_behind() -> None:
    """The connection is in its handshake then. What a thread raises is an error of the test here.

    `close` waits for the thread: it has ended, and raised what it raises, once `close` returns.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        provider = RabbitMQQueueProvider(f"amqp://127.0.0.1:{silent.getsockname()[1]}", open_timeout=0.5)
        with pytest.raises(ProviderError):
            provider.open()
        provider.close()
        accepted, _ = silent.accept()
        with accepted:
            accepted.settimeout(DEADLINE)
            while accepted.recv(4096):  # until it is closed
                pass
