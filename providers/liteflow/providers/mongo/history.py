"""Ended pointers that have left the working document: a collection in order of instance and pointer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from liteflow.core.forms import NUMBER
from liteflow.core.models import FORMAT_VERSION, Pointer
from liteflow.providers.mongo.documents import POINTER
from liteflow.providers.mongo.indexes import Documents, of_instance
from liteflow.providers.mongo.reading import readable_ones
from liteflow.providers.mongo.writing import encoded, insert_missing


class History:
    """Keeps a copy of each ended pointer."""

    def __init__(self, collection: Documents) -> None:
        self._collection = collection

    def add(self, pointers: Sequence[tuple[str, Pointer]]) -> None:
        """Insert those that are not there yet."""
        new = []
        for instance_id, pointer in pointers:
            key = {"instance": instance_id, "pointer": int(pointer.id)}
            new.append(encoded({"_id": key, "format": FORMAT_VERSION, **POINTER.write(pointer)}))
        insert_missing(self._collection, new)

    def of(self, instance_id: str) -> list[Pointer]:
        """The pointers of an instance in order."""
        found = self._collection.find(of_instance(instance_id)).sort("_id", 1)
        return list(readable_ones("ended pointer", _pointer, found))


def _pointer(document: Mapping[str, Any]) -> Pointer:
    return POINTER.read(document, id=str(NUMBER.read(document["_id"]["pointer"])))
