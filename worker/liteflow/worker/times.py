"""Points in time as they come from outside."""

from __future__ import annotations

import re
from datetime import datetime, timezone

_ISO = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:?\d\d)?")


def parse_time(text: str) -> datetime:
    """A time like ``2026-01-01T00:00:00.5Z``, in UTC. `ValueError` says what is wrong.

    One without a zone is wrong, and so is one that is beyond the years 1 to 9999 in UTC.

    RFC 3339 with up to nine digits of a fraction, of which six are kept. (`fromisoformat` takes fewer forms
    in Python 3.10 than later, and a contract must not depend on that.)
    """
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError("must be like 2026-01-01T00:00:00Z")
    moment, fraction, zone = match.groups()
    if zone is None:
        raise ValueError("has no zone; write it like 2026-01-01T00:00:00Z")
    offset = "+00:00" if zone in "Zz" else zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
    micro = (fraction or "").ljust(6, "0")[:6]
    try:
        time = datetime.fromisoformat(f"{moment[:10]}T{moment[11:]}.{micro}{offset}")
        return time.astimezone(timezone.utc)
    except (ValueError, OverflowError) as exc:  # overflow: beyond the years 1 to 9999 in UTC
        raise ValueError(f"is no time: {exc}") from exc
