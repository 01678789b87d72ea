from __future__ import annotations

from datetime import datetime, timezone

import pytest

from liteflow.worker.times import parse_time

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T12:00:00Z", "2026-01-01t12:00:00z", "2026-01-01T13:00:00+01:00", "2026-01-01 07:00:00-0500"],
)
def test_forms_of_one_time(text: str) -> None:
    assert parse_time(text) == NOON


@pytest.mark.parametrize("fraction", ["5", "500", "500000", "500000999"])
def test_fractions_of_any_length(fraction: str) -> None:
    assert parse_time(f"2026-01-01T12:00:00.{fraction}Z") == NOON.replace(microsecond=500_000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("noon", "must be like"),
        ("2026-01-01T12:00:00", "has no zone"),
        ("2026-13-01T12:00:00Z", "is no time"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_time(text)
