"""Loads: working documents, each decoded on its own, with their large collections."""

from __future__ import annotations

from collections.abc import Sequence

import bson
from bson.errors import InvalidBSON

from liteflow.core.errors import DataError, LiteFlowError
from liteflow.core.models import Instance
from liteflow.providers.mongo.connection import CODEC_OPTIONS, RAW_OPTIONS
from liteflow.providers.mongo.documents import Document, instance_from_document
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.items import ItemStore


class Loader:
    """Reads instances. Without a state of its own, so any thread may use it."""

    def __init__(self, instances: Documents, items: ItemStore) -> None:
        self._instances = instances.with_options(codec_options=RAW_OPTIONS)
        self._items = items

    def load(self, instance_ids: Sequence[str]) -> dict[str, Instance | Exception]:
        """See `PersistenceProvider.load`."""
        loaded: dict[str, Instance | Exception] = {}
        seen: dict[str, object] = {}
        left = list(instance_ids)
        while left:
            documents, unreadable = self._read(left)
            loaded |= unreadable
            incomplete = self._items.fill(documents.values())
            left = []
            for key, document in documents.items():
                # A commit may have removed a list after the document was read and before its chunks
                # were. Then the document has changed since.
                if key in incomplete and seen.get(key) != document.get("revision"):
                    seen[key] = document.get("revision")
                    left.append(key)
                else:
                    loaded[key] = _instance(document)
        return loaded

    def _read(self, instance_ids: Sequence[str]) -> tuple[dict[str, Document], dict[str, Exception]]:
        documents: dict[str, Document] = {}
        unreadable: dict[str, Exception] = {}
        for raw in self._instances.find({"_id": {"$in": instance_ids}}):
            key = raw["_id"]
            try:
                documents[key] = bson.decode(raw.raw, CODEC_OPTIONS)
            except InvalidBSON as exc:
                unreadable[key] = DataError(f"workflow {key}", f"can't be read: {exc}")
        return documents, unreadable


def _instance(document: Document) -> Instance | Exception:
    try:
        return instance_from_document(document)
    except LiteFlowError as exc:
        return exc
