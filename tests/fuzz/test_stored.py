"""Stored values and documents that nobody here has written: a plain error, for them alone."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from liteflow.core import codec
from liteflow.core.errors import DataError
from liteflow.core.namespace import Namespace

HOSTILE: list[Any] = [
    {"~": "decimal"},
    {"~": "decimal", "value": "x"},
    {"~": "decimal", "value": {}},
    {"~": ["decimal"], "value": "1"},
    {"~": None, "value": "1"},
    {"~": "os.system", "value": "true"},
    {"~": "object", "a": {"~": "uuid", "value": 5}},
    {"~": "dict", "items": [[[], 1]]},
    {"~": "dict", "items": [[1]]},
    {"~": "dict", "items": 1},
    {"~": "dict"},
    {"~": "timedelta", "value": "x"},
    {"~": "timedelta", "value": 1e300},
    {"~": "timedelta", "value": float("nan")},
    {"~": "set", "value": [[]]},
    {"~": "set", "value": [{"~x": 1}]},
    {"~": "frozenset", "value": [{"a~": 1}]},
    {"~": "set", "value": [{"~": "decimal", "value": "sNaN"}]},
    {"~": "tuple", "value": None},
    {"~": "bytes", "value": "é"},
    {"~": "bytes", "value": "a"},
    {"~": "float", "value": "1,5"},
    {"~": "datetime", "value": "2020-99-01"},
    {"~": "datetime", "value": 5},
    {"~": "date", "value": "0000-00-00"},
    {"~": "time", "value": "25:00"},
    {"a~": 1},
    {"a~x": 1},
]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("plain", HOSTILE[:4] + HOSTILE[5:], ids=str)
def test_a_value_that_nobody_has_written_is_a_data_error(plain: Any) -> None:
    with pytest.raises(DataError):
        codec.decode(plain)
    with pytest.raises(DataError, match=r"^data"):
        codec.decode_data({"a": plain}, None)
    with pytest.raises(DataError):
        codec.decode(plain, dict[str, int])


@pytest.mark.parametrize("plain", HOSTILE, ids=str)
def test_it_is_shown_or_refused(plain: Any) -> None:
    with suppress(DataError):
        codec.to_json(plain)


def test_what_is_nested_too_deeply_for_the_reader_is_a_data_error() -> None:
    plain = nested(100_000)
    for read in (codec.decode, codec.to_json, lambda value: codec.decode_data({"a": value}, None)):
        with pytest.raises(DataError):
            read(plain)


BOMBS: dict[str, Any] = {
    "a decimal with a huge exponent": {"~": "decimal", "value": "1e999999999"},
    "a decimal of a million digits": {"~": "decimal", "value": "7" * 1_000_000},
    "a float of a million digits": {"~": "float", "value": "7" * 1_000_000},
    "a date of a million digits": {"~": "date", "value": "7" * 1_000_000},
    "a uuid of a million digits": {"~": "uuid", "value": "7" * 1_000_000},
    "a tag of a million characters": {"~": "x" * 1_000_000, "value": 1},
    "a set of huge decimals": {
        "~": "set",
        "value": [{"~": "decimal", "value": f"1e{n}"} for n in range(999_900_000, 999_999_000, 100)],
    },
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_stored_value_takes_long(name: str) -> None:
    began = time.thread_time()
    for read in (codec.decode, codec.to_json):
        try:
            read(BOMBS[name])
        except DataError as exc:
            assert len(str(exc)) < 1000
    assert time.thread_time() - began < 1


class Plainest:
    """A class without annotations: what is stored becomes its attributes."""

    total = 0

    def run(self) -> str:
        return "run"


@pytest.mark.parametrize("name", ["__class__", "__dict__", "__init__", "__reduce__"])
def test_what_belongs_to_the_language_is_never_set(name: str) -> None:
    with pytest.raises(DataError, match="language's own"):
        codec.decode_data({name: {}}, Plainest)
    space = codec.decode_data({name: {"total": 1}}, None)
    assert type(space) is Namespace
    assert space.__class__ is Namespace
