"""Listings: filters as queries that an index serves, in order, from where the page before ended."""

from __future__ import annotations

from itertools import islice
from typing import Any

from liteflow.core.models import WorkflowStatus
from liteflow.core.paging import decode_cursor, encode_cursor
from liteflow.core.providers import ListFilter, Page
from liteflow.providers.mongo.documents import SUMMARY_FIELDS, summary
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.reading import readable_ones
from liteflow.providers.mongo.values import time_to_bson

NEWEST_FIRST = [("create_time", -1), ("_id", -1)]


def list_page(instances: Documents, query: ListFilter) -> Page:
    """See `PersistenceProvider.list`."""
    found = instances.find(listing_query(query), SUMMARY_FIELDS).sort(NEWEST_FIRST).hint(_index(query))
    with found.clone().limit(query.limit + 1) as page:
        documents = list(page)
    rows = list(readable_ones("workflow", summary, documents))
    if len(rows) < len(documents):  # what can't be read does not count
        with found:
            rows = list(islice(readable_ones("workflow", summary, found), query.limit + 1))
    items = rows[: query.limit]
    more = len(rows) > query.limit
    return Page(items, encode_cursor(items[-1].create_time, items[-1].id) if more else None)


def _index(query: ListFilter) -> str:
    """The index by name: the server would try out several, and take the wrong one at times."""
    if query.parked:
        return "parked_listing"
    if query.reference is not None:
        return "reference"
    return "workflow" if query.workflow is not None else "status"


def listing_query(query: ListFilter) -> dict[str, Any]:
    """The conditions. The status is always one of them, as the indexes begin with it."""
    statuses = WorkflowStatus if query.status is None else [query.status]
    conditions: dict[str, Any] = {"status": {"$in": [int(status) for status in statuses]}}
    if query.workflow is not None:
        conditions["workflow_definition_id"] = query.workflow
    if query.reference is not None:
        conditions["reference"] = query.reference
    if query.parked is not None:
        conditions["parked"] = {"$exists": query.parked}
    times: dict[str, str] = {}
    if query.created_after is not None:
        times["$gte"] = time_to_bson(query.created_after)
    if query.created_before is not None:
        times["$lt"] = time_to_bson(query.created_before)
    if query.cursor is not None:
        create_time, instance_id = decode_cursor(query.cursor)
        at = time_to_bson(create_time)
        # The first condition alone is what the index is entered by.
        times["$lte"] = at
        conditions["$or"] = [{"create_time": {"$lt": at}}, {"_id": {"$lt": instance_id}}]
    if times:
        conditions["create_time"] = times
    return conditions
