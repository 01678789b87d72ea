"""What users subclass: a workflow says what its steps are."""

from __future__ import annotations

import abc
from datetime import timedelta
from typing import Any

from liteflow.core.builder import WorkflowBuilder
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.errors import DefinitionError
from liteflow.core.identity import identity
from liteflow.core.plan import Plan
from liteflow.core.result import as_duration


class Workflow(abc.ABC):
    """A workflow: subclasses say what its steps are.

    `id` and `version` may be attributes, properties or methods; they default to the class name and 1.
    `data_type` names the class of the data, and may be left out. `deadline` (timedelta or seconds) limits
    the life of an instance: past it, whatever is at work fails with `StepTimeoutError`.
    """

    data_type: type | None = None
    description: str | None = None
    deadline: timedelta | float | None = None

    @abc.abstractmethod
    def build(self, builder: WorkflowBuilder) -> Any:
        """Chain the steps, beginning with ``builder.start_with(...)``."""

    def definition(self) -> WorkflowDefinition:
        """Build and validate. Raises `DefinitionError`, which names the workflow and the step."""
        workflow_id, version = identity(self)
        plan = Plan(f"workflow {workflow_id} version {version}")
        deadline = None if self.deadline is None else as_duration(self.deadline)
        if deadline is not None and deadline <= timedelta(0):
            raise DefinitionError(f"{plan.title}: deadline must be positive, not {self.deadline!r}")
        builder = WorkflowBuilder(plan)
        self.build(builder)
        return WorkflowDefinition(
            id=workflow_id,
            version=version,
            steps=plan.finish(builder.heads),
            data_type=self.data_type,
            description=self.description,
            on_error=plan.on_error,
            deadline=deadline,
        )
