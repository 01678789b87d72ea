"""What the queues of both clouds do beyond the contract: deaths, long holds, outages, odd messages."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cloud_providers import SECRET, holder, opened_queue, queue_on, session
from servers import AzuriteServer, LocalServer, MotoServer, free_port, wait_for

from liteflow.core.errors import ProviderError, QueueUnavailableError
from liteflow.core.providers import Message, QueueProvider
from liteflow.core.testing.queue import Inbox, until
from liteflow.core.wire import plain_name


@pytest.fixture(params=["azure", "aws"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connection(kind: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("azure" if kind == "azure" else "aws_endpoint"))


@pytest.fixture
def own(kind: str) -> Iterator[LocalServer]:
    server: LocalServer = AzuriteServer() if kind == "azure" else MotoServer()
    server.start()
    yield server
    server.close()


def put(kind: str, provider: Any, prefix: str, queue: str, text: str) -> None:
    """Send a text as it is, as somebody else would."""
    name = plain_name(prefix, queue, 63 if kind == "azure" else 80)
    client = provider._server._service if kind == "azure" else provider._server._client
    if kind == "azure":
        client.get_queue_client(name).send_message(text)
    else:
        client.send_message(QueueUrl=client.get_queue_url(QueueName=name)["QueueUrl"], MessageBody=text)


def test_what_a_killed_process_held_comes_back_as_redelivered(
    kind: str, connection: str, prefix: str
) -> None:
    with opened_queue(kind, connection, prefix) as provider:
        provider.send([Message("one", "a"), Message("one", "b")])
        with holder(kind, connection, prefix, "one") as process:
            assert process.stdout is not None
            assert {process.stdout.readline().strip() for _ in range(2)} == {"a", "b"}
            process.kill()
        inbox = Inbox(ack=True)
        provider.consume(["one"], 10, inbox)
        assert all(delivery.redelivered for delivery in inbox.wait(2))
        assert sorted(inbox.bodies()) == ["a", "b"]


def test_a_message_is_hidden_for_as_long_as_it_is_held(
    kind: str, connection: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, other = Inbox(), Inbox()
    with (
        opened_queue(kind, connection, prefix, visibility_timeout=1) as provider,
        opened_queue(kind, connection, prefix) as second,
    ):
        server = provider._server  # type: ignore[attr-defined]
        extended, enough = [], threading.Event()
        real = server.extend

        def extend(batch: Any) -> None:
            real(batch)
            extended.append(batch)
            if len(extended) == 6:  # each is a third of the time-out after the last, at least
                enough.set()

        monkeypatch.setattr(server, "extend", extend)
        provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "a")])
        held = inbox.wait(1)[0]
        second.consume(["one"], 1, other)
        assert enough.wait(20)
        other.stays(0)
        held.ack()
        until(lambda: second.depth("one") == 0)
        other.stays(0)


def test_after_the_hidden_time_an_unextended_message_is_handed_out_again(
    kind: str, connection: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a late acknowledgement of the first delivery ends nothing and breaks nothing."""
    inbox, other = Inbox(), Inbox()
    with (
        opened_queue(kind, connection, prefix, visibility_timeout=1) as provider,
        opened_queue(kind, connection, prefix) as second,
    ):
        monkeypatch.setattr(provider._server, "extend", lambda batch: None)  # type: ignore[attr-defined]
        provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "a")])
        first = inbox.wait(1)[0]
        second.consume(["one"], 1, other)
        again = other.wait(1)[0]
        assert again.redelivered
        first.ack()
        again.ack()
        until(lambda: second.depth("one") == 0)


