"""The errors of instances: a collection of its own, in order of the revisions at which they happened."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from liteflow.core.forms import NUMBER, TEXT, Form
from liteflow.core.models import FORMAT_VERSION, ErrorRecord
from liteflow.core.transition import Transition
from liteflow.providers.mongo.forms import TIME
from liteflow.providers.mongo.indexes import Documents, of_instance
from liteflow.providers.mongo.reading import readable_ones
from liteflow.providers.mongo.writing import encoded, insert_missing

ERRORS_KEPT = 1000
"""At least so many of the last errors of an instance are kept."""

TRIM_EVERY = 128
"""One of so many errors makes room by removing the oldest ones of its instance."""

MOST_TEXT = 100_000
"""Characters of a message or traceback that are stored."""

_ERROR = Form(ErrorRecord, {"time": TIME, "attempt": NUMBER}, without=("instance_id", "message", "traceback"))


class ErrorLog:
    """Stores the error records of transitions, each once."""

    def __init__(self, collection: Documents) -> None:
        self._collection = collection

    def store(self, transitions: Sequence[Transition]) -> None:
        """Insert the errors of all these transitions."""
        documents = [
            _document(transition.revision, error) for transition in transitions for error in transition.errors
        ]
        insert_missing(self._collection, [encoded(document) for document in documents])
        for document in documents:
            key = document["_id"]
            if zlib.crc32(f"{key['instance']}:{key['revision']}".encode()) % TRIM_EVERY == 0:
                self.trim(key["instance"])

    def last(self, instance_id: str, limit: int) -> list[ErrorRecord]:
        """The last errors of an instance, oldest first."""
        if limit <= 0:  # which the server takes for no limit
            return []
        newest = self._collection.find(of_instance(instance_id)).sort("_id", -1).limit(limit)
        return list(readable_ones("error", _record, newest))[::-1]

    def trim(self, instance_id: str) -> None:
        """Remove all but the last errors of an instance."""
        surplus = (
            self._collection.find(of_instance(instance_id), {"_id": 1})
            .sort("_id", -1)
            .skip(ERRORS_KEPT)
            .limit(1)
        )
        for document in surplus:
            first = {"instance": instance_id}
            self._collection.delete_many({"_id": {"$gte": first, "$lte": document["_id"]}})


def _document(revision: int, error: ErrorRecord) -> dict[str, Any]:
    key = {
        "instance": error.instance_id,
        "revision": revision,
        "pointer": error.pointer_id,
        "attempt": error.attempt,
    }
    texts = {"message": _text(error.message), "traceback": _text(error.traceback)}
    return {"_id": key, "format": FORMAT_VERSION, **_ERROR.write(error), **texts}


def _record(document: Mapping[str, Any]) -> ErrorRecord:
    return _ERROR.read(
        document,
        instance_id=TEXT.read(document["_id"]["instance"]),
        message=TEXT.read(document["message"]),
        traceback=TEXT.read(document["traceback"]),
    )


def _text(text: str) -> str:
    """What of a text can be stored: exceptions may say anything, of any length."""
    if len(text) > MOST_TEXT:
        half = MOST_TEXT // 2
        text = f"{text[:half]} [...] {text[-half:]}"
    return text.encode("utf-8", "replace").decode()
