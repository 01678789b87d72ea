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

    def events(self, before: datetime, limit: int, unless_awaited: Sequence[str], now: datetime) -> int:
        """See `PersistenceProvider.purge_events`."""
        if limit <= 0:  # which the server takes for no limit
            return 0
        events = self._collections.events
        old = {"processed": {"$lt": time_to_bson(before)}}
        found = events.find(old, {"name": 1, "key": 1}).sort("processed", 1).limit(limit).hint("by_processed")
        ids: dict[tuple[str, str], list[str]] = {}
        for event in found:
            ids.setdefault((event["name"], event["key"]), []).append(event["_id"])
        kept = [one for topic in self._awaited(list(ids), unless_awaited) for one in ids.pop(topic, ())]
        if kept:
            again = {"$set": {"processed": time_to_bson(now)}}
            repeated(lambda: events.update_many({**old, "_id": {"$in": kept}}, again, hint="_id_"))
        purged = [one for some in ids.values() for one in some]
        return len(kept) + (_delete(events, old, purged) if purged else 0)

    def _awaited(self, topics: Sequence[tuple[str, str]], names: Sequence[str]) -> set[tuple[str, str]]:
        """Those of the names and keys for which some instance waits."""
        found: set[tuple[str, str]] = set()
        for name in names:
            keys = [key for one, key in topics if one == name]
            if keys:
                query = {"waits": {"$elemMatch": {"name": name, "key": {"$in": keys}}}}
                for instance in self._collections.instances.find(query, {"waits": 1}).hint("waits"):
                    found.update((wait["name"], wait["key"]) for wait in instance["waits"])
        return {topic for topic in found if topic[0] in names}


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
