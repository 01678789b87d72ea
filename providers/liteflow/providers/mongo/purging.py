"""Deleting what is old: ended instances with all that belongs to them, and processed events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import DeleteMany

from liteflow.core.errors import ProviderError
from liteflow.core.models import FORMAT_VERSION, WorkflowStatus
from liteflow.providers.mongo.errors import UNREACHABLE, repeated
from liteflow.providers.mongo.indexes import Collections, Documents, of_instance
from liteflow.providers.mongo.values import time_to_bson


class Purge:
    """The methods of `PersistenceProvider` that delete by age."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    def instances(self, status: WorkflowStatus, older_than: datetime, limit: int) -> int:
        """See `PersistenceProvider.purge`."""
        if not status.ended:
            raise ProviderError(f"instances that are {status.name} have not ended and are not purged")
        ended = _ended(status, older_than)
        ids = _first(self._collections.instances, ended, "complete_time", "ended", limit)
        if not ids:
            return 0
        self._delete_what_belongs_to(ids)
        return _delete(self._collections.instances, ended, ids)

    def _delete_what_belongs_to(self, ids: Sequence[str]) -> None:
        ranges = [DeleteMany(of_instance(key)) for key in ids]
        c = self._collections
        for collection in (c.history, c.errors, c.items):
            _delete_all(collection, ranges)
        theirs = {"instance_id": {"$in": ids}}
        repeated(lambda: self._collections.activities.delete_many(theirs))

    def events(self, before: datetime, limit: int) -> int:
        """See `PersistenceProvider.purge_events`."""
        old = {"processed": {"$lt": time_to_bson(before)}}
        ids = _first(self._collections.events, old, "processed", "by_processed", limit)
        return _delete(self._collections.events, old, ids) if ids else 0


def _ended(status: WorkflowStatus, older_than: datetime) -> dict[str, Any]:
    """Matches what may be purged. In a newer format there may be more to an instance than is known here."""
    return {
        "status": int(status),
        "complete_time": {"$lt": time_to_bson(older_than)},
        "outbox": {"$exists": False},
        "format": {"$lte": FORMAT_VERSION},
    }


def _first(collection: Documents, query: dict[str, Any], order: str, index: str, limit: int) -> list[str]:
    """The ids of the first documents by an index."""
    if limit <= 0:  # which the server takes for no limit
        return []
    found = collection.find(query, {"_id": 1}).sort(order, 1).limit(limit).hint(index)
    return [document["_id"] for document in found]


def _delete_all(collection: Documents, deletes: Sequence[DeleteMany]) -> None:
    repeated(lambda: collection.bulk_write(deletes, ordered=False))


def _delete(collection: Documents, query: dict[str, Any], ids: Sequence[str]) -> int:
    """Delete those of the ids that still match, and count them."""
    found = {**query, "_id": {"$in": ids}}
    try:
        return collection.delete_many(found, hint="_id_").deleted_count
    except UNREACHABLE:
        # How many the lost try has deleted is not known; after this one none is left.
        collection.delete_many(found, hint="_id_")
        return len(ids)
