"""Copies of the stored forms, for a provider that keeps objects instead of writing them out.

`copy.deepcopy` would do, but takes many times as long: it knows nothing of what these are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

from liteflow.core.models import Activity, Event, Instance, OutboxItem, Pointer, Request
from liteflow.core.transition import Transition

T = TypeVar("T")


def own(value: T) -> T:
    """A copy that shares nothing that can be changed with the original."""
    copier = _COPIERS.get(type(value))
    return value if copier is None else copier(value)


def _own_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    return {key: own(inner) for key, inner in value.items()}


def _own_list(value: list[Any]) -> list[Any]:
    return [own(inner) for inner in value]


def _own_fields(kind: type[Any]) -> Callable[[Any], Any]:
    """A copier for a record of which every field may hold something that can be changed."""
    names = [field.name for field in fields(kind)]

    def copier(value: Any) -> Any:
        copied = object.__new__(kind)
        for name in names:
            setattr(copied, name, own(getattr(value, name)))
        return copied

    return copier


_COPIERS: dict[type[Any], Callable[[Any], Any]] = {
    dict: _own_dict,
    list: _own_list,
    Activity: _own_fields(Activity),
    Event: _own_fields(Event),
    Instance: _own_fields(Instance),
    Pointer: _own_fields(Pointer),
    Transition: _own_fields(Transition),
    Request: lambda request: replace(request, arguments=own(request.arguments)),
    OutboxItem: lambda item: replace(item, body=own(item.body)),
}
