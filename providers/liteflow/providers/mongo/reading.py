"""Documents that nobody here has written: a plain error for each, and no harm to those beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pymongo import UpdateOne

from liteflow.core.codec import UNREADABLE
from liteflow.core.errors import DataError
from liteflow.providers.mongo.indexes import Documents

log = logging.getLogger("liteflow.mongo")

T = TypeVar("T")
Document = Mapping[str, Any]

MAX_REASON = 500
"""Characters of a reason: it may quote what is stored."""

_NOW = {"$dateToString": {"date": "$$NOW", "format": "%Y-%m-%dT%H:%M:%S.%L000Z"}}


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Whatever is wrong with a document becomes a `DataError` that names it."""
    try:
        yield
    except (DataError, *UNREADABLE) as exc:
        raise DataError(what[:MAX_REASON], f"can't be read: {exc}"[:MAX_REASON]) from exc


def readable_ones(what: str, read: Callable[[Document], T], documents: Iterable[Document]) -> Iterator[T]:
    """What can be read of these documents. The others are passed over, with a warning that names them."""
    for document in documents:
        try:
            with readable(f"{what} {document['_id']}"):
                found = read(document)
        except DataError as exc:
            log.warning("passed over: %s", exc)
        else:
            yield found


def readable_page(
    what: str,
    read: Callable[[Document], T],
    page: Callable[[str], Iterable[Document]],
    after: str,
    limit: int,
) -> list[T]:
    """A page in order of ids, full unless it is the last one. `page` gives the documents after an id."""
    found: list[T] = []
    while True:
        documents = list(page(after))
        found += readable_ones(what, read, documents)
        if len(documents) < limit or len(found) >= limit:
            return found[:limit]
        after = documents[-1]["_id"]


def set_aside(collection: Documents, field: str, wrong: Mapping[Any, DataError]) -> None:
    """Park documents that can't be read, by id, so that the scheduler does not meet them again.

    `field` is by which it finds them. An operator mends the document, and sets the field again.
    """
    updates = []
    for document_id, error in wrong.items():
        log.warning("parked: %s", error)
        parked = {
            "reason": {"$literal": str(error)},
            "since": _NOW,
            "needs": "a newer release of liteflow, or that the document is mended",
        }
        updates.append(
            UpdateOne({"_id": document_id}, [{"$set": {"parked": parked}}, {"$unset": [field, "hold"]}])
        )
    if updates:
        collection.bulk_write(updates, ordered=False)
