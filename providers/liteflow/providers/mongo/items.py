"""Collections of for_each that are too large for the working document, in chunks of their own.

The document holds a marker in the place of such a list, and each chunk of it is a document::

    {_id: "5f0c...", items: {"3": {revision: 8, token: "...", chunks: 2}}, ...}
    {_id: {instance: "5f0c...", pointer: "3", revision: 8, token: "...", chunk: 0}, format: 1, items: [...]}

Chunks are written before the commit that needs them. Revision and token are those that the commit gives to
the instance, so no two commits share a chunk, and one that loses leaves nothing but waste. Waste goes
with the removal of the list, or at the latest with the instance.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteMany
from pymongo.errors import PyMongoError

from liteflow.core.codec import Plain
from liteflow.core.forms import NUMBER, Form
from liteflow.core.models import FORMAT_VERSION, Instance
from liteflow.core.transition import Transition
from liteflow.providers.mongo.connection import CODEC_OPTIONS, RAW_OPTIONS
from liteflow.providers.mongo.forms import PLAIN
from liteflow.providers.mongo.indexes import Collections
from liteflow.providers.mongo.writing import encoded, insert_missing

log = logging.getLogger("liteflow.mongo")

LARGE = 64 * 1024
"""Bytes up to which a list stays in the document, which every load reads."""

CHUNK = 1024 * 1024
"""Bytes of items in one chunk, about. An item that is larger is a chunk by itself."""


@dataclass(frozen=True, slots=True)
class _Marker:
    """Where the chunks of a list are."""

    revision: int
    token: str
    chunks: int


MOST_CHUNKS = 10_000
"""No list has more; a marker that says so was not written here, and is not followed."""

_MARKER = Form(_Marker, {"revision": NUMBER, "chunks": NUMBER})


@dataclass(frozen=True, slots=True)
class Stored:
    """Lists by pointer as they stand in the document, and the chunks of those that are too large."""

    lists: dict[str, Any] = field(default_factory=dict)
    chunks: list[RawBSONDocument] = field(default_factory=list)


def of_created(instance: Instance) -> Stored:
    """The lists of a new instance. `DataError` for an item that can't be stored."""
    return _stored(instance.id, instance.revision, instance.token, instance.items)


def of_transition(transition: Transition) -> Stored:
    """The lists that a transition sets. `DataError` for an item that can't be stored."""
    return _stored(transition.instance_id, transition.revision + 1, transition.token, transition.items_set)


def _stored(instance_id: str, revision: int, token: str, lists: Mapping[str, list[Plain]]) -> Stored:
    stored = Stored()
    token, path = token or uuid.uuid4().hex, f"workflow {instance_id}"
    for pointer_id, plain in lists.items():
        items = PLAIN.write(plain)
        sizes = [len(encoded({"": item}, path).raw) for item in items]
        if sum(sizes) <= LARGE:
            stored.lists[pointer_id] = items
            continue
        chunks = list(_split(items, sizes))
        marker = _Marker(revision, token, len(chunks))
        stored.lists[pointer_id] = _MARKER.write(marker)
        for key, part in zip(_keys(instance_id, pointer_id, marker), chunks, strict=True):
            document = {"_id": key, "format": FORMAT_VERSION, "items": part}
            stored.chunks.append(encoded(document, path))
    return stored


def _split(items: list[Any], sizes: list[int]) -> Iterator[list[Any]]:
    first, total = 0, 0
    for place, size in enumerate(sizes):
        if place > first and total + size > CHUNK:
            yield items[first:place]
            first, total = place, 0
        total += size
    yield items[first:]


def _keys(instance_id: str, pointer_id: str, marker: _Marker) -> list[dict[str, Any]]:
    """The `_id` of each chunk of a list, in order."""
    common = {
        "instance": instance_id,
        "pointer": pointer_id,
        "revision": marker.revision,
        "token": marker.token,
    }
    return [{**common, "chunk": chunk} for chunk in range(marker.chunks)]


def _up_to(instance_id: str, pointer_id: str, revision: int) -> dict[str, Any]:
    """Matches the chunks of a list that were written for a state up to this revision."""
    first = {"instance": instance_id, "pointer": pointer_id}
    return {"_id": {"$gte": first, "$lt": {**first, "revision": revision + 1}}}


class ItemStore:
    """Writes, reads and removes the chunks."""

    def __init__(self, collections: Collections) -> None:
        self._collection = collections.items
        self._raw = collections.items.with_options(codec_options=RAW_OPTIONS)
        self._loose = collections.removed_items

    def add(self, stored: Iterable[Stored]) -> None:
        """Write the chunks of these. Those that are there were written by an earlier try."""
        insert_missing(self._collection, [chunk for one in stored for chunk in one.chunks])

    def fill(self, documents: Iterable[Mapping[str, Any]]) -> set[str]:
        """Put the lists where their markers are, by one query for all of them, or none.

        Returns the ids of the documents of which chunks are not there or can't be read. Their markers
        stay.
        """
        wanted = [
            (document, pointer_id, _keys(document["_id"], pointer_id, marker))
            for document in documents
            for pointer_id, marker in _markers(document)
        ]
        if not wanted:
            return set()
        chunks = self._read([key for _, _, keys in wanted for key in keys])
        incomplete = set()
        for document, pointer_id, keys in wanted:
            parts = [chunks.get(_hashable(key)) for key in keys]
            if None in parts:
                incomplete.add(document["_id"])
            else:
                document["items"][pointer_id] = [item for part in parts for item in part or []]
        return incomplete

    def _read(self, keys: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], list[Any]]:
        chunks = {}
        for raw in self._raw.find({"_id": {"$in": keys}}):
            try:
                chunk = bson.decode(raw.raw, CODEC_OPTIONS)
            except InvalidBSON:
                continue  # its instance alone is spoilt by it
            if isinstance(items := chunk.get("items"), list):
                chunks[_hashable(chunk["_id"])] = items
        return chunks

    def remove(self, transitions: Iterable[Transition]) -> None:
        """Delete the chunks of the lists that these, which are committed, have removed.

        Never raises: what is not deleted now goes with the instance. Chunks of later commits stay,
        should the same pointer have got another list.
        """
        deletes = [
            DeleteMany(_up_to(transition.instance_id, pointer_id, transition.revision))
            for transition in transitions
            for pointer_id in transition.items_removed
        ]
        if deletes:
            try:
                self._loose.bulk_write(deletes, ordered=False)
            except PyMongoError as exc:
                log.debug("large collections that have ended are left until their instances go: %s", exc)


def _markers(document: Mapping[str, Any]) -> Iterator[tuple[str, _Marker]]:
    """The markers in a document, as far as it can be understood; what is wrong its reader says."""
    lists = document.get("items")
    for pointer_id, stored in lists.items() if isinstance(lists, dict) else ():
        if isinstance(stored, dict):
            try:
                marker = _MARKER.read(stored)
            except (TypeError, ValueError):
                continue
            if 0 <= marker.chunks <= MOST_CHUNKS:
                yield pointer_id, marker


def _hashable(key: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(key.values())
