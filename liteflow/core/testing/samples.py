"""Instances, transitions and values to test providers with."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from liteflow.core import codec
from liteflow.core.models import (
    Claim,
    Instance,
    OutboxItem,
    Parked,
    Pointer,
    PointerStatus,
    Request,
    WorkflowStatus,
)
from liteflow.core.providers import PersistenceProvider
from liteflow.core.transition import Transition

T0 = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
"""A moment with microseconds that no millisecond holds."""

TICK = timedelta(microseconds=1)
"""The least difference of two times."""


def after(seconds: float) -> datetime:
    """So many seconds after T0."""
    return T0 + timedelta(seconds=seconds)


def new_id() -> str:
    """An id that no other test has."""
    return uuid.uuid4().hex


def new_instance(**changes: Any) -> Instance:
    """A small instance with an id of its own."""
    values: dict[str, Any] = {"id": new_id(), "workflow_definition_id": "order", "version": 1}
    return Instance(**{**values, "create_time": T0, **changes})


def created(provider: PersistenceProvider, **changes: Any) -> Instance:
    """A small instance that is stored."""
    instance = new_instance(**changes)
    assert provider.create([instance]) == [True]
    return instance


def loaded(provider: PersistenceProvider, instance_id: str) -> Instance:
    """An instance as it is stored now."""
    found = provider.load([instance_id])[instance_id]
    assert isinstance(found, Instance), found
    return found


def step(instance: Instance, **changes: Any) -> Transition:
    """A transition from the state of `instance`, with a token of its own."""
    values: dict[str, Any] = {"token": new_id(), **changes}
    return Transition(instance.id, instance.revision, instance.inbox_sequence, **values)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return when the condition holds; fail if it does not in time."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.005)


def exact(value: Any) -> Any:
    """A form in which only what is the same to the type and the sign of zero is equal."""
    if is_dataclass(value):
        return type(value).__name__, {f.name: exact(getattr(value, f.name)) for f in fields(value)}
    match value:
        case dict():
            return "dict", {key: exact(inner) for key, inner in value.items()}
        case list() | tuple():
            return type(value).__name__, [exact(inner) for inner in value]
        case float():
            return "float", repr(value)
    return type(value).__name__, value


# ----------------------------------------------------------------------------------------- strategies

times = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(timezone.utc))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
short = st.text("ab.$~:0é\U0001f600", min_size=1, max_size=6)
whole = st.integers(0, 2**40)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=8)
    | st.datetimes(timezones=st.just(timezone.utc))
    | st.timedeltas(timedelta(days=-(10**8)), timedelta(days=10**8))
    | st.decimals(allow_nan=False, places=3)
    | st.uuids()
    | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(short, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers(0, 9), max_size=3).map(set)
    ),
    max_leaves=6,
)
"""What users put into data."""

plains = values.map(codec.encode)
data = st.dictionaries(short, values, max_size=3).map(codec.encode_data)
optional_times = st.none() | times
ids = st.integers(1, 12).map(str)

pointers = st.builds(
    Pointer,
    id=ids,
    step_id=short,
    status=st.sampled_from(PointerStatus),
    scope=st.lists(ids, max_size=2).map(tuple),
    predecessor_id=st.none() | ids,
    context_item=plains,
    persistence_data=plains,
    sleep_until=optional_times,
    start_time=optional_times,
    end_time=optional_times,
    event_name=st.none() | short,
    event_key=st.none() | texts,
    event_since=optional_times,
    event_published=st.booleans(),
    event_data=plains,
    outcome=plains,
    retry_count=st.integers(0, 5),
    open_children=st.integers(0, 5),
    next_item=st.integers(0, 5),
    error=st.none() | texts,
    deadline=optional_times,
    timed_out=st.booleans(),
    activity=st.none() | texts,
    completion=st.integers(0, 5),
    compensating=st.booleans(),
    undo=st.lists(ids, max_size=2).map(tuple),
)
pointer_maps = st.lists(pointers, max_size=3).map(lambda drawn: {pointer.id: pointer for pointer in drawn})
claims = st.dictionaries(ids, st.builds(Claim, short, short, times), max_size=2)
items = st.dictionaries(ids, st.lists(plains, max_size=3), max_size=2)
requests = st.builds(Request, short, short, times, texts, texts, plains, whole)
outboxes = st.lists(st.builds(OutboxItem, whole, short, times, plains), max_size=2)
consumed = st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2)

instances = st.builds(
    Instance,
    id=st.builds(new_id),
    workflow_definition_id=short,
    version=st.integers(1, 99),
    create_time=times,
    fingerprint=texts,
    status=st.sampled_from(WorkflowStatus),
    data=data,
    reference=st.none() | texts,
    description=st.none() | texts,
    complete_time=optional_times,
    reason=st.none() | texts,
    revision=whole,
    token=texts,
    begun=st.booleans(),
    wake_at=optional_times,
    next_execution=optional_times,
    message_sent=st.booleans(),
    pointers=pointer_maps,
    pointer_sequence=whole,
    items=items,
    claims=claims,
    inbox=st.lists(requests, max_size=2),
    inbox_sequence=whole,
    applied=st.lists(texts, max_size=2),
    outbox=outboxes,
    outbox_sequence=whole,
    consumed=consumed,
    crashes=st.integers(0, 3),
    parked=st.none() | st.builds(Parked, texts, times, texts),
    traceparent=st.none() | texts,
    deadline=optional_times,
    completions=whole,
    parent=st.none() | texts,
)

_changes = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(WorkflowStatus),
        "complete_time": optional_times,
        "reason": st.none() | texts,
        "fingerprint": texts,
        "begun": st.booleans(),
        "description": st.none() | texts,
        "pointer_sequence": whole,
        "applied": st.lists(texts, max_size=2),
        "inbox": st.lists(requests, max_size=2),
        "consumed": consumed,
        "outbox": outboxes,
        "outbox_sequence": whole,
        "next_execution": optional_times,
        "deadline": optional_times,
        "completions": whole,
    },
)


@st.composite
def transitions(draw: st.DrawFn, instance: Instance) -> Transition:
    """Any transition from the state of an instance. Half of them change the waits along."""
    transition = step(
        instance,
        wake_at=draw(optional_times),
        message_sent=draw(st.booleans()),
        fields=draw(_changes),
        data_set=draw(data),
        data_removed=_some(draw, instance.data),
        pointers=draw(pointer_maps),
        pointers_removed=_some(draw, instance.pointers),
        items_set=draw(items),
        items_removed=_some(draw, instance.items),
        claims_set=draw(claims),
        claims_removed=_some(draw, instance.claims),
        crashes=draw(st.integers(0, 3)),
    )
    if draw(st.booleans()):
        applied = copy.deepcopy(instance)
        transition.apply(applied)
        transition.waits = applied.waits()
    return transition


def _some(draw: st.DrawFn, known: dict[str, Any]) -> list[str]:
    names = [*known, "100"]  # what is not there can be removed too
    return draw(st.lists(st.sampled_from(names), unique=True))
