"""Letting a new instance in: the `pre` middleware, and what of its lifecycle is told."""

from __future__ import annotations

from collections.abc import Container

from liteflow.core import codec
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.engine import EngineOptions
from liteflow.core.hooks import Hooks
from liteflow.core.lifecycle import LifecyclePublisher
from liteflow.core.models import Instance
from liteflow.core.providers import QueueProvider
from liteflow.core.settings import Settings
from liteflow.core.views import WorkflowInstance


def admit(instance: Instance, definition: WorkflowDefinition, hooks: Hooks) -> None:
    """Run the `pre` middleware on an instance that nobody knows so far. What it raises refuses it.

    It may change the data, the reference and the description.
    """
    if not hooks.workflow_middleware["pre"]:
        return
    view = WorkflowInstance(instance, definition.data_type)
    hooks.run_workflow("pre", view)
    if "data" in vars(view):  # decoded, so that it may have been changed
        instance.data = codec.encode_data(view.data)
    instance.reference, instance.description = view.reference, view.description


def engine_options(
    settings: Settings, hooks: Hooks, queue: QueueProvider, definition: WorkflowDefinition
) -> EngineOptions:
    """What the engine has to tell of an instance: all that somebody listens to."""
    post = bool(hooks.workflow_middleware["post"])
    publishes = isinstance(queue, LifecyclePublisher)
    if not (settings.lifecycle if settings.lifecycle is not None else hooks.on_lifecycle_event or publishes):
        return EngineOptions(settings.on_error, post=post)
    quiet: Container[str] = frozenset()
    if isinstance(queue, LifecyclePublisher) and not hooks.on_lifecycle_event:
        quiet = queue.unheard(definition.id, definition.version)
    return EngineOptions(settings.on_error, lifecycle=True, quiet=quiet, post=post)
