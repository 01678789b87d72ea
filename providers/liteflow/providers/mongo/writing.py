"""Encoding documents before they are sent, and inserting those that are not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from liteflow.core.errors import DataError
from liteflow.providers.mongo.connection import CODEC_OPTIONS, RAW_OPTIONS
from liteflow.providers.mongo.errors import DUPLICATE_KEY, repeated, write_errors
from liteflow.providers.mongo.indexes import Documents

MAX_SIZE = 16 * 1024 * 1024
"""The server's limit for a document, and so for an update."""


def encoded(document: dict[str, Any], path: str = "document") -> RawBSONDocument:
    """A document, encoded once and for all. `DataError` if BSON or the server can't hold it.

    The driver would refuse all that is sent along with it.
    """
    try:
        raw = bson.encode(document, codec_options=CODEC_OPTIONS)
    except (BSONError, OverflowError, UnicodeError, TypeError, ValueError) as exc:
        raise DataError(path, f"can't be stored: {exc}") from exc
    if len(raw) > MAX_SIZE:
        raise DataError(path, f"is too large to be stored: {len(raw)} bytes")
    return RawBSONDocument(raw, RAW_OPTIONS)


def insert_missing(collection: Documents, documents: Sequence[Any]) -> set[int]:
    """Insert documents in one trip, and return the places of those whose id was there already."""
    if not documents:
        return set()
    return repeated(lambda: _insert(collection, documents))


def _insert(collection: Documents, documents: Sequence[Any]) -> set[int]:
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as exc:
        errors = write_errors(exc)
        if exc.details["writeConcernErrors"] or any(e["code"] != DUPLICATE_KEY for e in errors):
            raise
        return {error["index"] for error in errors}
    return set()
