"""Values, texts and times as columns hold them, and back.

Users' values are JSON texts in the codec's plain form. Times that the database compares are microseconds
since 1970, in BIGINT; inside of JSON they are texts such as ``2026-01-02T03:04:05.678901Z``.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from liteflow.core.codec import Plain
from liteflow.core.errors import DataError
from liteflow.core.forms import Conversion
from liteflow.core.models import EPOCH

NAME_LENGTH = 255
"""Characters of an id or another text that is indexed."""

_MICROSECOND = timedelta(microseconds=1)
_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def to_micros(time: datetime) -> int:
    """A time as a number of microseconds."""
    return (time - EPOCH) // _MICROSECOND


def from_micros(number: int) -> datetime:
    """The reverse of `to_micros`."""
    return EPOCH + timedelta(microseconds=number)


def _to_text(time: datetime) -> str:
    if time.tzinfo is not timezone.utc:
        time = time.astimezone(timezone.utc)
    return time.isoformat(timespec="microseconds")[:-6] + "Z"


def _from_text(text: str) -> datetime:
    if not text.endswith("Z"):
        raise ValueError(f"{text!r} is not a time")
    return datetime.fromisoformat(text[:-1] + "+00:00")


MICROS = Conversion(to_micros, from_micros)
TIME = Conversion(_to_text, _from_text)


def to_json(value: Any, path: str = "value") -> str:
    """A plain value as text. `DataError` if JSON can't hold it."""
    try:
        return _dump(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise DataError(path, f"can't be stored: {exc}") from exc


def from_json(text: str) -> Plain:
    """The reverse of `to_json`."""
    return json.loads(text)  # type: ignore[no-any-return]


def checked(text: str, most: int, path: str) -> str:
    """The text, if it is Unicode of at most so many bytes. `DataError` if not."""
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError as exc:
            raise DataError(path, "is not valid Unicode (a lone surrogate)") from exc
    if size > most:
        raise DataError(path, f"is too large to be stored: {size} bytes, at most {most}")
    return text


def checked_name(text: str, path: str) -> str:
    """A text that is indexed, if it is short enough. `DataError` if not."""
    if len(text) > NAME_LENGTH:
        raise DataError(path, f"has {len(text)} characters; this store takes at most {NAME_LENGTH}")
    return checked(text, 4 * NAME_LENGTH, path)
