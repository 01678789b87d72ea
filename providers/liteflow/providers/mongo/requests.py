"""Requests: one atomic update that knows duplicates, numbers the request and lowers `wake_at`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from liteflow.core.errors import InstanceUnreadableError
from liteflow.core.models import FORMAT_VERSION, Request, WorkflowStatus
from liteflow.core.providers import RequestOutcome
from liteflow.providers.mongo.documents import REQUEST
from liteflow.providers.mongo.errors import UNREACHABLE
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.scheduling import NOT_ENDED
from liteflow.providers.mongo.values import time_to_bson
from liteflow.providers.mongo.writing import encoded


class Inbox:
    """Puts requests into the inboxes of instances."""

    def __init__(self, instances: Documents) -> None:
        self._instances = instances

    def add(self, instance_id: str, request: Request, wake_at: datetime) -> RequestOutcome:
        """See `PersistenceProvider.request`."""
        takes_it = {
            "_id": instance_id,
            "format": {"$lte": FORMAT_VERSION},
            "status": {"$in": NOT_ENDED},
            "inbox.id": {"$ne": request.id},
            "applied": {"$ne": request.id},
        }
        update = _append(request, time_to_bson(wake_at))
        lost = False
        while True:
            try:
                result = self._instances.update_one(takes_it, update)
            except UNREACHABLE:
                if lost:
                    raise
                lost = True
                continue
            if result.matched_count:
                return RequestOutcome.STORED
            outcome = self._reason(instance_id, request.id)
            if outcome is RequestOutcome.DUPLICATE and lost:
                return RequestOutcome.STORED  # by the try whose answer got lost
            if outcome is not None:
                return outcome

    def _reason(self, instance_id: str, request_id: str) -> RequestOutcome | None:
        """Why a request was not taken; None if it was by something that has just changed."""
        fields = {"format": 1, "status": 1, "applied": 1, "inbox.id": 1}
        found = self._instances.find_one({"_id": instance_id}, fields)
        if found is None:
            return RequestOutcome.NOT_FOUND
        if found["format"] > FORMAT_VERSION:
            raise InstanceUnreadableError(instance_id, found["format"])
        if request_id in found.get("applied", []) or request_id in [r["id"] for r in found.get("inbox", [])]:
            return RequestOutcome.DUPLICATE
        return RequestOutcome.ENDED if WorkflowStatus(found["status"]).ended else None


def _append(request: Request, wake_at: str) -> list[Any]:
    """An aggregation, as the request's sequence is made of the field that it raises.

    In an aggregation texts can be field names, so what comes from outside has to be literal.
    """
    sequence = {"$add": ["$inbox_sequence", 1]}
    literal = {"$literal": encoded(REQUEST.write(request))}
    numbered = {"$mergeObjects": [literal, {"sequence": sequence}]}
    return [
        {
            "$set": {
                "inbox": {"$concatArrays": [{"$ifNull": ["$inbox", []]}, [numbered]]},
                "inbox_sequence": sequence,
                "wake_at": {"$min": ["$wake_at", wake_at]},
            }
        }
    ]
