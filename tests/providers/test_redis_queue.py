"""The queue provider for Redis, on real servers: the contract, deaths, outages, lost data, commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from servers import RedisServer, free_port

from liteflow.core.commands import Answer, Command, DeadLetter, DeadLetters, Refusal
from liteflow.core.errors import ProviderError, QueueUnavailableError, SettingsError, StoreUnavailableError
from liteflow.core.providers import Delivery, Message, QueueProvider
from liteflow.core.testing.queue import DEADLINE, Inbox, QueueContract, until
from liteflow.providers.redis import RedisQueueProvider, client


@contextmanager
def opened(url: str, prefix: str, **options: Any) -> Iterator[RedisQueueProvider]:
    provider = RedisQueueProvider(url, prefix, **options)
    provider.open()
    try:
        yield provider
    finally:
        provider.close()


class TestContract(QueueContract):
    @pytest.fixture
    def provider(self, redis_url: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(redis_url, prefix) as provider:
            yield provider

    @pytest.fixture
    def second(self, redis_url: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(redis_url, prefix) as provider:
            yield provider

    @pytest.fixture
    def elsewhere(self, redis_url: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(redis_url, prefix + "x") as provider:
            yield provider


@pytest.fixture
def raw(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def provider(redis_url: str, prefix: str) -> Iterator[RedisQueueProvider]:
    with opened(redis_url, prefix) as provider:
        yield provider


# ------------------------------------------------------------------------------------- life and death

HOLDER = """
import sys, threading
from liteflow.providers.redis import RedisQueueProvider
provider = RedisQueueProvider(sys.argv[1], sys.argv[2], session_ttl=1.0)
provider.open()
provider.consume(["one"], 5, lambda delivery: print(delivery.message.body, delivery.redelivered, flush=True))
print("ready", flush=True)
threading.Event().wait()
"""


@contextmanager
def holder(url: str, prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds what it gets, and tells it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, prefix], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert line(process) == "ready"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_messages_of_a_killed_process_are_delivered_again_and_say_so(
    redis_url: str, prefix: str, provider: RedisQueueProvider
) -> None:
    with holder(redis_url, prefix) as process:
        provider.send([Message("one", "a"), Message("one", "b", traceparent="t")])
        assert {line(process), line(process)} == {"a False", "b False"}
        process.kill()
        inbox = Inbox(ack=True)
        provider.consume(["one"], 5, inbox)
        got = inbox.wait(2)
    assert sorted(inbox.bodies()) == ["a", "b"]
    assert all(delivery.redelivered for delivery in got)
    assert {delivery.message.traceparent for delivery in got} == {None, "t"}
    inbox.stays(2)


def test_what_waits_in_the_queue_of_a_killed_process_is_not_called_redelivered(
    redis_url: str, prefix: str, provider: RedisQueueProvider
) -> None:
    with holder(redis_url, prefix) as process:
        provider.send([Message("one", str(n)) for n in range(7)])
        held = {line(process).split()[0] for _ in range(5)}
    inbox = Inbox(ack=True)
    provider.consume(["one"], 10, inbox)
    got = inbox.wait(7)
    assert {delivery.message.body for delivery in got if delivery.redelivered} == held


def test_a_process_that_stood_still_gives_way_and_works_on(
    redis_url: str, prefix: str, provider: RedisQueueProvider
) -> None:
    with holder(redis_url, prefix) as process:
        provider.send([Message("one", "a")])
        assert line(process) == "a False"
        process.send_signal(signal.SIGSTOP)
        inbox = Inbox(ack=True)
        consumer = provider.consume(["one"], 5, inbox)
        assert inbox.wait(1)[0].redelivered
        consumer.cancel()
        process.send_signal(signal.SIGCONT)
        provider.send([Message("one", "b")])
        assert line(process) == "b False"
        assert provider.depth("one") == 0


def test_a_message_that_is_held_for_long_stays_its_holders(redis_url: str, prefix: str) -> None:
    with opened(redis_url, prefix, session_ttl=0.3) as one, opened(redis_url, prefix, session_ttl=0.3) as two:
        mine, theirs = Inbox(), Inbox()
        one.consume(["one"], 1, mine)
        one.send([Message("one", "a")])
        held = mine.wait(1)[0]
        two.consume(["one"], 1, theirs)
        for _ in range(5):  # each watches as long as a session lives
            theirs.stays(0)
        held.nack()
        both = mine.items[1:] + theirs.items
        until(lambda: mine.items[1:] + theirs.items)
        both = mine.items[1:] + theirs.items
        assert [delivery.redelivered for delivery in both] == [True]


def test_what_a_lowered_limit_sends_back_unseen_is_not_called_redelivered(
    provider: RedisQueueProvider,
) -> None:
    entered, leave = threading.Event(), threading.Event()
    inbox, other = Inbox(), Inbox(ack=True)

    def callback(delivery: Delivery) -> None:
        inbox(delivery)
        entered.set()
        leave.wait(DEADLINE)

    provider.send([Message("one", "a"), Message("one", "b")])
    consumer = provider.consume(["one"], 2, callback)
    assert entered.wait(DEADLINE)
    consumer.limit(1)
    leave.set()
    provider.consume(["one"], 1, other)
    other.wait(1)
    assert other.bodies() == ["b"]
    assert not other.items[0].redelivered


def test_streams_do_not_grow_and_nothing_else_is_left(redis_url: str, prefix: str, raw: Any) -> None:
    with opened(redis_url, prefix) as provider:
        inbox = Inbox(ack=True)
        provider.consume(["one"], 50, inbox)
        for _ in range(10):
            provider.send([Message("one", str(n)) for n in range(100)])
        inbox.wait(1000)
        provider.consume(["two"], 1, inbox).cancel()
    stream = f"{prefix}:queue:one"
    assert raw.xlen(stream) == 0
    assert raw.xpending(stream, "liteflow")["pending"] == 0
    assert raw.xinfo_consumers(stream, "liteflow") == []
    until(lambda: sorted(raw.scan_iter(f"{prefix}:*")) == [stream, f"{prefix}:queue:two"])


def test_what_a_killed_process_leaves_behind_runs_out(redis_url: str, prefix: str, raw: Any) -> None:
    with holder(redis_url, prefix) as process:
        until(lambda: len(list(raw.scan_iter(f"{prefix}:wake:*"))) == 1)
        process.kill()
        until(lambda: list(raw.scan_iter(f"{prefix}:*")) == [f"{prefix}:queue:one"])


# ------------------------------------------------------------------------------------------- outages


def again(provider: RedisQueueProvider, *messages: Message) -> None:
    """Send as soon as the server takes it."""

    def sent() -> bool:
        try:
            provider.send(messages)
        except QueueUnavailableError:
            return False
        return True

    until(sent)


def test_a_restarted_server_has_all_messages_and_those_in_hand_come_again(
    own_redis: RedisServer, prefix: str
) -> None:
    with opened(own_redis.url, prefix) as provider:
        inbox, heard = Inbox(), Inbox()
        provider.consume(["one"], 2, inbox)
        provider.subscribe("topic", heard)
        provider.send([Message("one", str(n)) for n in range(4)])
        first, second = inbox.wait(2)
        own_redis.kill()
        first.ack()  # it is written when the server is back
        with pytest.raises(QueueUnavailableError):
            provider.send([Message("one", "x")])
        with pytest.raises(QueueUnavailableError):
            provider.depth("one")
        own_redis.start()
        got = inbox.wait(4)[2:]
        for delivery in got:
            delivery.ack()
        inbox.wait(5)
        assert sorted(inbox.bodies()[2:]) == sorted({"0", "1", "2", "3"} - {first.message.body})
        assert [d.message.body for d in inbox.items[2:] if d.redelivered] == [second.message.body]
        second.ack()  # of a session that is over: it does nothing
        until(lambda: hears(provider, heard))


def hears(provider: RedisQueueProvider, heard: Inbox) -> bool:
    provider.notify("topic", "x")
    return bool(heard.items)


def test_a_server_that_lost_its_data_is_used_anew_and_the_log_says_so(
    own_redis: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(own_redis.url, prefix) as provider:
        inbox = Inbox(ack=True)
        provider.consume(["one", "two"], 2, inbox)
        provider.send([Message("one", "a")])
        inbox.wait(1)
        own_redis.kill()
        shutil.rmtree(own_redis.folder / "appendonlydir")
        own_redis.start()
        again(provider, Message("one", "b"))
        until(lambda: "b" in inbox.bodies())
        assert "has lost 2 of 2 queues" in caplog.text
        assert "the scheduler sends again" in caplog.text


def test_deleted_streams_are_made_again(
    provider: RedisQueueProvider, prefix: str, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(ack=True)
    provider.consume(["one"], 2, inbox)
    raw.delete(f"{prefix}:queue:one")
    provider.send([Message("one", "a")])
    inbox.wait(1)
    until(lambda: "has lost 1 of 1 queues" in caplog.text)


def test_a_hanging_server_is_not_waited_for_for_ever(own_redis: RedisServer, prefix: str) -> None:
    with opened(own_redis.url, prefix, timeout=0.5) as provider:
        inbox = Inbox(ack=True)
        provider.consume(["one"], 1, inbox)
        own_redis.pause()
        try:
            with pytest.raises(QueueUnavailableError):
                provider.send([Message("one", "a")])
        finally:
            own_redis.resume()
        again(provider, Message("one", "b"))
        until(lambda: "b" in inbox.bodies())


def test_closing_while_the_server_is_away_ends(own_redis: RedisServer, prefix: str) -> None:
    with opened(own_redis.url, prefix) as provider:
        provider.consume(["one"], 1, Inbox())
        own_redis.kill()
    assert not [t for t in threading.enumerate() if t.name.startswith("liteflow-redis")]


# -------------------------------------------------------------------------------------------- refusals


def refused(url: str, prefix: str, **options: Any) -> str:
    """What opening says, in one line."""
    provider = RedisQueueProvider(url, prefix, **{"open_timeout": 0.3, **options})
    with pytest.raises(ProviderError) as caught:
        provider.open()
    assert not [t for t in threading.enumerate() if t.name.startswith("liteflow-redis")]
    assert "\n" not in str(caught.value)
    assert "s3cret" not in repr(provider) + str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("url", ["", "http://x", "redis://a:port", "redis://a/0?protocol=3"])
def test_impossible_urls_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="URL of the queue server"):
        RedisQueueProvider(url)


def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    assert f"127.0.0.1:{port} can't be used now" in refused(f"redis://:s3cret@127.0.0.1:{port}/0", "p")


def test_a_wrong_password_is_told_without_repeating_it(redis_url: str, prefix: str) -> None:
    url = redis_url.replace("redis://", "redis://somebody:s3cret@")
    assert "refuses the login: check user name and password" in refused(url, prefix)


def test_a_user_without_permission_is_told_what_to_grant(redis_url: str, prefix: str, raw: Any) -> None:
    raw.acl_setuser(prefix, enabled=True, passwords=["+s3cret"], categories=["+@all"], keys=["elsewhere:*"])
    url = redis_url.replace("redis://", f"redis://{prefix}:s3cret@")
    try:
        assert f"ACL SETUSER ... ~{prefix}:* &{prefix}:* +@all -@admin" in refused(url, prefix)
        raw.execute_command(
            *f"ACL SETUSER {prefix} resetkeys ~{prefix}:* resetchannels &{prefix}:* +@all -@admin".split()
        )
        with opened(url, prefix) as provider:
            inbox = Inbox(ack=True)
            provider.consume(["one"], 1, inbox)
            provider.subscribe("topic", lambda body: provider.send([Message("one", body)]))
            provider.notify("topic", "a")
            inbox.wait(1)
    finally:
        raw.acl_deluser(prefix)


def test_an_old_server_is_refused(redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "OLDEST", (99, 0))
    assert "is too old: the queue needs 99.0 or later; upgrade the server" in refused(redis_url, prefix)


def test_settings_that_lose_messages_are_warned_of(
    own_redis: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis(port=own_redis.port) as raw:
        raw.config_set("appendonly", "no")
        raw.config_set("maxmemory", "100mb")
        raw.config_set("maxmemory-policy", "allkeys-lru")
    with opened(own_redis.url, prefix):
        assert "set appendonly to yes" in caplog.text
        assert "(allkeys-lru); set maxmemory-policy to noeviction" in caplog.text


def test_a_full_server_loses_nothing_that_is_given_back(own_redis: RedisServer, prefix: str) -> None:
    with opened(own_redis.url, prefix) as provider, redis.Redis(port=own_redis.port) as raw:
        inbox = Inbox()
        provider.consume(["one"], 1, inbox)
        provider.send([Message("one", "a")])
        held = inbox.wait(1)[0]
        raw.config_set("maxmemory", "1")
        held.nack()
        inbox.stays(1)
        raw.config_set("maxmemory", "0")
        again = inbox.wait(2)[1]
        assert (again.message.body, again.redelivered) == ("a", True)
        again.ack()
        until(lambda: raw.xlen(f"{prefix}:queue:one") == 0)


def test_a_full_server_is_waited_for(own_redis: RedisServer, prefix: str) -> None:
    with opened(own_redis.url, prefix) as provider, redis.Redis(port=own_redis.port) as raw:
        raw.config_set("maxmemory", "1")
        with pytest.raises(QueueUnavailableError, match="maxmemory"):
            provider.send([Message("one", "a")])
        raw.config_set("maxmemory", "0")
        again(provider, Message("one", "a"))


# ------------------------------------------------------------------------------ dead letters, commands


@pytest.mark.parametrize("fields", [{"text": "a"}, {"body": b"\xff"}])
def test_an_entry_that_is_no_message_goes_to_the_dead_letters(
    provider: RedisQueueProvider, prefix: str, raw: Any, fields: dict[str, Any]
) -> None:
    inbox = Inbox(ack=True)
    provider.consume(["one"], 1, inbox)
    raw.xadd(f"{prefix}:queue:one", fields)
    provider.send([Message("one", "good")])
    inbox.wait(1)
    until(lambda: raw.xlen(f"{prefix}:dead") == 1)
    with redis.Redis(connection_pool=None, **address(raw)) as plain:
        ((_, dead),) = plain.xrange(f"{prefix}:dead")
    for name, value in fields.items():
        assert dead[name.encode()] == (value if isinstance(value, bytes) else value.encode())
    assert dead[b"x-liteflow-error"] == b"malformed"
    assert b"body" in dead[b"x-liteflow-reason"]
    assert dead[b"x-liteflow-queue"] == f"{prefix}:queue:one".encode()
    until(lambda: raw.xlen(f"{prefix}:queue:one") == 0)


def address(raw: Any) -> dict[str, Any]:
    arguments = raw.connection_pool.connection_kwargs
    return {"host": arguments["host"], "port": arguments["port"], "db": arguments["db"]}


def test_commands_are_handled_and_answered(provider: RedisQueueProvider, prefix: str, raw: Any) -> None:
    seen: list[Command] = []

    def handle(command: Command) -> Answer | Refusal:
        seen.append(command)
        return Answer({"id": "x"}) if command.routing_key == "good" else Refusal("bad", "because")

    server = provider.serve_commands(handle, 2)
    to = f"{prefix}:replies:me"
    more = {"message_id": "m", "reply_to": to, "correlation_id": "c", "traceparent": "t"}
    raw.xadd(f"{prefix}:commands", {"command": "good", "body": "{}", **more})
    until(lambda: raw.xlen(to) == 1)
    raw.xadd(f"{prefix}:commands", {"command": "worse", "body": "[1]", **more})
    until(lambda: raw.xlen(to) == 2)
    answers = [fields for _, fields in raw.xrange(to)]
    assert [json.loads(fields["body"]) for fields in answers] == [
        {"id": "x"},
        {"error": "bad", "reason": "because"},
    ]
    assert {fields["correlation_id"] for fields in answers} == {"c"}
    assert 0 < raw.ttl(to) <= 3600
    assert seen[0] == Command("good", b"{}", "m", to, "c", headers={"traceparent": "t"}, transport="redis")
    ((_, dead),) = raw.xrange(f"{prefix}:dead")
    assert dead == {
        "command": "worse", "body": "[1]", **more, "x-liteflow-error": "bad", "x-liteflow-reason": "because",
        "x-liteflow-queue": f"{prefix}:commands",
    }  # fmt: skip
    until(lambda: raw.xlen(f"{prefix}:commands") == 0)
    server.cancel()


def test_a_command_waits_for_a_backend_and_survives_a_defect_once(
    provider: RedisQueueProvider, prefix: str, raw: Any
) -> None:
    outcomes: list[Any] = [StoreUnavailableError("away"), RuntimeError("one"), RuntimeError("two")]
    seen: list[bool] = []

    def handle(command: Command) -> Answer | Refusal:
        seen.append(command.redelivered)
        raise outcomes.pop(0)

    server = provider.serve_commands(handle, 1)
    raw.xadd(f"{prefix}:commands", {"command": "good", "body": "{}"})
    until(lambda: raw.xlen(f"{prefix}:dead") == 1)
    assert raw.xrange(f"{prefix}:dead")[0][1]["x-liteflow-error"] == "internal"
    assert seen == [False, True]
    server.cancel()


def test_a_command_of_thousands_of_fields_harms_nobody(
    provider: RedisQueueProvider, prefix: str, raw: Any
) -> None:
    attempts: list[bool] = []

    def handle(command: Command) -> Answer | Refusal:
        attempts.append(command.redelivered)
        if len(attempts) == 1:
            raise StoreUnavailableError("away")  # so that it goes back once
        return Refusal("bad", "because")

    server = provider.serve_commands(handle, 1)
    raw.xadd(f"{prefix}:commands", {"command": "good", **{f"f{n}": "x" for n in range(10_000)}})
    until(lambda: raw.xlen(f"{prefix}:dead") == 1)
    assert attempts[0] is False
    ((_, dead),) = raw.xrange(f"{prefix}:dead")
    assert (dead["command"], dead["x-liteflow-error"]) == ("good", "bad")
    assert provider.dead_letters(5) == DeadLetters(1, [DeadLetter("good", "bad", "because")])
    assert provider.dead_letters(0) == DeadLetters(1, [])
    server.cancel()


def test_an_answer_goes_to_no_other_key(
    provider: RedisQueueProvider, prefix: str, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = provider.serve_commands(lambda command: Answer({}), 1)
    raw.xadd(f"{prefix}:commands", {"command": "good", "body": "{}", "reply_to": f"{prefix}:queue:one"})
    until(lambda: "a command gets no answer" in caplog.text)
    server.cancel()
    assert not raw.exists(f"{prefix}:queue:one")
