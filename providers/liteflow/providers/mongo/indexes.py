"""The collections and their indexes. Every query that runs periodically is served by one of them.

Partial indexes hold only the documents that have the field: an ended instance, which has neither
`wake_at` nor `waits`, costs nothing there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from bson.max_key import MaxKey
from pymongo import ASCENDING, DESCENDING, IndexModel, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from liteflow.providers.mongo.errors import UNAUTHORIZED

log = logging.getLogger("liteflow.mongo")

Documents = Collection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Collections:
    """The collections of one prefix.

    `scheduling` and `removed_items` are `instances` and `items` for writes that may get lost.
    """

    instances: Documents
    scheduling: Documents
    items: Documents
    removed_items: Documents
    history: Documents
    errors: Documents
    events: Documents
    activities: Documents
    definitions: Documents
    processes: Documents

    @staticmethod
    def of(database: Database[dict[str, Any]], prefix: str) -> Collections:
        """The collections in a database, which has the concerns of durable writes."""
        instances, items = database[f"{prefix}.instances"], database[f"{prefix}.items"]
        return Collections(
            instances=instances,
            scheduling=_loose(instances),
            items=items,
            removed_items=_loose(items),
            history=database[f"{prefix}.history"],
            errors=database[f"{prefix}.errors"],
            events=database[f"{prefix}.events"],
            activities=database[f"{prefix}.activities"],
            definitions=database[f"{prefix}.definitions"],
            processes=database[f"{prefix}.processes"],
        )

    def create_indexes(self) -> None:
        """Create those that are missing.

        A user who may not is taken for a client: the workers and schedulers create them.
        """
        try:
            for collection, indexes in self.indexes():
                collection.create_indexes(indexes)
        except OperationFailure as exc:
            if exc.code != UNAUTHORIZED:
                raise
            log.info("this user may not create indexes; a worker does that")

    def indexes(self) -> list[tuple[Documents, list[IndexModel]]]:
        """What has to be there. The other collections live by their `_id` alone."""
        instances = [
            _index("due", "wake_at", partial="wake_at"),
            _index("waits", "waits.name", "waits.key", "_id", partial="waits"),
            _index("parked", "workflow_definition_id", "version", "_id", partial="parked"),
            _index("parked_listing", "-create_time", "-_id", partial="parked"),
            # The definition is in it to be counted by, without a look at the documents.
            _index("by_status", "status", "-create_time", "-_id", "workflow_definition_id", "version"),
            _index("workflow", "workflow_definition_id", "status", "-create_time", "-_id"),
            _index("reference", "reference", "-create_time", "-_id", partial="reference"),
            _index("ended", "status", "complete_time", partial="complete_time"),
        ]
        events = [
            _index("time", "name", "key", "time", "_id"),
            _index("due", "due", "_id", partial="due"),
            _index("by_processed", "processed", partial="processed"),
        ]
        activities = [
            # Read in order from the oldest; the lease's end is there to pass over those that are leased.
            _index("offered", "name", "time", "_id", "until", where={"done": False}),
            _index("token", "token", partial="token"),
            _index("instance", "instance_id"),
        ]
        return [(self.instances, instances), (self.events, events), (self.activities, activities)]


def of_instance(instance_id: str) -> dict[str, Any]:
    """Matches what belongs to an instance where `_id` is a document that begins with it."""
    first, last = {"instance": instance_id}, {"instance": instance_id, "": MaxKey()}
    return {"_id": {"$gte": first, "$lt": last}}


def _loose(collection: Documents) -> Documents:
    return collection.with_options(write_concern=WriteConcern(w=1), read_concern=ReadConcern("local"))


def _index(
    name: str, *keys: str, partial: str | None = None, where: dict[str, Any] | None = None
) -> IndexModel:
    """An index on these fields, descending where a minus stands before the name.

    It holds all documents, or those that have the field `partial`, or that match `where`.
    """
    order = [(key.lstrip("-"), DESCENDING if key.startswith("-") else ASCENDING) for key in keys]
    if partial is not None:
        where = {partial: {"$exists": True}}
    return IndexModel(order, name=name, **({} if where is None else {"partialFilterExpression": where}))
