"""What hostile input is thrown at, in this process, and what has to hold for each piece of it."""

from __future__ import annotations

import json
import struct
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from random import Random
from typing import Any

import bson
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.objectid import ObjectId
from bson.regex import Regex
from fuzz import messages
from pika.frame import Header
from pika.spec import FRAME_END, FRAME_HEADER, BasicProperties

from liteflow.core import Settings, WorkflowHost, codec
from liteflow.core.commands import Answer, Refusal
from liteflow.core.errors import DataError, LiteFlowError
from liteflow.core.memory_lock import LocalLockProvider
from liteflow.core.memory_queue import SingleNodeQueueProvider
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.models import DefinitionRecord, Event, Instance
from liteflow.providers.mongo import documents
from liteflow.providers.mongo.connection import CODEC_OPTIONS
from liteflow.providers.rabbitmq import commands
from liteflow.providers.rabbitmq.consuming import Received
from liteflow.providers.rabbitmq.driver import Driver
from liteflow.worker.gateway import Gateway

RESET_EVERY = 500
"""Messages after which the store is a new one, so that memory and inboxes stay small."""


class Store(MemoryPersistenceProvider):
    """Knows what was put into it last."""

    last: Instance | Event | None = None

    def create(self, instances: Any) -> list[bool]:
        self.last = instances[-1]
        return super().create(instances)

    def add_event(self, event: Event) -> bool:
        self.last = event
        return super().add_event(event)


def received_properties(raw: bytes, body_size: int) -> BasicProperties:
    """Properties from the wire, by the driver's own way of reading a content header."""
    payload = struct.pack(">HHQ", BasicProperties.INDEX or 60, 0, body_size) + raw
    frame = struct.pack(">BHL", FRAME_HEADER, 1, len(payload)) + payload + bytes([FRAME_END])
    driver = Driver.__new__(Driver)
    driver._frame_buffer = frame
    consumed, header = driver._read_frame()
    assert consumed == len(frame)
    assert isinstance(header, Header)
    properties = header.properties
    assert isinstance(properties, BasicProperties)
    return properties


class GatewayTarget:
    """A message goes from its bytes on the wire to an answer or to a dead letter that can be sent."""

    name = "messages"

    def __init__(self) -> None:
        self.handled = 0
        self.outcomes: dict[str, int] = {}
        self._reset()

    def _reset(self) -> None:
        self._store = Store()
        host = WorkflowHost(self._store, SingleNodeQueueProvider(), LocalLockProvider(), Settings()).open()
        self._store.record_definitions([DefinitionRecord("order", 1, "f")])
        self._store.create([Instance("known", "order", 1, datetime(2026, 1, 1, tzinfo=timezone.utc))])
        self._gateway = Gateway(host)

    def run(self, chance: Random) -> str:
        """One message; how it ended."""
        key = messages.routing_key(chance)
        return self.handle(key, messages.body(chance, key), messages.properties(chance))

    def handle(self, routing_key: str, body: bytes, raw_properties: bytes) -> str:
        """`AssertionError`, or whatever was raised, if something does not hold."""
        self.handled += 1
        if self.handled % RESET_EVERY == 0:
            self._reset()
        properties = received_properties(raw_properties, len(body))
        received = Received(None, None, 1, routing_key, False, properties, body)  # type: ignore[arg-type]
        outcome = commands.outcome_of(received, self._gateway.handle)
        if isinstance(outcome, Refusal):
            assert outcome.reason
            assert outcome.reason.isprintable()
            assert len(outcome.reason) <= 1000
            letter = commands.dead_properties(received, outcome, "guest")
            assert b"".join(letter.encode())
            assert letter.headers["x-liteflow-error"] == outcome.code
        else:
            assert isinstance(outcome, Answer)
            json.dumps(outcome.body)
            self._check_stored(routing_key)
        return outcome.code if isinstance(outcome, Refusal) else "accepted"

    def _check_stored(self, routing_key: str) -> None:
        """What was accepted is stored as it came, and can be loaded from MongoDB as it is here."""
        last, self._store.last = self._store.last, None
        if isinstance(last, Instance):
            assert codec.same(codec.encode_data(codec.decode_data(last.data, None)), last.data)  # type: ignore[arg-type]
            document = bson.encode(documents.instance_to_document(last, {}), codec_options=CODEC_OPTIONS)
            assert documents.instance_from_document(bson.decode(document, CODEC_OPTIONS)) == last
        elif isinstance(last, Event):
            assert codec.same(codec.encode(codec.decode(last.data)), last.data)
            document = bson.encode(documents.event_to_document(last), codec_options=CODEC_OPTIONS)
            assert documents.event_from_document(bson.decode(document, CODEC_OPTIONS)) == last
        else:
            assert routing_key.startswith("workflow.")


