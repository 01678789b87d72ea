"""The cursor of a listing: where in the order (create_time, id), newest first, a page ended."""

from __future__ import annotations

from datetime import datetime, timezone

from liteflow.core.errors import ProviderError


def encode_cursor(create_time: datetime, instance_id: str) -> str:
    """The cursor for the page after the row with this time and id."""
    return f"{create_time.astimezone(timezone.utc).isoformat(timespec='microseconds')}~{instance_id}"


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Time and id of the last row before the page. `ProviderError` for what no listing has returned."""
    time, separator, instance_id = cursor.partition("~")
    try:
        create_time = datetime.fromisoformat(time)
    except ValueError:
        separator = ""
    if not separator or create_time.tzinfo is None:
        raise ProviderError(f"{cursor!r} is not a cursor of a listing")
    return create_time, instance_id
