"""A workflow definition: its steps and the edges between them, immutable once it is built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

from liteflow.core.retry import ErrorPolicy
from liteflow.core.values import Value

Assignment = Callable[[Any, Any, Any], None]
"""``(body, data, context)``: copies one value in, before the body runs, or out, after it has proceeded."""

SAGA = "saga"
"""The kind of step that undoes what was done inside it when something inside fails."""

RACE = "race"
"""The kind of step whose first child to end ends the others."""

END = "end"
"""The kind of step that completes the instance."""

OUTCOME = "when"
"""The kind of step that goes by the outcome of the step before it."""

WAIT_FOR = "wait_for"
"""The kind of step that waits for an event, and does nothing else."""


@dataclass(frozen=True)
class Step:
    """One node of a definition.

    `id` is what pointers in the store name it by. `kind` is the verb that made it. `body` makes a new
    body object for an execution. `next` are the steps that begin when it has ended. `blocks` are the
    first steps of each of its blocks, for a container; when all pointers in them have ended the body runs
    again if `rerun`, else the step has ended. `inputs` and `outputs` are applied in order. `on_error` None
    stands for the policy around it. `timeout` limits each attempt. `compensation` are the first steps of
    what undoes it. `cancel_when` is looked at after every commit, as long as the step is open.
    """

    id: str
    name: str
    kind: str
    body: Callable[[], Any]
    inputs: tuple[Assignment, ...] = ()
    outputs: tuple[Assignment, ...] = ()
    next: tuple[str, ...] = ()
    blocks: tuple[tuple[str, ...], ...] = ()
    rerun: bool = True
    on_error: ErrorPolicy | None = None
    timeout: timedelta | None = None
    compensation: tuple[str, ...] = ()
    cancel_when: Value | None = None
    proceed_after_cancel: bool = False


@dataclass(frozen=True)
class WorkflowDefinition:
    """Id, version and steps of a workflow. The first step in `steps` is where an instance begins.

    `deadline` limits the life of an instance.
    """

    id: str
    version: int
    steps: tuple[Step, ...]
    data_type: type | None = None
    description: str | None = None
    on_error: ErrorPolicy | None = None
    deadline: timedelta | None = None
    by_id: Mapping[str, Step] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {step.id: step for step in self.steps})

    @property
    def first(self) -> Step:
        """The step that an instance begins with."""
        return self.steps[0]

    @cached_property
    def has_conditions(self) -> bool:
        """True if any step has a cancel condition."""
        return any(step.cancel_when is not None for step in self.steps)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the structure: step ids, kinds and edges, never the code of functions."""
        structure = [[s.id, s.kind, s.next, s.blocks, s.compensation] for s in self.steps]
        return hashlib.sha256(json.dumps(structure).encode()).hexdigest()[:16]