class DocumentTarget:
    """A stored document is read, or is a plain error; what was read can be stored and read again."""

    name = "documents"

    def run(self, chance: Random) -> str:
        """One document; how it ended."""
        kind = chance.choice(("value", "instance", "event"))
        if kind == "value":
            return self.value(messages.plain(chance))
        base = INSTANCE if kind == "instance" else EVENT
        document = base
        for _ in range(chance.choice((1, 1, 2, 4))):
            document = messages.mutated(chance, document, _stored)
        return self.document(kind, {**document, "_id": "i"})

    def value(self, plain: Any) -> str:
        """A value in encoded form."""
        with suppress(DataError):
            codec.to_json(plain)
        try:
            decoded = codec.decode(plain)
        except DataError:
            return "unreadable value"
        try:
            encoded = codec.encode(decoded)
        except DataError:
            return "not ours"  # as a set with surrogates in it
        assert codec.same(codec.encode(codec.decode(encoded)), encoded)
        return "read"

    def document(self, kind: str, document: dict[str, Any]) -> str:
        """An instance or an event."""
        try:
            raw = bson.encode(document, codec_options=CODEC_OPTIONS)
        except (BSONError, OverflowError, UnicodeError, RecursionError):
            return "no BSON"
        stored = bson.decode(raw, CODEC_OPTIONS)
        with suppress(DataError):
            documents.due(stored)
        try:
            if kind == "instance":
                instance = documents.instance_from_document(stored)
                again = bson.encode(
                    documents.instance_to_document(replace(instance, items={}), {}),
                    codec_options=CODEC_OPTIONS,
                )
                assert documents.instance_from_document(bson.decode(again, CODEC_OPTIONS)).id == "i"
                codec.decode_data(instance.data, None)
            else:
                event = documents.event_from_document(stored)
                again = bson.encode(documents.event_to_document(event), codec_options=CODEC_OPTIONS)
                read = documents.event_from_document(bson.decode(again, CODEC_OPTIONS))
                assert repr(read) == repr(event)  # not ==: somebody may have stored a NaN
                codec.decode(event.data)
        except LiteFlowError as exc:
            assert str(exc)
            assert len(str(exc)) < 2_000
            return "unreadable"
        return "read"


def _stored(chance: Random) -> Any:
    if chance.random() < 0.8:
        return messages.plain(chance)
    return chance.choice((
        DatetimeMS(2**62), DatetimeMS(-(2**62)), Regex("(a+)+$"), ObjectId(b"0" * 12),
        Decimal128("NaN"), b"\xff",
        datetime(2026, 1, 1, tzinfo=timezone.utc), bson.MinKey(), bson.Code("x"), bson.Timestamp(1, 1),
    ))  # fmt: skip


_TIME = "2026-01-01T00:00:00.000000Z"
INSTANCE: dict[str, Any] = {
    "_id": "i", "format": 1, "workflow_definition_id": "w", "version": 1, "create_time": _TIME, "status": 0,
    "revision": 3, "inbox_sequence": 1, "reference": "r", "data": {"a": 1, "b": {"~": "decimal",
    "value": "1.5"}},
    "pointer_sequence": 1, "wake_at": _TIME, "hold": {"token": "t", "count": 1},
    "pointers": {"1": {"step_id": "s", "status": 5, "scope": ["1"], "event_name": "n", "event_since": _TIME}},
    "applied": ["x"], "consumed": [{"wait": "1:n:k", "events": ["e"]}], "items": {"1": [1, "two"]},
    "claims": {"1": {"by": "me", "token": "t", "until": _TIME}},
    "inbox": [{"kind": "suspend", "id": "q", "time": _TIME, "sequence": 1, "arguments": {"a": 1}}],
    "outbox": [{"sequence": 1, "kind": "event", "time": _TIME, "body": {"a": 1}}],
    "parked": {"reason": "r", "since": _TIME, "needs": "n"},
}  # fmt: skip
EVENT: dict[str, Any] = {
    "_id": "i", "format": 1, "name": "n", "key": "k", "time": _TIME, "data": {"a": [1]}, "due": _TIME,
    "wake_at": _TIME, "traceparent": "00",
}  # fmt: skip


def timed(target: GatewayTarget | DocumentTarget, chance: Random) -> tuple[str, float]:
    """One run, and the seconds of CPU that it took, making the input included."""
    began = time.thread_time()
    outcome = target.run(chance)
    return outcome, time.thread_time() - began
