"""A short run of the fuzz targets; `make fuzz MESSAGES=1000000` is the long one."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from fuzz.targets import DocumentTarget, GatewayTarget, timed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEED = 20_260_101
PIECES = 4_000
FEW = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

TARGET, DOCUMENTS = GatewayTarget(), DocumentTarget()
NO_PROPERTIES = b"\x00\x00"

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()))
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)
TAG = st.sampled_from(
    [
        "object",
        "dict",
        "tuple",
        "set",
        "frozenset",
        "datetime",
        "date",
        "time",
        "timedelta",
        "decimal",
        "uuid",
        "bytes",
        "float",
        "x",
    ]
)
STORED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        | st.fixed_dictionaries({"~": TAG, "value": inner})
        | st.fixed_dictionaries({"~": TAG, "items": st.lists(st.lists(inner, max_size=3), max_size=3)})
    ),
    max_leaves=30,
)


@pytest.mark.parametrize("target", [TARGET, DOCUMENTS], ids=lambda target: target.name)
def test_generated_input_is_accepted_or_refused(target: GatewayTarget | DocumentTarget) -> None:
    outcomes: set[str] = set()
    for number in range(PIECES):
        outcome, seconds = timed(target, random.Random(f"{SEED}:{number}"))
        outcomes.add(outcome)
        assert seconds < 1, f"--only {SEED}:{number}"
    expected = {
        "messages": {"accepted", "bad_data", "bad_field", "content_type", "malformed", "missing_field"}
        | {"not_found", "unknown_command", "unknown_workflow"},
        "documents": {"read", "unreadable", "unreadable value", "not ours", "no BSON"},
    }
    assert outcomes == expected[target.name], "the generator reaches every way to end"


@FEW
@given(st.sampled_from(["workflow.start", "event.publish"]), JSON)
def test_any_data_is_accepted_or_refused(routing_key: str, data: Any) -> None:
    body = {"workflow": "order", "name": "n", "key": "k", "data": data}
    TARGET.handle(routing_key, json.dumps(body).encode(), NO_PROPERTIES)


@FEW
@given(st.text(), st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(routing_key: str, body: bytes) -> None:
    for key in (routing_key.encode("utf-8", "ignore").decode(), "workflow.start"):
        TARGET.handle(key, body, NO_PROPERTIES)


@FEW
@given(st.binary(max_size=100))
def test_any_properties_are_read_or_refused(raw: bytes) -> None:
    TARGET.handle("workflow.start", b'{"workflow": "order"}', raw)


@FEW
@given(STORED)
def test_any_stored_value_is_read_or_a_data_error(plain: Any) -> None:
    DOCUMENTS.value(plain)
    DOCUMENTS.document("event", {"_id": "i", "name": "n", "key": "k", "data": plain})
