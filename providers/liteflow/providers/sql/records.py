"""Instances and their parts as rows, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from liteflow.core.errors import DataError, InstanceUnreadableError
from liteflow.core.forms import SAME, Conversion, Form, enumeration, list_of
from liteflow.core.models import (
    FORMAT_VERSION,
    Claim,
    Instance,
    OutboxItem,
    Parked,
    Pointer,
    PointerStatus,
    Request,
    Wait,
    WorkflowStatus,
)
from liteflow.core.transition import Transition
from liteflow.providers.sql.schema import topic
from liteflow.providers.sql.values import (
    MICROS,
    NAME_LENGTH,
    TIME,
    checked,
    checked_name,
    from_json,
    to_json,
    to_micros,
)

Row = dict[str, Any]

DATA, POINTERS, ITEMS, CLAIMS = "data", "pointer", "items", "claim"
"""The kinds of parts."""

POINTER = Form(
    Pointer,
    {
        "status": enumeration(PointerStatus),
        "scope": Conversion(list, tuple),
        "sleep_until": TIME,
        "start_time": TIME,
        "end_time": TIME,
        "event_since": TIME,
        "deadline": TIME,
        "undo": Conversion(list, tuple),
    },
    always=("status",),
    without=("id",),
)
CLAIM = Form(Claim, {"until": TIME})
REQUEST = Form(Request, {"time": TIME}, always=("sequence",))
PARKED = Form(Parked, {"since": TIME})
_OUTBOX = list_of(Form(OutboxItem, {"time": TIME}))


def _json(form: Conversion) -> Conversion:
    """A list or record as one text."""
    return Conversion(lambda value: to_json(form.write(value)), lambda text: form.read(from_json(text)))


_COLUMNS: dict[str, Conversion] = {
    "create_time": MICROS,
    "complete_time": MICROS,
    "wake_at": MICROS,
    "next_execution": MICROS,
    "deadline": MICROS,
    "status": enumeration(WorkflowStatus),
    "applied": _json(SAME),
    "consumed": _json(SAME),
    "outbox": _json(_OUTBOX),
    "parked": _json(Conversion(PARKED.write, PARKED.read)),
}
_ELSEWHERE = ("data", "pointers", "items", "claims", "inbox")
_NAMES = ("id", "workflow_definition_id", "reference", "token")
INSTANCE_COLUMNS = [field.name for field in fields(Instance) if field.name not in _ELSEWHERE]


class Encoder:
    """Makes rows. `DataError` for what the database can't hold: more than `most` bytes in one text."""

    def __init__(self, most: int) -> None:
        self._most = most

    def text(self, value: str, path: str) -> str:
        """A text of any length, as far as the database takes it."""
        return checked(value, self._most, path)

    def json(self, value: Any, path: str) -> str:
        """A plain value as text."""
        return checked(to_json(value, path), self._most, path)

    def instance(self, instance: Instance) -> Row:
        """The row of a new instance."""
        row = {name: self.column(name, getattr(instance, name)) for name in INSTANCE_COLUMNS}
        is_parked = 1 if instance.parked is not None else None
        return {**row, "format": FORMAT_VERSION, "is_parked": is_parked, "holds": 0}

    def column(self, name: str, value: Any) -> Any:
        """A field of an instance as its column holds it."""
        conversion = _COLUMNS.get(name)
        if conversion is not None:
            # Empty lists are left out.
            value = conversion.write(value) if value is not None and value != [] and value != {} else None
        if type(value) is str:
            return checked_name(value, name) if name in _NAMES else self.text(value, name)
        return value

    def parts_of(self, instance: Instance) -> list[Row]:
        """The rows of all parts of a new instance."""
        return list(
            self._parts(instance.id, instance.data, instance.pointers, instance.items, instance.claims)
        )

    def parts_set(self, transition: Transition) -> list[Row]:
        """The rows of the parts that a transition writes."""
        t = transition
        return list(self._parts(t.instance_id, t.data_set, t.pointers, t.items_set, t.claims_set))

    def _parts(
        self,
        instance_id: str,
        data: Mapping[str, Any],
        pointers: Mapping[str, Pointer],
        items: Mapping[str, Any],
        claims: Mapping[str, Claim],
    ) -> Iterator[Row]:
        for name, value in data.items():
            # A name that is too long for the key is kept with its value.
            kept = [name, value] if len(name) > NAME_LENGTH else value
            yield self._part(instance_id, DATA, part_name(name), kept)
        for pointer_id, pointer in pointers.items():
            yield self._part(instance_id, POINTERS, pointer_id, POINTER.write(pointer))
        for pointer_id, plain in items.items():
            yield self._part(instance_id, ITEMS, pointer_id, plain)
        for pointer_id, claim in claims.items():
            yield self.claim(instance_id, pointer_id, claim)

    def claim(self, instance_id: str, pointer_id: str, claim: Claim) -> Row:
        """The row of a claim."""
        return self._part(instance_id, CLAIMS, pointer_id, CLAIM.write(claim))

    def _part(self, instance_id: str, kind: str, name: str, value: Any) -> Row:
        path = f"{kind}.{name}"
        return {
            "instance_id": instance_id,
            "kind": kind,
            "name": checked_name(name, path),
            "value": self.json(value, path),
        }

    def requests(self, instance_id: str, inbox: Sequence[Request], first: int = 0) -> list[Row]:
        """The rows of requests, in their order."""
        return [
            {
                "instance_id": instance_id,
                "place": first + place,
                "id": self.text(request.id, "request"),
                "value": self.json(REQUEST.write(request), "request"),
            }
            for place, request in enumerate(inbox)
        ]

    def waits(self, instance_id: str, waits: Iterable[Wait]) -> list[Row]:
        """The rows by which a waiting instance is found: one for each name and key."""
        rows: dict[str, Row] = {}
        for wait in waits:
            found_by, since = topic(wait.name, wait.key), to_micros(wait.since)
            if found_by in rows:
                since = min(since, rows[found_by]["since"])
            rows[found_by] = {
                "topic": found_by,
                "instance_id": instance_id,
                "name": self.text(wait.name, "event name"),
                "key": self.text(wait.key, "event key"),
                "since": since,
            }
        return list(rows.values())


