"""Deleting what is old: ended instances with all that belongs to them, and processed events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import DeleteMany

from liteflow.core.errors import ProviderError
from liteflow.core.models import FORMAT_VERSION, WorkflowStatus
from liteflow.providers.mongo.errors import UNREACHABLE, repeated
from liteflow.providers.mongo.indexes import Collections, Documents, of_instance
from liteflow.providers.mongo.values import time_to_bson

ID_ONLY = {"_id": 1}


class Purge:
    """The methods of `PersistenceProvider` that delete by age."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    def instances(self, status: WorkflowStatus, older_than: datetime, limit: int) -> int:
        """See `PersistenceProvider.purge`."""
        if not status.ended:
            raise ProviderError(f"instances that are {status.name} have not ended and are not purged")
        ended = _ended(status, older_than)
        ids = [
            one["_id"] for one in _first(self._collections.instances, ended, "complete_time", "ended", limit)
        ]
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
        events = self._collections.events
        old = {"processed": {"$lt": time_to_bson(before)}}
        found = _first(events, old, "processed", "by_processed", limit, {"name": 1, "key": 1})
        kept = self._awaited(found, unless_awaited)
        purged = [event["_id"] for event in found if event["_id"] not in kept]
        if kept:
            again = {"$set": {"processed": time_to_bson(now)}}
            repeated(lambda: events.update_many({**old, "_id": {"$in": list(kept)}}, again, hint="_id_"))
        return len(kept) + (_delete(events, old, purged) if purged else 0)

    def _awaited(self, events: Sequence[Mapping[str, Any]], names: Sequence[str]) -> set[str]:
        """The ids of those events of these names for which some instance waits."""
        awaited: set[str] = set()
        for name in names:
            # What is stored may be anybody's writing.
            ours = [
                event for event in events if event.get("name") == name and isinstance(event.get("key"), str)
            ]
            if ours:
                query = {
                    "waits": {"$elemMatch": {"name": name, "key": {"$in": [one["key"] for one in ours]}}}
                }
                waiting = self._collections.instances.find(query, {"waits": 1}).hint("waits")
                waits = [wait for instance in waiting for wait in instance["waits"] if isinstance(wait, dict)]
                keys = [wait.get("key") for wait in waits if wait.get("name") == name]
                awaited.update(event["_id"] for event in ours if event["key"] in keys)
        return awaited


def _ended(status: WorkflowStatus, older_than: datetime) -> dict[str, Any]:
    """Matches what may be purged. In a newer format there may be more to an instance than is known here."""
    return {
        "status": int(status),
        "complete_time": {"$lt": time_to_bson(older_than)},
        "outbox": {"$exists": False},
        "format": {"$lte": FORMAT_VERSION},
    }


def _first(
    collection: Documents,
    query: dict[str, Any],
    order: str,
    index: str,
    limit: int,
    fields: Mapping[str, int] = ID_ONLY,
) -> list[dict[str, Any]]:
    """The first documents by an index, with their ids and these fields."""
    if limit <= 0:  # which the server takes for no limit
        return []
    return list(collection.find(query, fields).sort(order, 1).limit(limit).hint(index))


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
