"""Which definitions this process has."""

from __future__ import annotations

import threading

from liteflow.core.definition import WorkflowDefinition
from liteflow.core.errors import DefinitionError, DefinitionNotFoundError
from liteflow.core.workflow import Workflow


class WorkflowRegistry:
    """Definitions by id and version. May be used from any thread."""

    def __init__(self) -> None:
        self._definitions: dict[tuple[str, int], WorkflowDefinition] = {}
        self._lock = threading.Lock()

    def register_workflow(self, workflow: Workflow | type[Workflow]) -> WorkflowDefinition:
        """Build a workflow and keep its definition. `DefinitionError` if id and version are taken."""
        definition = (workflow() if isinstance(workflow, type) else workflow).definition()
        key = (definition.id, definition.version)
        with self._lock:
            if key in self._definitions:
                raise DefinitionError(f"workflow {key[0]} version {key[1]} is registered already")
            self._definitions[key] = definition
        return definition

    def deregister(self, workflow_id: str, version: int) -> None:
        """Forget a definition. Its instances are left to other processes."""
        with self._lock:
            if self._definitions.pop((workflow_id, version), None) is None:
                raise _unknown(workflow_id, version)

    def is_registered(self, workflow_id: str, version: int | None = None) -> bool:
        """True if this version is known, or any if none is given."""
        return self.find(workflow_id, version) is not None

    def get_definition(self, workflow_id: str, version: int | None = None) -> WorkflowDefinition:
        """A definition; the highest version if none is given. `DefinitionNotFoundError` otherwise."""
        definition = self.find(workflow_id, version)
        if definition is None:
            raise _unknown(workflow_id, version)
        return definition

    def find(self, workflow_id: str, version: int | None = None) -> WorkflowDefinition | None:
        """Like `get_definition`, with None for one that is not here."""
        with self._lock:
            if version is not None:
                return self._definitions.get((workflow_id, version))
            versions = [key for key in self._definitions if key[0] == workflow_id]
            return self._definitions[max(versions)] if versions else None

    def get_all(self) -> list[WorkflowDefinition]:
        """All definitions, by id and version."""
        with self._lock:
            return [self._definitions[key] for key in sorted(self._definitions)]


def _unknown(workflow_id: str, version: int | None) -> DefinitionNotFoundError:
    which = f"workflow {workflow_id}" + ("" if version is None else f" version {version}")
    return DefinitionNotFoundError(f"{which} is not registered here; call register_workflow first")
