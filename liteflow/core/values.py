"""Value functions: what the fluent verbs take where a value may depend on the workflow's data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Value = Callable[[Any, Any], Any]
"""``(data, context) -> value``."""


def value_function(value: Any) -> Value:
    """Make a function of ``(data, context)`` from one, from a function of ``(data)``, or from a constant."""
    if not callable(value) or isinstance(value, type):
        return lambda data, context: value
    if positional_parameters(value) >= 2:
        return value  # type: ignore[no-any-return]
    return lambda data, context: value(data)


def positional_parameters(function: Callable[..., Any]) -> int:
    """How many arguments a function takes by position; ``*args`` counts as two."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return 1
    count = 0
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return 2
        if parameter.kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            count += 1
    return count
