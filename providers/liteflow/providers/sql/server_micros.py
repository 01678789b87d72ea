"""The server's clock within a statement, for what ends by itself: sessions and leases."""

from __future__ import annotations

import time

from sqlalchemy import BigInteger, ColumnElement, literal, literal_column

_NOW = {
    # When the statement arrived: the same for all of it, and before anything that it has to wait for.
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint)",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
}


def server_micros(dialect: str) -> ColumnElement[int]:
    """Microseconds since 1970 by the server's clock; SQLite's is this machine's, which all share."""
    if dialect in _NOW:
        return literal_column(_NOW[dialect], BigInteger)
    return literal(time.time_ns() // 1000, BigInteger)
