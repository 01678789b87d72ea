"""Copies of the stored forms, for a provider that keeps objects instead of writing them out.

`copy.deepcopy` would do, but takes many times as long: it knows nothing of what these are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar

from liteflow.core.models import (
    Activity,
    Event,
    Instance,
    OutboxItem,
    Pointer,
    PointerStatus,
    Request,
    WorkflowStatus,
)
from liteflow.core.transition import Transition

T = TypeVar("T")


def own_transition(transition: Transition) -> Transition:
    """A copy of which the parts may become parts of an instance. Empty parts are no parts."""
    values = [
        value if not value or type(value) in _FIXED else own(value)
        for value in _transition_values(transition)
    ]
    return Transition(*values)


_transition_values = attrgetter(*(field.name for field in fields(Transition)))


def own(value: T) -> T:
    """A copy that shares nothing that can be changed with the original."""
    copier = _COPIERS.get(type(value))
    return value if copier is None else copier(value)


def _own_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    return {key: inner if type(inner) in _FIXED else own(inner) for key, inner in value.items()}


def _own_list(value: list[Any]) -> list[Any]:
    return [inner if type(inner) in _FIXED else own(inner) for inner in value]


def _own_fields(kind: type[Any]) -> Callable[[Any], Any]:
    """A copier for a record of which every field may hold something that can be changed."""
    values = attrgetter(*(field.name for field in fields(kind)))

    def copier(record: Any) -> Any:
        return kind(*[value if type(value) in _FIXED else own(value) for value in values(record)])

    return copier


def _own_pointer(pointer: Pointer) -> Pointer:
    copied = pointer.copy()
    if pointer.context_item is not None:
        copied.context_item = own(pointer.context_item)
    if pointer.persistence_data is not None:
        copied.persistence_data = own(pointer.persistence_data)
    if pointer.event_data is not None:
        copied.event_data = own(pointer.event_data)
    if pointer.outcome is not None:
        copied.outcome = own(pointer.outcome)
    return copied


def _own_instance(instance: Instance) -> Instance:
    copied = instance.copy()
    copied.data = _own_dict(instance.data)
    copied.pointers = {key: _own_pointer(pointer) for key, pointer in instance.pointers.items()}
    copied.items = _own_dict(instance.items)
    copied.inbox = _own_list(instance.inbox)
    copied.applied = instance.applied.copy()
    copied.outbox = _own_list(instance.outbox)
    copied.consumed = _own_dict(instance.consumed)
    return copied


_FIXED = frozenset([str, int, bool, float, type(None), datetime, WorkflowStatus, PointerStatus, tuple])
"""What most fields hold, and nobody can change."""


_COPIERS: dict[type[Any], Callable[[Any], Any]] = {
    dict: _own_dict,
    list: _own_list,
    Activity: _own_fields(Activity),
    Event: _own_fields(Event),
    Instance: _own_instance,
    Pointer: _own_pointer,
    Request: lambda request: replace(request, arguments=own(request.arguments)),
    OutboxItem: lambda item: replace(item, body=own(item.body)),
}
