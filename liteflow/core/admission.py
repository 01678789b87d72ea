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


class Telling:
    """What the engine has to tell of an instance: all that somebody listens to."""

    def __init__(self, settings: Settings, hooks: Hooks, queue: QueueProvider) -> None:
        self._settings = settings
        self._hooks = hooks
        self._publisher = queue if isinstance(queue, LifecyclePublisher) else None
        self._known: EngineOptions | None = None

    def options(self, definition: WorkflowDefinition) -> EngineOptions:
        """As they are now. The same object as long as they stay the same: the engine asks for each step."""
        hooks, publisher, lifecycle = self._hooks, self._publisher, self._settings.lifecycle
        if lifecycle is None:
            lifecycle = bool(hooks.on_lifecycle_event) or publisher is not None
        quiet = NONE
        if lifecycle and publisher is not None and not hooks.on_lifecycle_event:
            quiet = publisher.unheard(definition.id, definition.version)
        post = bool(hooks.workflow_middleware["post"])
        known = self._known
        if known is None or (known.lifecycle, known.post) != (lifecycle, post) or known.quiet is not quiet:
            self._known = known = EngineOptions(self._settings.on_error, lifecycle, quiet, post)
        return known


NONE: Container[str] = frozenset()


def engine_options(
    settings: Settings, hooks: Hooks, queue: QueueProvider, definition: WorkflowDefinition
) -> EngineOptions:
    """The same for who asks once."""
    return Telling(settings, hooks, queue).options(definition)
