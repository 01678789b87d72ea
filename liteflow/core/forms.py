"""How a record of the models becomes a document of a store: field by field, by a table.

A field that has its default is left out, which keeps documents small and readable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from operator import attrgetter
from typing import Any, Generic, TypeVar, get_args, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Conversion:
    """How the values of a field are written and read."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _as_it_is(value: Any) -> Any:
    return value


def _read_number(stored: Any) -> int:
    if isinstance(stored, float) and stored.is_integer():
        return int(stored)  # some tools write every number as a double
    if isinstance(stored, int) and not isinstance(stored, bool):
        return int(stored)
    raise TypeError(f"{stored!r} is no whole number")


def _read_text(stored: Any) -> str:
    if isinstance(stored, str):
        return stored
    raise TypeError(f"{stored!r} is no string")


def _read_flag(stored: Any) -> bool:
    if isinstance(stored, bool):
        return stored
    raise TypeError(f"{stored!r} is neither true nor false")


def read_texts(stored: Any) -> list[str]:
    """A stored list of strings."""
    if not isinstance(stored, list):
        raise TypeError(f"{stored!r} is no list")
    return [_read_text(one) for one in stored]


SAME = Conversion(_as_it_is, _as_it_is)
NUMBER = Conversion(int, _read_number)
TEXT = Conversion(_as_it_is, _read_text)
TEXTS = Conversion(list, read_texts)

_BY_TYPE: dict[Any, Conversion] = {
    str: TEXT,
    int: NUMBER,
    bool: Conversion(_as_it_is, _read_flag),
    list[str]: TEXTS,
}
"""What is written as it is. It is checked when read: others may have changed what is stored."""


def _conversion_for(hint: Any) -> Conversion:
    """By the type of a field, which may be optional. What is of no simple type its store checks."""
    kinds = [one for one in get_args(hint) if one is not type(None)]
    if hint not in _BY_TYPE and len(kinds) == 1:
        (hint,) = kinds
    return _BY_TYPE.get(hint, SAME)


def enumeration(kind: Callable[[int], Any]) -> Conversion:
    """States are stored as their numbers."""
    return Conversion(int, kind)


class Form(Generic[T]):
    """The document form of one kind of record.

    `always` names the fields that are stored even with their default value, `without` those that are
    not part of it; readers give them as arguments.
    """

    def __init__(
        self,
        kind: type[T],
        conversions: Mapping[str, Conversion],
        always: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
    ) -> None:
        self._kind = kind
        hints = get_type_hints(kind)
        self._fields: dict[str, tuple[Conversion, Any]] = {
            field.name: (
                conversions.get(field.name) or _conversion_for(hints[field.name]),
                None if field.name in always else _default(field),
            )
            for field in fields(kind)  # type: ignore[arg-type]
            if field.name not in without
        }
        # What `write` needs of each field, in one row; most fields have their default, so it is quick there.
        self._rows = [
            (name, left_out, None if conversion.write is _as_it_is else conversion.write)
            for name, (conversion, left_out) in self._fields.items()
        ]
        values = attrgetter(*self._fields)
        self._values = values if len(self._fields) > 1 else lambda record: (values(record),)

    def write(self, record: T) -> dict[str, Any]:
        """The record as a document."""
        document = {}
        for (name, left_out, write), value in zip(self._rows, self._values(record), strict=True):
            if value is not None and value is not left_out and value != left_out:
                document[name] = value if write is None else write(value)
        return document

    def write_field(self, name: str, value: Any) -> Any:
        """One field as it is stored; None if it is left out."""
        conversion, left_out = self._fields[name]
        return None if value is None or value == left_out else conversion.write(value)

    def read(self, document: Mapping[str, Any], **without: Any) -> T:
        """The record of a document. What else is in the document is passed over."""
        values = without
        for name, (conversion, _) in self._fields.items():
            stored = document.get(name)
            if stored is not None:
                values[name] = conversion.read(stored)
        return self._kind(**values)


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def list_of(form: Form[Any]) -> Conversion:
    """A list of records."""
    return Conversion(
        lambda records: [form.write(record) for record in records],
        lambda stored: [form.read(document) for document in _documents(stored)],
    )


def _documents(stored: Any) -> list[Mapping[str, Any]]:
    if not isinstance(stored, list):
        raise TypeError(f"{stored!r} is no list")
    return stored


def map_of(conversion: Conversion) -> Conversion:
    """Values by name, as a sub-document."""
    return Conversion(
        lambda values: {name: conversion.write(value) for name, value in values.items()},
        lambda stored: {name: conversion.read(value) for name, value in stored.items()},
    )
