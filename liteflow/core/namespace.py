"""Attribute-style data, for workflows that declare no type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Namespace:
    """Attributes that may also be read as items: ``data.total`` and ``data["total"]``.

    It has no methods but those of the language itself, so that any attribute name is free for data.
    """

    def __init__(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        self.__dict__.update(values or {})
        self.__dict__.update(more)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = ", ".join(sorted(self.__dict__)) or "none yet"
        raise AttributeError(f"the data has no attribute {name!r} (there are: {known})")

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __delitem__(self, name: str) -> None:
        del self.__dict__[name]

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Namespace):
            return self.__dict__ == other.__dict__
        return isinstance(other, Mapping) and self.__dict__ == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Namespace(" + ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items()) + ")"


def get_path(target: Any, path: str) -> Any:
    """The value at a name with dots, through attributes and items."""
    for name in path.split("."):
        target = target[name] if isinstance(target, Mapping) else getattr(target, name)
    return target


def set_path(target: Any, path: str, value: Any) -> None:
    """Set the value at a name with dots. What is missing on the way is made."""
    *way, last = path.split(".")
    for name in way:
        if isinstance(target, Mapping):
            if target.get(name) is None:
                target[name] = {}  # type: ignore[index]
            target = target[name]
        else:
            if getattr(target, name, None) is None:
                setattr(target, name, Namespace())
            target = getattr(target, name)
    if isinstance(target, Mapping):
        target[last] = value  # type: ignore[index]
    else:
        setattr(target, last, value)
