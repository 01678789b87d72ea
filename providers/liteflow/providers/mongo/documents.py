"""Instances, transitions and events as documents.

An instance is one document, made to be read and queried by people too::

    {_id: "5f0c...", format: 1, workflow_definition_id: "order", version: 1, status: 0, revision: 7,
     create_time: "2026-01-02T03:04:05.678901Z", wake_at: "2026-01-02T03:14:05.678901Z",
     data: {customer: {name: "Ann"}, total: Decimal128("12.50")},
     pointers: {"3": {step_id: "wait", status: 5, event_name: "paid", ...}},
     waits: [{name: "paid", key: "o-42", since: "...", pointer_id: "3"}], token: "...", ...}

Names are those of `liteflow.core.models`. What has its default value is left out. Only `waits` and `hold`
are more than the model has: the open waits in the form that is indexed, and the scheduler's hold. Where
`items` has a marker instead of a list, the list is outside of the document (see `items`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from liteflow.core.codec import Plain
from liteflow.core.errors import DataError, InstanceUnreadableError
from liteflow.core.forms import NUMBER, TEXT, Conversion, Form, enumeration, list_of, map_of, read_texts
from liteflow.core.models import (
    FORMAT_VERSION,
    Claim,
    Event,
    Instance,
    OutboxItem,
    Parked,
    Pointer,
    PointerStatus,
    Request,
    Wait,
    WorkflowStatus,
    WorkflowSummary,
)
from liteflow.core.providers import Due, Waiter
from liteflow.core.transition import Transition
from liteflow.providers.mongo.forms import PLAIN, TIME
from liteflow.providers.mongo.reading import readable
from liteflow.providers.mongo.values import from_bson, time_from_bson, time_to_bson

Document = dict[str, Any]

PATH = Conversion(list, lambda stored: tuple(read_texts(stored)))

POINTER = Form(
    Pointer,
    {
        "status": enumeration(PointerStatus),
        "scope": PATH,
        "context_item": PLAIN,
        "persistence_data": PLAIN,
        "sleep_until": TIME,
        "start_time": TIME,
        "end_time": TIME,
        "event_since": TIME,
        "deadline": TIME,
        "undo": PATH,
        "event_data": PLAIN,
        "outcome": PLAIN,
    },
    always=("status",),
    without=("id",),
)
CLAIM = Form(Claim, {"until": TIME})
REQUEST = Form(Request, {"time": TIME, "arguments": PLAIN, "sequence": NUMBER})
OUTBOX_ITEM = Form(OutboxItem, {"sequence": NUMBER, "time": TIME, "body": PLAIN})
PARKED = Form(Parked, {"since": TIME})
WAIT = Form(Wait, {"since": TIME})
EVENT = Form(Event, {"time": TIME, "processed": TIME, "data": PLAIN}, without=("id",))


def _read_pointers(stored: Mapping[str, Document]) -> dict[str, Pointer]:
    # In order of creation, which is not the order in which the server keeps new fields.
    return {key: POINTER.read(pointer, id=key) for key, pointer in sorted(stored.items(), key=_number)}


def _number(item: tuple[str, Document]) -> int:
    return int(item[0])


# Names and keys of events can be anything, so they are no names of fields.
_CONSUMED = Conversion(
    lambda consumed: [{"wait": wait, "events": events} for wait, events in consumed.items()],
    lambda stored: {entry["wait"]: read_texts(entry["events"]) for entry in stored},
)

INSTANCE = Form(
    Instance,
    {
        "create_time": TIME,
        "status": enumeration(WorkflowStatus),
        "data": map_of(PLAIN),
        "complete_time": TIME,
        "revision": NUMBER,
        "wake_at": TIME,
        "next_execution": TIME,
        "deadline": TIME,
        "completions": NUMBER,
        "pointers": Conversion(
            lambda pointers: {key: POINTER.write(pointer) for key, pointer in pointers.items()},
            _read_pointers,
        ),
        "pointer_sequence": NUMBER,
        "claims": map_of(Conversion(CLAIM.write, CLAIM.read)),
        "inbox": list_of(REQUEST),
        "inbox_sequence": NUMBER,
        "outbox": list_of(OUTBOX_ITEM),
        "outbox_sequence": NUMBER,
        "consumed": _CONSUMED,
        "parked": Conversion(PARKED.write, PARKED.read),
    },
    always=("status", "revision", "inbox_sequence"),
    without=("id", "items"),
)
_WAITS = list_of(WAIT)


# ------------------------------------------------------------------------------------------ instances


def instance_to_document(instance: Instance, items: Mapping[str, Any]) -> Document:
    """The document of a new instance. `items` are its lists as they are stored."""
    document = {"_id": instance.id, "format": FORMAT_VERSION, **INSTANCE.write(instance)}
    if items:
        document["items"] = dict(items)
    waits = instance.waits()
    if waits:
        document["waits"] = _WAITS.write(waits)
    return document


def instance_from_document(document: Mapping[str, Any]) -> Instance:
    """The instance of a document into which large lists have been put back.

    `InstanceUnreadableError` or `DataError` if it can't be understood.
    """
    instance_id = document["_id"]
    format_version = document.get("format")
    if type(format_version) is not int or format_version > FORMAT_VERSION:
        raise InstanceUnreadableError(str(instance_id), format_version)
    with readable(f"workflow {instance_id}"):
        return INSTANCE.read(document, id=instance_id, items=_read_items(document.get("items", {})))


def _read_items(stored: Mapping[str, Any]) -> dict[str, list[Plain]]:
    lists = {}
    for key, items in stored.items():
        if not isinstance(items, list):
            raise DataError(f"items.{key}", "the parts of a large collection are missing or can't be read")
        with readable(f"items.{key}"):
            lists[key] = [from_bson(item) for item in items]
    return lists


def transition_to_update(transition: Transition, items: Mapping[str, Any]) -> Document:
    """The update that does to a document what `Transition.apply` does to an instance.

    `items` are the lists of `items_set` as they are stored.
    """
    changes: Document = {"revision": transition.revision + 1, "token": transition.token}
    # A commit clears the mark of a parked instance and the scheduler's hold.
    removed = {"parked": "", "hold": ""}

    def put(path: str, stored: Any) -> None:
        if stored is None:
            removed[path] = ""
        else:
            changes[path] = stored

    for name, value in transition.fields.items():
        put(name, INSTANCE.write_field(name, value))
    for name in ("wake_at", "message_sent", "crashes"):
        put(name, INSTANCE.write_field(name, getattr(transition, name)))
    if transition.waits is not None:
        put("waits", _WAITS.write(transition.waits) or None)

    gone = (
        ("data", transition.data_removed),
        ("pointers", transition.pointers_removed),
        ("items", transition.items_removed),
        ("claims", transition.claims_removed),
    )
    for name, keys in gone:
        removed.update((f"{name}.{key}", "") for key in keys)
    for key, value in transition.data_set.items():
        changes[f"data.{key}"] = PLAIN.write(value)
    for key, pointer in transition.pointers.items():
        changes[f"pointers.{key}"] = POINTER.write(pointer)
    for key, stored in items.items():
        changes[f"items.{key}"] = stored
    for key, claim in transition.claims_set.items():
        changes[f"claims.{key}"] = CLAIM.write(claim)
    return {"$set": changes, "$unset": {path: "" for path in removed if path not in changes}}


# ------------------------------------------------------------------------------------- parts of them

WAITER_FIELDS = {"workflow_definition_id": 1, "version": 1}
DUE_FIELDS = {**WAITER_FIELDS, "wake_at": 1, "message_sent": 1, "hold": 1, "revision": 1}
SUMMARY_FIELDS = {
    **WAITER_FIELDS, "status": 1, "reference": 1, "create_time": 1, "complete_time": 1, "parked": 1,
}  # fmt: skip


def waiting_query(name: str, key: str, after: str) -> Document:
    """Matches instances that wait for an event, those with an id after `after`."""
    return {"waits": {"$elemMatch": {"name": name, "key": key}}, "_id": {"$gt": after}}


def waiter(document: Mapping[str, Any]) -> Waiter:
    """What is needed to send an instance a wake-up."""
    return Waiter(
        document["_id"], TEXT.read(document["workflow_definition_id"]), NUMBER.read(document["version"])
    )


def due(document: Mapping[str, Any]) -> Due:
    """An instance that is to be looked at."""
    with readable(f"workflow {document['_id']}"):
        who = waiter(document)
        return Due(
            who.instance_id,
            who.workflow_definition_id,
            who.version,
            time_from_bson(document["wake_at"]),
            bool(document.get("message_sent")),
            NUMBER.read(document.get("hold", {}).get("count", 0)),
        )


def summary(document: Mapping[str, Any]) -> WorkflowSummary:
    """A row of a listing."""
    complete_time = document.get("complete_time")
    return WorkflowSummary(
        document["_id"],
        WorkflowStatus(document["status"]),
        TEXT.read(document["workflow_definition_id"]),
        NUMBER.read(document["version"]),
        document.get("reference"),
        time_from_bson(document["create_time"]),
        time_from_bson(complete_time) if complete_time is not None else None,
        document["parked"]["reason"] if "parked" in document else None,
    )


# --------------------------------------------------------------------------------------------- events


def event_to_document(event: Event) -> Document:
    """The document of a new event. `due` is when the scheduler looks at it, as long as it has to."""
    document = {"_id": event.id, "format": FORMAT_VERSION, **EVENT.write(event)}
    if event.processed is None:
        document["due"] = time_to_bson(event.time)
    return document


def event_from_document(document: Mapping[str, Any]) -> Event:
    """The event of a document."""
    with readable(f"event {document['_id']}"):
        return EVENT.read(document, id=document["_id"])
