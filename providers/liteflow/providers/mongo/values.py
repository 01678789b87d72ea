"""Users' values and times as BSON, and back.

What the codec has to put into a tagged form because JSON has no type for it is stored as BSON's own type
where that holds it exactly, so that it can be read, queried and indexed: dates of whole milliseconds,
bytes, UUIDs, and decimals of up to 34 digits. The rest keeps its tagged form.

The engine's own times are strings such as ``2026-01-02T03:04:05.678901Z``: BSON dates end at milliseconds,
while these are compared and sorted by the server to the microsecond, and read by people.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from bson.decimal128 import Decimal128
from bson.int64 import Int64

from liteflow.core import codec
from liteflow.core.codec import Plain
from liteflow.core.errors import DataError

MAX_DEPTH = 150
"""Values may be nested so deep; the server takes 180, the place of the value in the document included."""


def time_to_bson(time: datetime) -> str:
    """A time as a string of fixed length that sorts as the times do."""
    if time.tzinfo is not timezone.utc:
        time = time.astimezone(timezone.utc)
    return time.isoformat(timespec="microseconds")[:-6] + "Z"


def time_from_bson(text: str) -> datetime:
    """The reverse of `time_to_bson`."""
    if not text.endswith("Z"):
        raise ValueError(f"{text!r} is not a time")
    return datetime.fromisoformat(text[:-1] + "+00:00")


def to_bson(plain: Plain, depth: int = 0) -> Any:
    """A value as it is stored. `DataError` if it is nested too deeply."""
    if isinstance(plain, dict):
        _check_depth(depth)
        if codec.MARKER in plain:
            native = _native(plain)
            if native is not None:
                return native
        return {key: to_bson(value, depth + 1) for key, value in plain.items()}
    if isinstance(plain, list):
        _check_depth(depth)
        return [to_bson(value, depth + 1) for value in plain]
    return plain


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise DataError("value", f"its stored form is nested more than {MAX_DEPTH} deep")


def _native(tagged: dict[str, Plain]) -> Any:
    """The BSON type's value for a tagged form; None if there is none that is exact."""
    if tagged[codec.MARKER] not in ("datetime", "decimal", "uuid", "bytes"):
        return None
    value = codec.decode(tagged)
    if isinstance(value, datetime) and value.microsecond % 1000:
        return None
    if isinstance(value, decimal.Decimal):
        try:
            value = Decimal128(value)
        except (decimal.DecimalException, ValueError):
            return None
    return value if from_bson(value) == tagged else None


def from_bson(stored: Any) -> Plain:
    """The reverse of `to_bson`."""
    kind = type(stored)
    if kind is dict:
        return {key: from_bson(value) for key, value in stored.items()}
    if kind is list:
        return [from_bson(value) for value in stored]
    if kind in _AS_THEY_ARE:
        return stored  # type: ignore[no-any-return]
    if kind in _NATIVE:
        return _NATIVE[kind](stored)
    raise DataError("value", f"a BSON {kind.__name__} was not written by LiteFlow")


_AS_THEY_ARE = frozenset([type(None), bool, int, float, str])
_NATIVE: dict[type[Any], Callable[[Any], Plain]] = {
    Int64: int,
    Decimal128: lambda value: codec.encode(value.to_decimal()),
    datetime: codec.encode,
    UUID: codec.encode,
    bytes: codec.encode,
}
