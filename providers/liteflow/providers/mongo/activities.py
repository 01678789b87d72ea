"""Activities: one document each, leased by an update that takes the oldest one that is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from liteflow.core.forms import Form
from liteflow.core.models import FORMAT_VERSION, Activity
from liteflow.providers.mongo.errors import UNREACHABLE, repeated
from liteflow.providers.mongo.forms import PLAIN, TIME
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.reading import readable
from liteflow.providers.mongo.values import time_to_bson
from liteflow.providers.mongo.writing import encoded, insert_missing

# `done` is always stored, as the index of those that can be taken goes by it.
_ACTIVITY = Form(
    Activity, {"parameters": PLAIN, "time": TIME, "until": TIME}, always=("done",), without=("id",)
)
_NO_LEASE = {"token": "", "worker": "", "until": ""}


class ActivityPool:
    """The methods of `PersistenceProvider` that are about activities."""

    def __init__(self, collection: Documents) -> None:
        self._collection = collection

    def offer(self, activities: Sequence[Activity]) -> None:
        """Insert those whose id is not there."""
        new = [encoded(_document(activity), f"activity {activity.id}") for activity in activities]
        insert_missing(self._collection, new)

    def take(self, name: str, worker: str, token: str, now: datetime, until: datetime) -> Activity | None:
        """Lease the oldest of this name that is free."""
        lease = {"token": token, "worker": worker, "until": time_to_bson(until)}

        def take() -> dict[str, Any] | None:
            return self._collection.find_one_and_update(
                _free(name, now),
                {"$set": lease},
                sort=[("time", 1), ("_id", 1)],
                return_document=ReturnDocument.AFTER,
            )

        try:
            found = take()
        except UNREACHABLE:
            # What the lost try has taken is found by the token, so that no second one is leased.
            found = self._collection.find_one(_leased(token)) or take()
        return _activity(found) if found is not None else None

    def of_token(self, token: str) -> Activity | None:
        """The one that is leased under this token."""
        found = self._collection.find_one(_leased(token)) if token else None
        return _activity(found) if found is not None else None

    def finish(self, activity_id: str) -> None:
        """Keep only a mark of it."""
        done = {"$set": {"done": True}, "$unset": {**_NO_LEASE, "parameters": ""}}
        repeated(lambda: self._collection.update_one({"_id": activity_id}, done))

    def release(self, token: str) -> bool:
        """End a lease; False if there is none."""
        if not token:
            return False
        free = {"$unset": _NO_LEASE}
        try:
            return self._collection.update_one(_leased(token), free).matched_count > 0
        except UNREACHABLE:
            # If it is not leased now, the lost try has ended the lease.
            self._collection.update_one(_leased(token), free)
            return True

    def withdraw(self, activity_ids: Sequence[str]) -> None:
        """Delete these."""
        if activity_ids:
            query = {"_id": {"$in": list(activity_ids)}}
            repeated(lambda: self._collection.delete_many(query))


def _free(name: str, now: datetime) -> dict[str, Any]:
    """Matches what can be taken. A lease that is not there does not end after `now` either."""
    return {
        "name": name,
        "done": False,
        "until": {"$not": {"$gt": time_to_bson(now)}},
        "format": {"$lte": FORMAT_VERSION},
    }


def _leased(token: str) -> dict[str, Any]:
    return {"token": token}


def _document(activity: Activity) -> dict[str, Any]:
    return {"_id": activity.id, "format": FORMAT_VERSION, **_ACTIVITY.write(activity)}


def _activity(document: Mapping[str, Any]) -> Activity:
    with readable(f"activity {document['_id']}"):
        # Parameters that are None are left out of the document, but are no default of the record.
        return _ACTIVITY.read(document, id=document["_id"], parameters=None)
