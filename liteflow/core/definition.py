"""A workflow definition: its steps and the edges between them, immutable once it is built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from liteflow.core.codec import Plain
from liteflow.core.retry import ErrorPolicy

Assignment = Callable[[Any, Any, Any], None]
"""``(body, data, context)``: copies one value in, before the body runs, or out, after it has proceeded."""


@dataclass(frozen=True)
class Edge:
    """Where a step leads. `match` is None for `then`, else it tells if an (encoded) outcome takes it."""

    target: str
    match: Callable[[Plain], bool] | None = None


@dataclass(frozen=True)
class Step:
    """One node of a definition.

    `id` is what pointers in the store name it by. `kind` is the verb that made it. `body` makes a new
    body object for an execution. `children` are the first steps of its block, for a container; when all
    of a block's pointers have ended the body runs again if `rerun`, else the step has ended.
    `inputs` and `outputs` are applied in order. `on_error` None stands for the definition's policy.
    """

    id: str
    name: str
    kind: str
    body: Callable[[], Any]
    inputs: tuple[Assignment, ...] = ()
    outputs: tuple[Assignment, ...] = ()
    edges: tuple[Edge, ...] = ()
    children: tuple[str, ...] = ()
    rerun: bool = True
    on_error: ErrorPolicy | None = None


@dataclass(frozen=True)
class WorkflowDefinition:
    """Id, version and steps of a workflow. The first step in `steps` is where an instance begins."""

    id: str
    version: int
    steps: tuple[Step, ...]
    data_type: type | None = None
    description: str | None = None
    on_error: ErrorPolicy | None = None
    by_id: Mapping[str, Step] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {step.id: step for step in self.steps})

    @property
    def first(self) -> Step:
        """The step that an instance begins with."""
        return self.steps[0]

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the structure: step ids, kinds and edges, never the code of functions."""
        structure = [
            [s.id, s.kind, [[e.target, e.match is not None] for e in s.edges], list(s.children)]
            for s in self.steps
        ]
        return hashlib.sha256(json.dumps(structure).encode()).hexdigest()[:16]