def test_what_is_none_of_ours_is_set_aside(
    kind: str, connection: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes to the queue for the dead, unchanged, and what comes after it is delivered."""
    odd = ["no base64 at all", base64.b64encode(b"no json").decode(), base64.b64encode(b'{"x": 1}').decode()]
    if kind == "aws":
        odd = ["no json", '{"x": 1}', '{"body": 7}']
    with opened_queue(kind, connection, prefix) as provider:
        inbox = Inbox(ack=True)
        provider.send([Message("one", "first")])
        provider.consume(["one"], 10, inbox)
        for text in odd:
            put(kind, provider, prefix, "one", text)
        provider.send([Message("one", "last")])
        inbox.wait(2)
        until(lambda: provider.depth("dead") == len(odd))
        until(lambda: provider.depth("one") == 0)
        inbox.stays(2)
    assert "none of liteflow's" in caplog.text


def test_a_message_that_is_too_large_is_refused(kind: str, connection: str, prefix: str) -> None:
    with opened_queue(kind, connection, prefix) as provider:
        with pytest.raises(ProviderError, match="bytes") as failure:
            provider.send([Message("one", "x" * 300_000)])
        assert not isinstance(failure.value, QueueUnavailableError)


def test_hundreds_of_messages_in_one_call(kind: str, connection: str, prefix: str) -> None:
    """More than a request takes, for more than one queue, and large ones among them."""
    size = 20_000 if kind == "azure" else 60_000
    messages = [Message(f"q{n % 3}", f"{n}-" + "x" * (size if n % 20 == 0 else 1)) for n in range(130)]
    inbox = Inbox(ack=True)
    with opened_queue(kind, connection, prefix) as provider:
        provider.send(messages)
        provider.consume(["q0", "q1", "q2"], 20, inbox)
        inbox.wait(130)
        assert sorted(inbox.bodies()) == sorted(message.body for message in messages)


def test_a_deleted_queue_is_made_anew(kind: str, connection: str, prefix: str) -> None:
    inbox = Inbox(ack=True)
    with opened_queue(kind, connection, prefix) as provider:
        provider.consume(["one"], 1, inbox)
        server: Any = provider._server  # type: ignore[attr-defined]
        if kind == "azure":
            server._client("one").delete_queue()
        else:
            server._client.delete_queue(QueueUrl=server._urls["one"])
        provider.send([Message("one", "1")])
        inbox.wait(1)


def test_an_outage_is_waited_out(
    kind: str, own: LocalServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The emulator forgets everything when it is killed, which is worse than an outage."""
    caplog.set_level(logging.INFO, "liteflow")
    inbox, heard = Inbox(ack=True), Inbox()
    with opened_queue(kind, own.url, prefix) as provider, opened_queue(kind, own.url, prefix) as second:
        provider.consume(["one"], 1, inbox)
        provider.subscribe("topic", heard)
        own.kill()
        with pytest.raises(QueueUnavailableError):
            provider.send([Message("one", "1")])
        wait_for("the poller notices", lambda: "can't be read" in caplog.text)
        own.start()
        wait_for("it is sent", lambda: provider.send([Message("one", "2")]) is None)
        inbox.wait(1)

        def told() -> int:
            second.notify("topic", "x")
            return len(heard.items)

        until(told)
    assert "is read again" in caplog.text


def test_a_server_that_is_away_at_first_is_waited_for(kind: str, own: LocalServer, prefix: str) -> None:
    own.kill()
    inbox = Inbox(ack=True)
    with opened_queue(kind, own.url, prefix) as provider:
        provider.consume(["one"], 1, inbox)
        provider.subscribe("topic", inbox)
        own.start()
        wait_for("it is sent", lambda: provider.send([Message("one", "2")]) is None)
        inbox.wait(1)


def test_refused_credentials_are_one_line_without_the_secret(
    kind: str, azure: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider: QueueProvider
    if kind == "azure":
        wrong = base64.b64encode(SECRET.encode()).decode()
        provider = queue_on(kind, azure.replace(AzuriteServer.key, wrong), prefix)
        secrets = [SECRET, wrong]
        check(provider, secrets, caplog)
    else:
        server = MotoServer(strict=True)
        server.start()
        try:
            provider = queue_on(kind, server.url, prefix, session=session())
            check(provider, [SECRET], caplog)
        finally:
            server.close()


def check(provider: QueueProvider, secrets: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ProviderError, match="refuses access") as failure:
        provider.open()
    provider.close()
    assert not isinstance(failure.value, QueueUnavailableError)
    for secret in secrets:
        assert secret not in str(failure.value) + repr(provider) + caplog.text
    assert "\n" not in str(failure.value)


def test_an_address_where_nobody_answers_shows_no_secret(
    kind: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    if kind == "azure":
        key = base64.b64encode(SECRET.encode()).decode()
        url = f"AccountName=abc;AccountKey={key};QueueEndpoint={url}/abc;BlobEndpoint={url}/abc"
    with opened_queue(kind, url, prefix) as provider:
        with pytest.raises(QueueUnavailableError, match="does not answer") as failure:
            provider.send([Message("one", "1")])
    assert SECRET not in str(failure.value) + caplog.text
    assert "does not answer" in caplog.text
