"""Id and version of a user's workflow, which may be written as attributes, properties or methods."""

from __future__ import annotations

from liteflow.core.errors import DefinitionError


def identity(workflow: object) -> tuple[str, int]:
    """Id and version of a `Workflow` object or class. `DefinitionError` if they can't be."""
    made = workflow() if isinstance(workflow, type) else workflow
    workflow_id = _attribute(made, "id", type(made).__name__)
    version = _attribute(made, "version", 1)
    if not isinstance(workflow_id, str) or not workflow_id:
        raise DefinitionError(f"{type(made).__name__}: id must be a string, not {workflow_id!r}")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DefinitionError(f"workflow {workflow_id}: version must be a positive int, not {version!r}")
    return workflow_id, version


def _attribute(workflow: object, name: str, default: object) -> object:
    value = getattr(workflow, name, default)
    return value() if callable(value) else value
