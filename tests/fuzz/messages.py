"""Hostile commands: valid ones, mutated at the level of JSON, of its bytes, and of AMQP properties."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from pika.spec import BasicProperties

ROUTING_KEYS = (
    "workflow.start",
    "event.publish",
    "workflow.suspend",
    "workflow.resume",
    "workflow.terminate",
)

TEXTS = (
    "", "a", "order", "~", "~~", "~e", "~x", "$where", "$gt", "a.b", "__class__", "__reduce__",
    "\0", "\n\x1b[2J",
    "\ud800", "\udfff\ud800", "é", "😀", "٣", "\u202e", "%s%n", "{0.__class__}", "${jndi:ldap://x}",
    "liteflow.child",
    "'; DROP TABLE x", "k" * 1024, "k" * 1025, "NaN", "1e999999999", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999-14:00", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.1234567899+23:59",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**40, 10**4000,
    0.0, -0.0, 1.5, 5e-324, 1.8e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
TAGS = ("object", "dict", "tuple", "set", "frozenset", "datetime", "date", "time", "timedelta",
"decimal", "uuid",
        "bytes", "float", "os.system", "builtins.eval")  # fmt: skip


def value(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON, with a liking for what hurts."""
    pick = chance.random()
    if pick < 0.25:
        return chance.choice(TEXTS)
    if pick < 0.45:
        return chance.choice(NUMBERS)
    if pick < 0.55:
        return chance.choice((None, True, False))
    if depth > 4:
        return chance.choice(([], {}))
    if pick < 0.6:
        return {"~": chance.choice(TAGS), chance.choice(("value", "items", "x")): value(chance, depth + 1)}
    if pick < 0.8:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(TEXTS): value(chance, depth + 1) for _ in range(chance.randrange(4))}


_FIELDS = ("time", "version", "id", "extra", "~", "__class__")


def _valid(chance: random.Random, routing_key: str) -> dict[str, Any]:
    if routing_key == "workflow.start":
        body = {
            "workflow": "order",
            "version": 1,
            "data": {"lines": [{"n": 1, "p": 1.5}]},
            "reference": "o-42",
        }
    elif routing_key == "event.publish":
        body = {"name": "paid", "key": "o-42", "data": {"a": [1]}, "time": "2026-01-01T00:00:00Z"}
    else:
        body = {"id": chance.choice(("known", "unknown")), "reason": "why"}
    return {name: body[name] for name in body if chance.random() < 0.9}


def _deep(chance: random.Random) -> str:
    depth = chance.choice((50, 98, 99, 100, 101, 500, 1_500, 20_000))
    opening, closing = chance.choice((("[", "]"), ('{"a":', "}"), ('[{"~":', "}]")))
    inner = opening * depth + "1" + closing * depth
    return (
        chance.choice(('{"workflow":"order","data":{"a":%s}}', '{"x":%s}', "%s", '{"workflow":%s}')) % inner
    )


def _wide(chance: random.Random) -> str:
    count = chance.choice((100, 1_000, 5_000))
    item = chance.choice(("1", "[]", "{}", '"~"', "1e5", "null", "-0.0"))
    key = chance.choice(("a", "k" * 20_000, "~." * 5_000))
    return f'{{"workflow":"order","data":{{"{key}":[{",".join([item] * count)}]}}}}'


def body(chance: random.Random, routing_key: str) -> bytes:
    """The bytes of a command, more or less like a valid one."""
    pick = chance.random()
    if pick < 0.01:
        return _deep(chance).encode()
    if pick < 0.02:
        return _wide(chance).encode()
    if pick < 0.04:
        return chance.randbytes(chance.randrange(64))
    made = _valid(chance, routing_key)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        name = "data" if chance.random() < 0.6 else chance.choice((*made, *_FIELDS))
        target = made
        if name == "data" and isinstance(made.get("data"), dict) and chance.random() < 0.8:
            target, name = made["data"], chance.choice(TEXTS)
        target[name] = value(chance)
    text = json.dumps(made, ensure_ascii=chance.random() < 0.8)
    pick = chance.random()
    if pick < 0.05 and text:
        at = chance.randrange(len(text))
        text = (
            text[:at] + chance.choice(('"', "{", "]", ",", ":", "\\", "\0", "NaN", "1" * 50)) + text[at + 1 :]
        )
    elif pick < 0.08:
        text = text.replace("{", '{"workflow":"order",', 1)
    elif pick < 0.1:
        text = text[: chance.randrange(len(text) + 1)]
    encoding = (
        "utf-8" if chance.random() < 0.97 else chance.choice(("utf-16", "utf-8-sig", "utf-32", "latin-1"))
    )
    raw = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    if chance.random() < 0.04 and raw:
        at = chance.randrange(len(raw))
        raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
    return raw


