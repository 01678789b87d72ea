"""Finding the user's workflows: ``package.module`` or ``package.module:name``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from liteflow.core.errors import SettingsError
from liteflow.core.host import WorkflowHost
from liteflow.core.workflow import Workflow


def load_workflows(host: WorkflowHost, target: str) -> None:
    """Register what `target` names with the host. The current directory is importable.

    A module stands for every `Workflow` subclass that it defines itself. A name in it may be a workflow
    (class or object), a list of them, or a function that takes the host. `SettingsError` says what was
    not found.
    """
    module_name, _, name = target.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise SettingsError(
                f"there is no module {exc.name!r} here; run this where it can be imported"
            ) from exc
        raise
    if not name:
        found = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, Workflow)
            and value.__module__ == module.__name__
            and not inspect.isabstract(value)
        ]
        if not found:
            raise SettingsError(f"module {module_name} defines no Workflow subclass")
        _register(host, found, target)
        return
    try:
        value: Any = module
        for part in name.split("."):
            value = getattr(value, part)
    except AttributeError as exc:
        raise SettingsError(f"module {module_name} has no {name!r}") from exc
    if isinstance(value, Workflow) or (inspect.isclass(value) and issubclass(value, Workflow)):
        _register(host, [value], target)
    elif isinstance(value, (list, tuple, set)):
        _register(host, value, target)
    elif callable(value):
        _call(value, host)
    else:
        raise SettingsError(f"{target} is no workflow, list of workflows, or function that takes the host")


def _register(host: WorkflowHost, workflows: Iterable[Any], target: str) -> None:
    for workflow in workflows:
        is_class = inspect.isclass(workflow) and issubclass(workflow, Workflow)
        if not (is_class or isinstance(workflow, Workflow)):
            raise SettingsError(f"{target}: {workflow!r} is no workflow")
        host.register_workflow(workflow)


def _call(function: Callable[[WorkflowHost], object], host: WorkflowHost) -> None:
    function(host)
