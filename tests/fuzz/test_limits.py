"""Limits of what comes from outside: size, depth, numbers, times, and the time that refusing it may take."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from liteflow.core import Settings, WorkflowHost, codec
from liteflow.core.commands import Answer, Command, Refusal
from liteflow.core.errors import DataError
from liteflow.core.memory_lock import LocalLockProvider
from liteflow.core.memory_queue import SingleNodeQueueProvider
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.models import DefinitionRecord
from liteflow.worker.gateway import MAX_BODY, Gateway
from liteflow.worker.times import parse_time

CPU_LIMIT = 3.0
"""Seconds of this process's CPU that one hostile message or document may take."""


@pytest.fixture
def host() -> Iterator[WorkflowHost]:
    store = MemoryPersistenceProvider()
    host = WorkflowHost(store, SingleNodeQueueProvider(), LocalLockProvider(), Settings()).open()
    store.record_definitions([DefinitionRecord("order", 1, "f")])
    yield host
    host.stop()


@pytest.fixture
def gateway(host: WorkflowHost) -> Gateway:
    return Gateway(host)


def send(gateway: Gateway, routing_key: str, body: str | bytes, **properties: Any) -> Answer | Refusal:
    raw = body if isinstance(body, bytes) else body.encode()
    return gateway.handle(Command(routing_key, raw, **properties))


def start(gateway: Gateway, data: str) -> Answer | Refusal:
    return send(gateway, "workflow.start", '{"workflow": "order", "data": ' + data + "}")


def publish(gateway: Gateway, when: str) -> Answer | Refusal:
    return send(gateway, "event.publish", json.dumps({"name": "n", "key": "k", "time": when}))


def code(outcome: Answer | Refusal) -> str:
    return outcome.code if isinstance(outcome, Refusal) else "accepted"


# ------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"a": NaN}', "malformed"),
        ('{"a": -Infinity}', "malformed"),
        ('{"a": 1e999}', "bad_data"),
        ('{"a": 9223372036854775807}', "accepted"),
        ('{"a": 9223372036854775808}', "bad_data"),
        ('{"a": -9223372036854775809}', "bad_data"),
        ('{"a\\u0000": 1}', "bad_data"),
        ('{"a": "b\\u0000"}', "accepted"),
        ('{"a": "\\ud800"}', "bad_data"),
        ('{"\\udfff": 1}', "bad_data"),
        ('{"a": 1, "a": 2}', "malformed"),
        ('{"": 1, "$where": "1", "a.b": 1, "~": "object"}', "accepted"),
        ('{"a": ' + "[" * 99 + "]" * 99 + "}", "accepted"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "bad_data"),
        ('{"a": ' + "[" * 400_000 + "]" * 400_000 + "}", "malformed"),
        ("[" * 400_000, "malformed"),
        ('{"a":' * 150_000, "malformed"),
    ],
)
def test_data_that_a_store_can_not_hold_is_refused(gateway: Gateway, data: str, expected: str) -> None:
    assert code(start(gateway, data)) == expected


def test_fields_that_nobody_knows_may_not_be_nested_more_deeply_than_data(gateway: Gateway) -> None:
    def body(depth: int) -> str:
        return '{"workflow": "order", "more": ' + "[" * depth + "]" * depth + "}"

    assert code(send(gateway, "workflow.start", body(100))) == "accepted"
    assert code(send(gateway, "workflow.start", body(101))) == "malformed"


def test_a_number_of_a_million_digits_is_refused_with_a_reason_for_its_sender(gateway: Gateway) -> None:
    outcome = start(gateway, '{"a": ' + "9" * 900_000 + "}")
    assert isinstance(outcome, Refusal)
    assert outcome.code == "malformed"
    assert "digits" in outcome.reason
    assert "sys." not in outcome.reason


def test_the_body_may_have_so_many_bytes_and_no_more(gateway: Gateway) -> None:
    frame = len('{"workflow": "order", "data": {"a": ""}}')
    assert code(start(gateway, '{"a": "' + "x" * (MAX_BODY - frame) + '"}')) == "accepted"
    assert code(start(gateway, '{"a": "' + "x" * (MAX_BODY - frame + 1) + '"}')) == "too_large"


@pytest.mark.parametrize("field", ["workflow", "reference"])
def test_a_name_of_a_megabyte_is_refused(gateway: Gateway, field: str) -> None:
    body = {"workflow": "order", field: "r" * 900_000}
    assert code(send(gateway, "workflow.start", json.dumps(body))) == "bad_field"


