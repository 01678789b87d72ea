"""Instances that sleep or wait, stored in bulk as the engine leaves them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime

from bench.flows import Sleeper, Waiter
from liteflow.core import ExecutionResult, engine
from liteflow.core.codec import Plain
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.inputs import BodyEnded
from liteflow.core.models import Instance
from liteflow.core.providers import PersistenceProvider

AT_ONCE = 1000
"""So many are stored in one call."""

Results = Callable[[Instance, datetime], list[ExecutionResult]]


def sleeping(store: PersistenceProvider, count: int, due: datetime) -> list[str]:
    """Store instances of `Sleeper` that sleep until then; returns their ids."""

    def results(instance: Instance, now: datetime) -> list[ExecutionResult]:
        return [ExecutionResult(sleep_for=due - now, persistence_data=True)]

    return _store(store, Sleeper().definition(), count, {"seconds": 0}, results)


def waiting(store: PersistenceProvider, count: int, key: str | None = None) -> list[str]:
    """Store instances of `Waiter` that wait for the event with this key, or each with its id for a key."""

    def results(instance: Instance, now: datetime) -> list[ExecutionResult]:
        awaited = key or instance.id
        wait = ExecutionResult(event_name="go", event_key=awaited, event_since=now)
        return [ExecutionResult.next(), wait]

    return _store(store, Waiter().definition(), count, {"key": key}, results)


def _store(
    store: PersistenceProvider,
    definition: WorkflowDefinition,
    count: int,
    data: dict[str, Plain],
    results: Results,
) -> list[str]:
    ids: list[str] = []
    while len(ids) < count:
        batch = [_blocked(store, definition, data, results) for _ in range(min(AT_ONCE, count - len(ids)))]
        store.create(batch)
        ids += [instance.id for instance in batch]
    return ids


def _blocked(
    store: PersistenceProvider, definition: WorkflowDefinition, data: dict[str, Plain], results: Results
) -> Instance:
    now = store.now()
    instance = Instance(str(uuid.uuid4()), definition.id, definition.version, now, begun=False)
    instance.data = dict(data)
    _advance(instance, definition, now, [])
    for result in results(instance, now):
        pointer = instance.open_pointers()[0]
        _advance(instance, definition, now, [BodyEnded(pointer.id, now, result=result)])
    return instance


def _advance(
    instance: Instance, definition: WorkflowDefinition, now: datetime, inputs: list[BodyEnded]
) -> None:
    transition = engine.advance(instance, definition, now, inputs)
    assert transition is not None
    transition.apply(instance)
