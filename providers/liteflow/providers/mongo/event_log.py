"""The event log: events by name, key and time, and by when the scheduler has to look at them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import UpdateOne

from liteflow.core.errors import DataError
from liteflow.core.models import Event, Wait
from liteflow.providers.mongo.documents import event_from_document, event_to_document
from liteflow.providers.mongo.errors import UNREACHABLE, repeated
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.reading import readable, readable_ones, set_aside
from liteflow.providers.mongo.values import time_from_bson, time_to_bson
from liteflow.providers.mongo.writing import encoded, insert_once


class EventLog:
    """The methods of `PersistenceProvider` that are about events alone."""

    def __init__(self, collection: Documents) -> None:
        self._collection = collection

    def add(self, event: Event) -> bool:
        """Insert an event; False if its id is there already."""
        document = encoded(event_to_document(event))
        try:
            return insert_once(self._collection, document)
        except UNREACHABLE:
            # If it is there now, the lost try has stored it: telling of it twice does less harm than
            # not telling at all.
            insert_once(self._collection, document)
            return True

    def get(self, event_id: str) -> Event | None:
        """One event."""
        document = self._collection.find_one({"_id": event_id})
        return event_from_document(document) if document is not None else None

    def fitting(self, waits: Sequence[Wait], now: datetime, limit: int) -> list[Event]:
        """Events that fit any of the waits, at most `limit` for each, in order of time, then id."""
        first: dict[tuple[str, str], datetime] = {}
        for wait in waits:
            key = (wait.name, wait.key)
            first[key] = min(wait.since, first.get(key, wait.since))
        queries = [fitting_query(name, key, since, now) for (name, key), since in first.items()]
        found: dict[str, Event] = {}
        for begin in range(0, len(queries), QUERIES_AT_ONCE):
            together = queries[begin : begin + QUERIES_AT_ONCE]
            documents = list(self._collection.find({"$or": together}).limit(limit))
            if len(documents) == limit:  # there may be more for one of them: each on its own
                return self._fitting_each(waits, now, limit)
            found.update(
                (event.id, event) for event in readable_ones("event", event_from_document, documents)
            )
        return sorted(found.values(), key=lambda event: (event.time, event.id))

    def _fitting_each(self, waits: Sequence[Wait], now: datetime, limit: int) -> list[Event]:
        found: dict[str, Event] = {}
        for name, key, since in {(wait.name, wait.key, wait.since) for wait in waits}:
            query = fitting_query(name, key, since, now)
            stored = self._collection.find(query).sort([("time", 1), ("_id", 1)]).limit(limit)
            for event in readable_ones("event", event_from_document, stored):
                found[event.id] = event
        return sorted(found.values(), key=lambda event: (event.time, event.id))

    def hold(self, now: datetime, hold_until: datetime, limit: int) -> list[Event]:
        """Unprocessed events that are due, which they are not again before `hold_until`."""
        found = list(self._collection.find(due_query(now)).sort([("due", 1), ("_id", 1)]).limit(limit))
        documents, events = [], {}
        wrong = {}
        for document in found:
            try:
                events[document["_id"]] = event_from_document(document)
                documents.append(document)
            except DataError as exc:
                wrong[document["_id"]] = exc
        set_aside(self._collection, "due", wrong)
        if not documents:
            return []
        token, until = uuid.uuid4().hex, time_to_bson(hold_until)
        hold = {"$set": {"due": until, "hold": token}}
        updates = [UpdateOne({"_id": one["_id"], "due": one["due"]}, hold) for one in documents]
        result = self._collection.bulk_write(updates, ordered=False)
        if result.matched_count < len(documents):
            held = self._collection.find({"_id": {"$in": list(events)}, "hold": token}, {"_id": 1})
            mine = {one["_id"] for one in held}
            documents = [one for one in documents if one["_id"] in mine]
        return [events[document["_id"]] for document in documents]

    def mark_processed(self, event_ids: Sequence[str], now: datetime) -> None:
        """These are not due any more."""
        if event_ids:
            done = {"$set": {"processed": time_to_bson(now)}, "$unset": {"due": "", "hold": ""}}
            query = {"_id": {"$in": list(event_ids)}}
            repeated(lambda: self._collection.update_many(query, done))

    def next_due(self) -> datetime | None:
        """When the first unprocessed event is due."""
        in_order = [("due", 1), ("_id", 1)]
        while (found := self._collection.find_one(ANY_DUE, {"due": 1}, sort=in_order)) is not None:
            try:
                with readable(f"event {found['_id']}"):
                    return time_from_bson(found["due"])
            except DataError as exc:
                set_aside(self._collection, "due", {found["_id"]: exc})
        return None


QUERIES_AT_ONCE = 64
"""So many names and keys are asked for together."""

ANY_DUE: dict[str, Any] = {"due": {"$gt": ""}}


def due_query(now: datetime) -> dict[str, Any]:
    """Matches unprocessed events whose time has come and that are not held."""
    return {"due": {"$lte": time_to_bson(now)}}


def fitting_query(name: str, key: str, since: datetime, now: datetime) -> dict[str, Any]:
    """Matches events that fit a wait."""
    return {"name": name, "key": key, "time": {"$gte": time_to_bson(since), "$lte": time_to_bson(now)}}
