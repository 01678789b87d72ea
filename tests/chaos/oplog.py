"""The true order of commits: every change of an instance, out of the log by which MongoDB replicates.

Each entry is the difference that a write made. They are applied to a shadow of the document, so that each
state that was ever stored is seen, with the time at which it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timezone
from typing import Any

import pymongo
from chaos.workflows import RAN

Document = dict[str, Any]


def applied(document: Document, diff: Mapping[str, Any]) -> Document:
    """A document after a difference of the oplog's second form: d(elete), u(pdate), i(nsert), s<field>."""
    result = dict(document)
    for key, value in diff.items():
        if key == "d":
            for name in value:
                result.pop(name, None)
        elif key in ("u", "i"):
            result.update(value)
        elif key.startswith("s"):
            inner = result.get(key[1:])
            if value.get("a"):
                result[key[1:]] = _array(list(inner or []), value)
            else:
                result[key[1:]] = applied(inner or {}, value)
    return result


def _array(values: list[Any], diff: Mapping[str, Any]) -> list[Any]:
    if "l" in diff:
        values = values[: diff["l"]]
    for key, value in diff.items():
        if key in ("a", "l"):
            continue
        place = int(key[1:])
        values.extend([None] * (place + 1 - len(values)))
        if key.startswith("u"):
            values[place] = value
        elif value.get("a"):
            values[place] = _array(list(values[place] or []), value)
        else:
            values[place] = applied(values[place] or {}, value)
    return values


@dataclass
class Stored:
    """What the log tells of one instance.

    `revisions` are (number, wall time) of each commit. `statuses` likewise. `counted` maps each run that
    a commit has stored to when that was. `ended` maps pointers to when their end was stored. `requests` are
    the ids of control requests that each commit has applied, where it has any. `wrong` are changes that must
    never be.
    """

    document: Document = field(default_factory=dict)
    revisions: list[tuple[int, float]] = field(default_factory=list)
    statuses: list[tuple[int, float]] = field(default_factory=list)
    counted: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    requests: list[set[str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def put(self, document: Document, wall: float) -> None:
        """The document is stored in this state."""
        before, self.document = self.document, document
        revision, was = document["revision"], before.get("revision")
        if was is None or revision == was + 1:
            self.revisions.append((revision, wall))
        elif revision != was or document.get("token") != before.get("token"):
            self.wrong.append(f"revision {was} was followed by {revision}, token {document.get('token')}")
        if document["status"] != before.get("status"):
            self.statuses.append((document["status"], wall))
            if before.get("status") in (2, 3):
                self.wrong.append(f"status {before['status']} became {document['status']} after the end")
        if requests := set(document.get("applied", ())) - set(before.get("applied", ())):
            self.requests.append(requests)
        self._pointers(before, document, wall)
        self._data(before, document, wall)

    def _pointers(self, before: Document, document: Document, wall: float) -> None:
        old = before.get("pointers", {})
        for key, pointer in document.get("pointers", {}).items():
            was = old.get(key, {})
            if pointer.get("end_time") and not was.get("end_time"):
                if key in self.ended:
                    self.wrong.append(f"pointer {key} has ended twice")
                self.ended.setdefault(key, wall)
            elif was.get("end_time") and was["end_time"] != pointer.get("end_time"):
                self.wrong.append(f"the end of pointer {key} was changed")

    def _data(self, before: Document, document: Document, wall: float) -> None:
        old, new = before.get("data", {}), document.get("data", {})
        for name, run in new.items():
            if name.startswith(RAN) and old.get(name) != run:
                self.counted[run] = wall
                if name in old:
                    self.wrong.append(f"{name}: run {old[name]} counted, and then run {run}")


def read(client: pymongo.MongoClient[Document], database: str, collection: str) -> dict[str, Stored]:
    """All instances of a collection, by id."""
    instances: dict[str, Stored] = {}
    for operation, wall in _operations(client, f"{database}.{collection}"):
        kind, what = operation["op"], operation["o"]
        if kind == "i":
            instances[what["_id"]] = stored = Stored()
            stored.put(copy.copy(what), wall)
        elif kind == "u":
            stored = instances[operation["o2"]["_id"]]
            after = applied(stored.document, what["diff"]) if "diff" in what else what
            stored.put(after, wall)
    return instances


def _operations(
    client: pymongo.MongoClient[Document], namespace: str
) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Single changes of a collection, those that were made in one transaction included."""
    for entry in client["local"]["oplog.rs"].find().sort("$natural", 1):
        wall = entry["wall"].replace(tzinfo=timezone.utc).timestamp()
        inner = entry["o"].get("applyOps") if entry["op"] == "c" else None
        for operation in inner if inner is not None else [entry]:
            if operation.get("ns") == namespace:
                yield operation, wall