def part_name(name: str) -> str:
    """The name of an attribute as the key holds it. No escaped name of the codec begins with ``~#``."""
    if len(name) <= NAME_LENGTH:
        return name
    return "~#" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def parts_removed(transition: Transition) -> list[Row]:
    """The keys of the parts that a transition removes."""
    gone = (
        (DATA, [part_name(name) for name in transition.data_removed]),
        (POINTERS, transition.pointers_removed),
        (ITEMS, transition.items_removed),
        (CLAIMS, transition.claims_removed),
    )
    return [
        {"of_instance": transition.instance_id, "of_kind": kind, "of_name": name}
        for kind, names in gone
        for name in names
    ]


def read_instance(
    row: Mapping[str, Any], parts: Iterable[tuple[str, str, str]], inbox: Iterable[str]
) -> Instance:
    """The instance of a row, its parts (kind, name, value) and its requests.

    `InstanceUnreadableError` or `DataError` if it can't be understood.
    """
    if row["format"] > FORMAT_VERSION:
        raise InstanceUnreadableError(row["id"], row["format"])
    try:
        values: Row = {}
        for name in INSTANCE_COLUMNS:
            stored = row[name]
            if stored is not None:
                conversion = _COLUMNS.get(name)
                values[name] = stored if conversion is None else conversion.read(stored)
        instance = Instance(**values)
        for kind, name, text in parts:
            _add_part(instance, kind, name, from_json(text))
        instance.pointers = {key: instance.pointers[key] for key in sorted(instance.pointers, key=int)}
        instance.inbox = [read_request(text) for text in inbox]
    except UNREADABLE as exc:
        raise DataError(f"workflow {row['id']}", f"can't be read: {exc}") from exc
    return instance


UNREADABLE = (DataError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What reading raises on rows that were not written by this library, or were damaged."""


def _add_part(instance: Instance, kind: str, name: str, value: Any) -> None:
    if kind == POINTERS:
        instance.pointers[name] = POINTER.read(value, id=name)
    elif kind == DATA:
        if name.startswith("~#"):
            name, value = value
        instance.data[name] = value
    elif kind == ITEMS:
        if not isinstance(value, list):
            raise DataError(f"items.{name}", "is not a list")
        instance.items[name] = value
    elif kind == CLAIMS:
        instance.claims[name] = CLAIM.read(value)
    else:
        raise DataError(f"{kind}.{name}", "is a part of an unknown kind")


def read_request(text: str) -> Request:
    """The request of an inbox."""
    return REQUEST.read(from_json(text))  # type: ignore[arg-type]


def numbered(request: Request, sequence: int) -> Request:
    """A request with its place among all that the instance has received."""
    return replace(request, sequence=sequence)