def _header(chance: random.Random, depth: int = 0) -> Any:
    if depth < 3 and chance.random() < 0.3:
        return {f"h{n}": _header(chance, depth + 1) for n in range(chance.randrange(3))}
    if depth < 3 and chance.random() < 0.2:
        return [_header(chance, depth + 1) for _ in range(chance.randrange(3))]
    return chance.choice((None, True, 1, -1, 2**40, "x", "00-ab-cd-01", "t" * 200, b"\xff\xfe"))


_TEXT_PROPERTIES = (
    "message_id", "reply_to", "correlation_id", "content_type", "content_encoding", "expiration",
    "type", "app_id",
)  # fmt: skip
_SHORT = (
    "", "m-1", "m-2", "application/json", "application/json; charset=utf-8",
    "APPLICATION/JSON;charset=\"UTF-8\"",
    "application/json; charset=utf-16", "text/plain", "gzip", "identity",
    "amq.rabbitmq.reply-to.x", "\0", "x\ny",
    "é" * 100, "m" * 255,
)  # fmt: skip


def properties(chance: random.Random) -> bytes:
    """AMQP properties as they stand in a content header, flags included."""
    made = BasicProperties()
    for name in _TEXT_PROPERTIES:
        usual = name.startswith("content") and chance.random() < 0.9
        if not usual and chance.random() < 0.15:
            setattr(made, name, chance.choice(_SHORT))
    if chance.random() < 0.2:
        made.timestamp = chance.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1))
    if chance.random() < 0.3:
        names = ("traceparent", "x-death", "a" * 100, "é")
        made.headers = {chance.choice(names): _header(chance) for _ in range(chance.randrange(1, 4))}
    raw = b"".join(made.encode())
    if chance.random() < 0.1:
        at = chance.randrange(len(raw))
        raw = raw[:at] + chance.randbytes(chance.choice((0, 1, 2, 8))) + raw[at + 1 :]
    elif chance.random() < 0.01:
        # Tables in tables: field table flag, then "a" = table, again and again.
        inner = b"\x00\x00\x00\x00"
        for _ in range(chance.choice((10, 500, 5_000))):
            inner = (b"\x01aF" + inner) if len(inner) > 100_000 else _table(b"\x01aF" + inner)
        raw = b"\x20\x00" + inner
    return raw


def _table(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def routing_key(chance: random.Random) -> str:
    """A known one, most of the time."""
    return chance.choice(ROUTING_KEYS) if chance.random() < 0.97 else chance.choice(TEXTS[:12])


# ---------------------------------------------------------------------------------------------- documents


def plain(chance: random.Random, depth: int = 0) -> Any:
    """A stored value: what the codec might have written, or nearly."""
    pick = chance.random()
    if pick < 0.5 or depth > 5:
        return value(chance, depth)
    if pick < 0.8:
        tag = chance.choice(TAGS)
        if tag in ("tuple", "set", "frozenset"):
            return {"~": tag, "value": [plain(chance, depth + 1) for _ in range(chance.randrange(3))]}
        if tag == "dict":
            pairs = [[plain(chance, depth + 1), plain(chance, depth + 1)] for _ in range(chance.randrange(3))]
            return {"~": tag, "items": pairs}
        if tag == "object":
            return {"~": tag, "a": plain(chance, depth + 1), chance.choice(TEXTS): plain(chance, depth + 1)}
        return {"~": tag, "value": chance.choice((*TEXTS, *NUMBERS, *_TAGGED))}
    return {chance.choice(TEXTS): plain(chance, depth + 1) for _ in range(chance.randrange(3))}


_TAGGED = (
    "1.50", "-0", "sNaN", "1e9999", "7" * 5_000, "2026-01-01", "2026-01-01T00:00:00Z", "23:59:59.999999",
    "12345678-1234-5678-1234-567812345678", "AAAA", "inf",
)  # fmt: skip


def mutated(chance: random.Random, document: dict[str, Any], make: Callable[[random.Random], Any]) -> Any:
    """A copy of a document in which something, at any depth, is something else, gone, or added."""
    if isinstance(document, dict) and document and chance.random() < 0.85:
        name = chance.choice(list(document))
        inner = document[name]
        if isinstance(inner, (dict, list)) and chance.random() < 0.7:
            return {**document, name: mutated(chance, inner, make)}
        if chance.random() < 0.15:
            return {key: inner for key, inner in document.items() if key != name}
        return {**document, name: make(chance)}
    if isinstance(document, list) and document and chance.random() < 0.85:
        at = chance.randrange(len(document))
        return [*document[:at], mutated(chance, document[at], make), *document[at + 1 :]]
    if isinstance(document, dict):
        return {**document, chance.choice(TEXTS): make(chance)}
    return make(chance)
