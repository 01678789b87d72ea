"""The heartbeats of workers and schedulers: one small document for each process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from liteflow.core.forms import Conversion, Form, list_of
from liteflow.core.models import FORMAT_VERSION, DefinitionRecord
from liteflow.core.survey import ProcessRecord
from liteflow.providers.mongo.errors import repeated
from liteflow.providers.mongo.forms import TIME
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.reading import readable_ones

_DEFINITIONS = list_of(Form(DefinitionRecord, {}))
_PROCESS = Form(
    ProcessRecord,
    {
        "started": TIME,
        "seen": TIME,
        "until": TIME,
        "definitions": Conversion(_DEFINITIONS.write, lambda stored: tuple(_DEFINITIONS.read(stored))),
    },
    without=("id",),
)


class ProcessLog:
    """The methods of `PersistenceProvider` about processes."""

    def __init__(self, collection: Documents) -> None:
        self._collection = collection

    def beat(self, process: ProcessRecord) -> None:
        """See `PersistenceProvider.beat`."""
        document = {"format": FORMAT_VERSION, **_PROCESS.write(process)}
        repeated(lambda: self._collection.replace_one({"_id": process.id}, document, upsert=True))

    def all(self) -> list[ProcessRecord]:
        """See `PersistenceProvider.processes`."""
        return list(readable_ones("process", _process, self._collection.find({}).sort("_id", 1)))

    def forget(self, process_ids: Sequence[str]) -> None:
        """See `PersistenceProvider.forget_processes`."""
        repeated(lambda: self._collection.delete_many({"_id": {"$in": list(process_ids)}}))


def _process(document: Mapping[str, Any]) -> ProcessRecord:
    return _PROCESS.read(document, id=document["_id"])
