"""The definitions that workers have made known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bson.max_key import MaxKey
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from liteflow.core.forms import NUMBER, TEXT
from liteflow.core.models import FORMAT_VERSION, DefinitionRecord
from liteflow.providers.mongo.errors import DUPLICATE_KEY, repeated, write_errors
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.reading import readable_ones


class DefinitionLog:
    """One document for each version of a definition."""

    def __init__(self, collection: Documents) -> None:
        self._collection = collection

    def record(self, definitions: Sequence[DefinitionRecord]) -> None:
        """Store these, over what is there of the same ids and versions."""
        updates = [_upsert(record) for record in definitions]
        if not updates:
            return
        try:
            repeated(lambda: self._collection.bulk_write(updates, ordered=False))
        except BulkWriteError as exc:
            # Two processes that insert the same one at once: the second try finds it there.
            if any(error["code"] != DUPLICATE_KEY for error in write_errors(exc)):
                raise
            self._collection.bulk_write(updates, ordered=False)

    def of(self, workflow_definition_id: str | None) -> list[DefinitionRecord]:
        """All in order of id and version, or those of one id."""
        query: dict[str, Any] = {}
        if workflow_definition_id is not None:
            first = {"workflow": workflow_definition_id}
            query = {"_id": {"$gte": first, "$lt": {**first, "version": MaxKey()}}}
        found = self._collection.find(query).sort("_id", 1)
        return list(readable_ones("definition", _record, found))


def _record(document: Mapping[str, Any]) -> DefinitionRecord:
    key = document["_id"]
    return DefinitionRecord(
        TEXT.read(key["workflow"]), NUMBER.read(key["version"]), TEXT.read(document["fingerprint"])
    )


def _upsert(record: DefinitionRecord) -> UpdateOne:
    key = {"workflow": record.id, "version": record.version}
    values = {"format": FORMAT_VERSION, "fingerprint": record.fingerprint}
    return UpdateOne({"_id": key}, {"$set": values}, upsert=True)
