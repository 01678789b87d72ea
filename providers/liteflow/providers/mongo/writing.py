"""Encoding documents before they are sent, and sending many of them in few commands.

The commands are made here because the driver's bulk writes take longer, here and there: they number each
write so that the server can tell a repeated one, and has to keep a record of it. What is sent from here can
be repeated without that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure, WTimeoutError

from liteflow.core.errors import DataError
from liteflow.providers.mongo.connection import CODEC_OPTIONS, RAW_OPTIONS
from liteflow.providers.mongo.errors import DUPLICATE_KEY, repeated
from liteflow.providers.mongo.indexes import Documents

MAX_SIZE = 16 * 1024 * 1024
"""The server's limit for a document, and so for an update."""

BATCH_SIZE = 8 * 1024 * 1024
"""Bytes of documents in one command, about. A single one may be larger."""

BATCH_COUNT = 10_000
"""Documents in one command; the server takes ten times as many."""


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


def send(
    collection: Documents,
    verb: Literal["insert", "update"],
    documents: Sequence[RawBSONDocument],
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Send documents, or statements of updates, each to be done by itself.

    Gives for each command the place of its first document, and the server's reply: ``n`` of them were
    inserted or matched, those in ``writeErrors`` (`index`, `code`) were not.
    """
    field = "documents" if verb == "insert" else "updates"
    for first, batch in _batches(documents):
        yield first, repeated(lambda: _told(collection, verb, {field: batch}))  # noqa: B023 (called at once)


def _told(collection: Documents, verb: str, what: Mapping[str, Any]) -> Mapping[str, Any]:
    written = {"ordered": False, "writeConcern": collection.write_concern.document}
    reply: Mapping[str, Any] = collection.database.command({verb: collection.name, **what, **written})
    return reply


def _batches(documents: Sequence[RawBSONDocument]) -> Iterator[tuple[int, Sequence[RawBSONDocument]]]:
    first, size = 0, 0
    for place, document in enumerate(documents):
        length = len(document.raw)
        if place > first and (size + length > BATCH_SIZE or place - first == BATCH_COUNT):
            yield first, documents[first:place]
            first, size = place, 0
        size += length
    if documents:
        yield first, documents[first:]


def insert_missing(collection: Documents, documents: Sequence[RawBSONDocument]) -> set[int]:
    """Insert documents, and return the places of those whose id was there already."""
    known = set()
    for first, reply in send(collection, "insert", documents):
        errors = reply.get("writeErrors", ())
        known |= {first + error["index"] for error in errors if error["code"] == DUPLICATE_KEY}
        _check(reply, DUPLICATE_KEY)
    return known


def insert_once(collection: Documents, document: RawBSONDocument) -> bool:
    """Insert one document; False if its id was there already. Not repeated if the connection is lost."""
    reply = _told(collection, "insert", {"documents": [document]})
    _check(reply, DUPLICATE_KEY)
    return int(reply["n"]) == 1


def update(collection: Documents, statements: Sequence[RawBSONDocument]) -> int:
    """Send statements of updates (`q`, `u`), and return how many of them have matched a document."""
    matched = 0
    for _, reply in send(collection, "update", statements):
        _check(reply)
        matched += reply["n"]
    return matched


def _check(reply: Mapping[str, Any], *expected: int) -> None:
    """Raise what a reply tells of, but for errors with these codes."""
    for error in reply.get("writeErrors", ()):
        if error["code"] not in expected:
            raise OperationFailure(f"a write failed with code {error['code']}", error["code"])
    if "writeConcernError" in reply:
        code = reply["writeConcernError"].get("code")
        raise WTimeoutError("what was written is not confirmed by the majority yet", code)