def made(**fields: str) -> str:
    """An object of these names and values; the values are JSON."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"


BOMBS = {
    "many items below a long key": made(**{"k" * 600_000: "[" + ",".join("1" * 190_000) + "]"}),
    "many keys below a long key": made(**{"k" * 500_000: made(**{f"{n:x}": "1" for n in range(45_000)})}),
    "long keys, nested": ('{"' + "k" * 9_000 + '":') * 99 + "1" + "}" * 99,
    "many empty lists": made(a="[" + ",".join(["[]"] * 320_000) + "]"),
    "many keys": made(**{f"{n:x}": "1" for n in range(90_000)}),
    "many escapes": made(**{"~.$" * 100_000: '"' + "\\u0001" * 110_000 + '"'}),
    "a long number": made(a="0." + "0" * 900_000 + "1e-999999999"),
    "not JSON to the end": '{"a": "' + "\\\\" * 450_000,
    "what can't be stored below a long key": made(**{"k" * 900_000: "[1e999]"}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_message_takes_long(gateway: Gateway, name: str) -> None:
    assert len(BOMBS[name]) < MAX_BODY
    began = time.thread_time()
    outcome = start(gateway, BOMBS[name])
    assert time.thread_time() - began < CPU_LIMIT
    if isinstance(outcome, Refusal):
        assert len(outcome.reason) <= 1000


def test_no_value_takes_long_to_encode() -> None:
    began = time.thread_time()
    codec.encode({"k" * 1_000_000: [1] * 200_000})
    assert time.thread_time() - began < CPU_LIMIT


def test_an_error_names_its_place_shortly_however_long_the_keys_are() -> None:
    with pytest.raises(DataError) as caught:
        codec.encode({"a": [0, {"k" * 1_000_000: {"b": {1: object()}}}]}, "data")
    assert caught.value.path.startswith("data.a[1].kkk")
    assert caught.value.path.endswith(".b[1]")
    assert len(str(caught.value)) < 1000


# -------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("0001-01-01T00:00:00Z", "accepted"),
        ("0001-01-01T00:00:00-14:00", "accepted"),
        ("0001-01-01T00:00:00+14:00", "bad_field"),
        ("9999-12-31T23:59:59.999999Z", "accepted"),
        ("9999-12-31T23:59:59+14:00", "accepted"),
        ("9999-12-31T23:59:59-14:00", "bad_field"),
        ("0000-01-01T00:00:00Z", "bad_field"),
        ("2026-01-01T00:00:00+99:99", "bad_field"),
        ("2026-13-01T00:00:00Z", "bad_field"),
        ("2026-01-01T00:00:00", "bad_field"),
        ("٢٠٢٦-01-01T00:00:00Z", "bad_field"),
        ("2026-01-01T00:00:00Z" + "0" * 900_000, "bad_field"),
        ("1e999999999", "bad_field"),
    ],
)
def test_times_far_away(gateway: Gateway, when: str, expected: str) -> None:
    assert code(publish(gateway, when)) == expected


def test_a_time_beyond_the_calendar_is_a_plain_error_everywhere(host: WorkflowHost) -> None:
    with pytest.raises(ValueError, match="no time"):
        parse_time("0001-01-01T00:00:00+14:00")
    far = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    with pytest.raises(DataError, match="effective_date"):
        host.publish_event("n", "k", effective_date=far)
    with pytest.raises(DataError, match="at"):
        codec.encode({"at": far})


# --------------------------------------------------------------------------------------- ids and reasons


def test_an_empty_message_id_is_none(gateway: Gateway) -> None:
    first = send(gateway, "workflow.start", '{"workflow": "order"}', message_id="")
    second = send(gateway, "workflow.start", '{"workflow": "order"}', message_id="")
    assert first != second
    first = send(gateway, "event.publish", '{"name": "n", "key": "k"}', message_id="")
    second = send(gateway, "event.publish", '{"name": "n", "key": "k"}', message_id="")
    assert first != second


@pytest.mark.parametrize(
    ("routing_key", "body"),
    [
        ("x\nINFO liteflow.worker: ready", "{}"),
        ("workflow.start", '{"workflow": "x\\nINFO liteflow.worker: ready"}'),
        ("workflow.start", '{"workflow": "order", "data": {"x\\nINFO liteflow.worker: ready": 1e999}}'),
        ("workflow.suspend", '{"id": "x\\nINFO liteflow.worker: ready\\u001b[2J"}'),
    ],
)
def test_nobody_writes_lines_into_the_log(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, routing_key: str, body: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        outcome = send(gateway, routing_key, body)
    assert isinstance(outcome, Refusal)
    assert outcome.reason.isprintable()
    assert caplog.messages
    assert all(message.isprintable() for message in caplog.messages)
