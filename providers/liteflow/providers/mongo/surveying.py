"""The counts over all instances, each along an index.

How many are open is counted by the keys of the index alone. Parked and overdue ones should be few; their
documents are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from liteflow.core.models import WorkflowStatus
from liteflow.core.survey import OpenCount, OverdueCount, ParkedCount, Survey
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.scheduling import NOT_ENDED, due_query
from liteflow.providers.mongo.values import time_from_bson

DEFINITION = {"workflow": "$workflow_definition_id", "version": "$version"}

OPEN: list[dict[str, Any]] = [
    {"$match": {"status": {"$in": NOT_ENDED}}},
    {"$group": {"_id": {**DEFINITION, "status": "$status"}, "count": {"$sum": 1}}},
    {"$sort": {"_id": 1}},
]

PARKED: list[dict[str, Any]] = [
    {"$match": {"parked": {"$exists": True}}},
    {
        "$group": {
            "_id": {**DEFINITION, "reason": "$parked.reason", "needs": "$parked.needs"},
            "count": {"$sum": 1},
            # Compared field by field: the earliest one, with its id.
            "first": {"$min": {"since": "$parked.since", "id": "$_id"}},
        }
    },
    {"$sort": {"_id": 1}},
]


def overdue(since: datetime) -> list[dict[str, Any]]:
    """Groups of what is overdue."""
    group = {"_id": DEFINITION, "count": {"$sum": 1}, "oldest": {"$min": "$wake_at"}}
    return [{"$match": due_query(since)}, {"$group": group}, {"$sort": {"_id": 1}}]


def survey(instances: Documents, overdue_since: datetime) -> Survey:
    """See `PersistenceProvider.survey`."""
    return Survey(
        open=[_open(found) for found in instances.aggregate(OPEN, hint="by_status")],
        parked=[_parked(found) for found in instances.aggregate(PARKED, hint="parked")],
        overdue=[_overdue(found) for found in instances.aggregate(overdue(overdue_since), hint="due")],
    )


def _open(found: Mapping[str, Any]) -> OpenCount:
    key = found["_id"]
    return OpenCount(key["workflow"], key["version"], WorkflowStatus(key["status"]), found["count"])


def _parked(found: Mapping[str, Any]) -> ParkedCount:
    key, first = found["_id"], found["first"]
    return ParkedCount(
        key["workflow"],
        key["version"],
        key["reason"],
        key["needs"],
        found["count"],
        time_from_bson(first["since"]),
        first["id"],
    )


def _overdue(found: Mapping[str, Any]) -> OverdueCount:
    key = found["_id"]
    return OverdueCount(key["workflow"], key["version"], found["count"], time_from_bson(found["oldest"]))
