"""Instances and pointers as users see them: the stored records, with their values decoded on demand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import Any

from liteflow.core import codec
from liteflow.core.models import Instance, Parked, Pointer, PointerStatus, WorkflowStatus


class ExecutionPointer:
    """One activation of a step. A snapshot: changing it changes nothing in the store."""

    def __init__(self, record: Pointer, children: Iterable[str] = ()) -> None:
        self._record = record
        self.id: str = record.id
        self.step_id: str = record.step_id
        self.status: PointerStatus = record.status
        self.sleep_until: datetime | None = record.sleep_until
        self.start_time: datetime | None = record.start_time
        self.end_time: datetime | None = record.end_time
        self.event_name: str | None = record.event_name
        self.event_key: str | None = record.event_key
        self.event_published: bool = record.event_published
        self.timed_out: bool = record.timed_out
        self.predecessor_id: str | None = record.predecessor_id
        self.retry_count: int = record.retry_count
        self.scope: list[str] = list(record.scope)
        self.children: list[str] = list(children)
        self.error: str | None = record.error

    @property
    def active(self) -> bool:
        """True as long as the activation has not ended."""
        return not self._record.ended

    @cached_property
    def persistence_data(self) -> Any:
        """What the body gave to be kept until it runs again."""
        return codec.decode(self._record.persistence_data)

    @cached_property
    def event_data(self) -> Any:
        """The data of the event that ended the wait."""
        return codec.decode(self._record.event_data)

    @cached_property
    def context_item(self) -> Any:
        """The item of the enclosing for_each."""
        return codec.decode(self._record.context_item)

    @cached_property
    def outcome(self) -> Any:
        """The value that the body ended with."""
        return codec.decode(self._record.outcome)

    def __repr__(self) -> str:
        return f"<ExecutionPointer {self.id} {self.step_id} {self.status.name}>"


class WorkflowInstance:
    """One run of a definition. A snapshot: changing it changes nothing in the store."""

    def __init__(
        self, record: Instance, data_type: type | None = None, history: Iterable[Pointer] = ()
    ) -> None:
        self.record = record
        self._data_type = data_type
        self._history = history
        self.id: str = record.id
        self.workflow_definition_id: str = record.workflow_definition_id
        self.version: int = record.version
        self.status: WorkflowStatus = record.status
        self.reference: str | None = record.reference
        self.description: str | None = record.description
        self.create_time: datetime = record.create_time
        self.complete_time: datetime | None = record.complete_time
        self.next_execution: datetime | None = record.next_execution
        self.revision: int = record.revision
        self.reason: str | None = record.reason
        self.parked: Parked | None = record.parked

    @cached_property
    def data(self) -> Any:
        """The workflow's data: of the declared type, or a namespace with its attributes."""
        return codec.decode_data(self.record.data, self._data_type)

    @cached_property
    def execution_pointers(self) -> list[ExecutionPointer]:
        """All activations that are known, in order of creation; history included if it was loaded."""
        records = {pointer.id: pointer for pointer in self._history}
        records.update(self.record.pointers)
        children: dict[str, list[str]] = {}
        ordered = sorted(records.values(), key=lambda pointer: int(pointer.id))
        for pointer in ordered:
            if pointer.scope:
                children.setdefault(pointer.scope[-1], []).append(pointer.id)
        return [ExecutionPointer(pointer, children.get(pointer.id, ())) for pointer in ordered]

    def __repr__(self) -> str:
        return f"<WorkflowInstance {self.id} {self.workflow_definition_id} {self.status.name}>"
