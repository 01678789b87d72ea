"""Users' values as plain documents, and back.

The encoded form (`Plain`) is JSON-ready and the same for every store: null, booleans, 64-bit integers,
finite floats, strings, lists, and objects with string keys stand for themselves. Everything else is an
object with the marker key ``~``: ``{"~": "decimal", "value": "1.50"}``. A nested model keeps its
attributes beside the marker, ``{"~": "object", "name": ...}``, so that they can be queried by name.
Keys are escaped (``~`` as ``~~``, ``.`` as ``~d``, ``$`` as ``~s``, NUL as ``~0``, empty as ``~e``): no
escaped key is the marker, and stores that give dots and dollars a meaning never see them.

No class is ever looked up by a name found in stored data: types come from annotations only.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any, Union
from uuid import UUID

import cattrs

from liteflow.core.errors import DataError
from liteflow.core.namespace import Namespace, get_path, set_path

Plain = Union[None, bool, int, float, str, list["Plain"], dict[str, "Plain"]]  # noqa: UP007 (recursive)
"""A value in encoded form."""

MARKER = "~"
MAX_DEPTH = 100
_INT_LIMIT = 1 << 63
_MICROSECOND = timedelta(microseconds=1)


# ------------------------------------------------------------------------------------------------ keys


def escape_key(key: str) -> str:
    """A key as it is stored."""
    if not key:
        return "~e"
    if "~" in key or "." in key or "$" in key or "\0" in key:
        key = key.replace("~", "~~").replace(".", "~d").replace("$", "~s").replace("\0", "~0")
    return key


def unescape_key(key: str) -> str:
    """The reverse of `escape_key`."""
    if "~" not in key:
        return key
    result, rest = [], iter(key)
    for char in rest:
        result.append(_UNESCAPE.get(next(rest, ""), _ESCAPED_WRONGLY) if char == "~" else char)
    if _ESCAPED_WRONGLY in result:
        raise DataError("", f"the key {key[:_PART_SHOWN]!r} is not escaped as keys are")
    return "".join(result)


_ESCAPED_WRONGLY = "~?"
_UNESCAPE = {"~": "~", "d": ".", "s": "$", "0": "\0", "e": ""}


# ---------------------------------------------------------------------------------------------- encode


def encode(value: object, path: str = "value") -> Plain:
    """The plain form of a value. `DataError` names the path of what can't be stored."""
    try:
        return _encode(value, 0)
    except DataError as exc:
        _prefix(exc, path)
        raise


def _prefix(error: DataError, part: str) -> None:
    """Put what leads to the value before the error's path.

    Paths are put together on the way out: on the way in, a long key would be copied for each value below.
    """
    part = part if len(part) <= _PART_SHOWN else f"{part[:_PART_SHOWN]}..."
    path = error.path if len(error.path) <= _PATH_SHOWN else f"...{error.path[-_PATH_SHOWN:]}"
    error.place(part + path)


_PART_SHOWN, _PATH_SHOWN = 100, 200
"""Characters of a key and of a path that an error shows."""


def _encode(value: Any, depth: int) -> Plain:
    """The paths of its errors begin at the value."""
    kind = type(value)
    if value is None or kind is bool:
        return value  # type: ignore[no-any-return]
    if kind is str:
        return _text(value)
    if kind is int:
        if not -_INT_LIMIT <= value < _INT_LIMIT:
            raise DataError("", "the integer needs more than 64 bits; use a Decimal or a string")
        return value  # type: ignore[no-any-return]
    if kind is float:
        return value if math.isfinite(value) else {MARKER: "float", "value": repr(value)}
    if depth > MAX_DEPTH:
        raise DataError("", f"it is nested more than {MAX_DEPTH} deep, or contains itself")
    if kind is list:
        return _encode_items(value, depth)
    if kind is dict:
        return _encode_dict(value, depth)
    leaf = _LEAVES.get(kind)
    if leaf is not None:
        return leaf(value)
    return _encode_other(value, depth)


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise DataError("", "the string is not valid Unicode (a lone surrogate)") from exc
    return value


def _encode_items(value: Iterable[Any], depth: int) -> list[Plain]:
    items: list[Plain] = []
    try:
        for item in value:
            items.append(_encode(item, depth + 1))
    except DataError as exc:
        _prefix(exc, f"[{len(items)}]")
        raise
    return items


def _encode_named(value: Mapping[str, Any], depth: int) -> dict[str, Plain]:
    named: dict[str, Plain] = {}
    for key, item in value.items():
        escaped = escape_key(_text(key))
        try:
            named[escaped] = _encode(item, depth + 1)
        except DataError as exc:
            _prefix(exc, f".{key}")
            raise
    return named


def _encode_dict(value: Mapping[Any, Any], depth: int) -> Plain:
    if all(type(key) is str for key in value):
        return _encode_named(value, depth)
    items: list[Plain] = []
    for key, item in value.items():
        where = " key"
        try:
            pair = [_encode(key, depth + 1)]
            where = f"[{key!r}]"
            pair.append(_encode(item, depth + 1))
        except DataError as exc:
            _prefix(exc, where)
            raise
        items.append(pair)
    return {MARKER: "dict", "items": items}


def _encode_datetime(value: datetime) -> Plain:
    if value.tzinfo is None:
        raise DataError("", "the datetime has no time zone; use datetime.now(timezone.utc) and the like")
    try:
        text = value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    except OverflowError as exc:
        raise DataError("", "the datetime is beyond the years 1 to 9999 in UTC") from exc
    return {MARKER: "datetime", "value": text}


_LEAVES: dict[type, Callable[[Any], Plain]] = {
    datetime: _encode_datetime,
    date: lambda value: {MARKER: "date", "value": value.isoformat()},
    time: lambda value: {MARKER: "time", "value": value.isoformat()},
    timedelta: lambda value: {MARKER: "timedelta", "value": _encode(value // _MICROSECOND, 0)},
    Decimal: lambda value: {MARKER: "decimal", "value": str(value)},
    UUID: lambda value: {MARKER: "uuid", "value": str(value)},
    bytes: lambda value: {MARKER: "bytes", "value": base64.b64encode(value).decode()},
}


def _encode_other(value: Any, depth: int) -> Plain:
    if isinstance(value, enum.Enum):
        return _encode(value.value, depth + 1)
    if isinstance(value, (tuple, set, frozenset)):
        tag = "tuple" if isinstance(value, tuple) else "set" if isinstance(value, set) else "frozenset"
        items = _encode_items(value, depth)
        if tag != "tuple":
            items.sort(key=_stable)  # the order of a set means nothing: the same set has one form
        return {MARKER: tag, "value": items}
    attributes = _attributes(value)
    if attributes is not None:
        return {MARKER: "object", **_encode_named(attributes, depth)}
    if isinstance(value, (datetime, date, time)):
        exact = datetime if isinstance(value, datetime) else date if isinstance(value, date) else time
        return _encode(exact.fromisoformat(value.isoformat()), depth + 1)
    bases: tuple[Any, ...] = (str, int, float, dict, list, Decimal, bytes)
    for base in bases:  # a subclass that adds behaviour, not state
        if isinstance(value, base):
            return _encode(base(value), depth + 1)
    raise DataError("", f"a {type(value).__name__} can't be stored; keep what is needed to make it anew")


def _stable(plain: Plain) -> str:
    return json.dumps(plain, sort_keys=True)


def _attributes(value: Any) -> dict[str, Any] | None:
    """The attributes of a model or plain object; None for everything else."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(kind, "__attrs_attrs__"):
        return {a.name: getattr(value, a.name) for a in kind.__attrs_attrs__}
    if _is_pydantic(kind):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return {**{name: getattr(value, name) for name in kind.model_fields}, **extra}
    if _is_plain_class(kind):
        return dict(vars(value))
    return None


def _is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate")


_NO_DATA = (
    types.FunctionType, types.MethodType, types.ModuleType, types.GeneratorType, types.CoroutineType,
)  # fmt: skip


def _is_plain_class(kind: Any) -> bool:
    """A class of the user's own, whose objects are just their attributes."""
    return (
        isinstance(kind, type)
        and kind.__dictoffset__ != 0
        and not issubclass(kind, (*_NO_DATA, BaseException, str, int, float, bytes, dict, list, set, tuple))
        and kind.__reduce_ex__ is object.__reduce_ex__
        and not hasattr(kind, "fileno")
        and not hasattr(kind, "__next__")
        and not any("__call__" in vars(base) for base in kind.__mro__)
        and kind not in _LEAVES
    )


# ---------------------------------------------------------------------------------------------- decode


def decode(plain: Plain, type_: Any = None) -> Any:
    """The value of a plain form; of the annotated type if one is given, else models become namespaces.

    `DataError` if it does not fit the type, or if nobody here has written it.
    """
    with _readable("value"):
        if type_ is None or type_ is Any:
            return _decode(plain, Namespace)
        value = _decode(plain, dict)
    return _typed(value, type_, "value")


UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What reading raises if the stored form is not what was written. (Decimals raise arithmetic errors.)"""


class _readable:
    """Makes a `DataError` with a path of what reading raises. (A generator would take longer than that.)"""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, DataError):
            _prefix(exc, self.path)
        elif isinstance(exc, UNREADABLE):
            reason = f"its stored form can't be read: {type(exc).__name__}: {exc}"
            raise DataError(self.path, reason[:_PATH_SHOWN]) from exc


def _decode(plain: Any, model: Callable[[dict[str, Any]], Any]) -> Any:
    if isinstance(plain, list):
        return [_decode(item, model) for item in plain]
    if not isinstance(plain, dict):
        return plain
    tag = plain.get(MARKER)
    if tag is None:
        return {unescape_key(key): _decode(item, model) for key, item in plain.items()}
    if tag == "object":
        return model({unescape_key(k): _decode(v, model) for k, v in plain.items() if k != MARKER})
    if tag == "dict":
        return {_decode(key, model): _decode(item, model) for key, item in plain["items"]}
    if tag in _COLLECTIONS:
        return _COLLECTIONS[tag](_decode(item, model) for item in plain["value"])
    if tag not in _DECODE:
        raise DataError("", f"the stored form {str(tag)[:50]!r} is unknown; a newer release wrote it")
    return _DECODE[tag](plain["value"])


_COLLECTIONS: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_DECODE: dict[str, Callable[[Any], Any]] = {
    "datetime": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda count: timedelta(microseconds=count),
    "decimal": Decimal,
    "uuid": UUID,
    "bytes": base64.b64decode,
    "float": float,
}


def _typed(value: Any, type_: Any, path: str) -> Any:
    try:
        return _converter().structure(value, type_)
    except DataError:
        raise
    except Exception as exc:  # libraries and users' constructors raise what they like
        reason = "; ".join(_reasons(exc)) or str(exc)
        raise DataError(path, f"does not fit {getattr(type_, '__name__', type_)}: {reason}") from exc


def _reasons(exc: BaseException) -> list[str]:
    if isinstance(exc, cattrs.BaseValidationError):
        return cattrs.transform_error(exc)
    return [f"{type(exc).__name__}: {exc}"]


@lru_cache(maxsize=1)
def _converter() -> cattrs.Converter:
    """cattrs does the typed part: it knows dataclasses, attrs, enums, unions and generics."""
    converter = cattrs.Converter(forbid_extra_keys=False)
    for leaf in (*_LEAVES, bool):
        converter.register_structure_hook(leaf, _exactly(leaf))
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, kind: value)
    converter.register_structure_hook_func(_is_pydantic, lambda value, kind: kind.model_validate(value))
    converter.register_structure_hook_func(
        lambda kind: kind is Namespace,
        lambda value, kind: Namespace(value),
    )
    converter.register_structure_hook_func(_is_untyped_class, _structure_plain)
    converter.register_structure_hook_func(
        lambda kind: _is_union(kind) and not _is_optional(kind), _structure_union
    )
    return converter


def _exactly(leaf: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, kind: Any) -> Any:
        if isinstance(value, leaf):
            return value
        if isinstance(value, str) and leaf in (datetime, date, time, Decimal, UUID):
            # JSON has no form for these: what came from outside is text
            return _DECODE[leaf.__name__.lower()](value)
        if isinstance(value, (int, float)) and leaf is Decimal:
            return Decimal(str(value))
        raise TypeError(f"expected {leaf.__name__}, got {value!r}")

    return structure


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (Union, types.UnionType)


def _is_optional(kind: Any) -> bool:
    arguments = typing.get_args(kind)
    return len(arguments) == 2 and type(None) in arguments


def _structure_union(value: Any, kind: Any) -> Any:
    """The first member that the value is of already, else the first that takes it."""
    members = typing.get_args(kind)
    for member in members:
        if isinstance(member, type) and type(value) is member:
            return value
    for member in members:
        try:
            return _converter().structure(value, member)
        except Exception:
            continue
    raise TypeError(f"{value!r} fits none of {kind}")


def _is_untyped_class(kind: Any) -> bool:
    return (
        _is_plain_class(kind)
        and kind is not Namespace
        and not dataclasses.is_dataclass(kind)
        and not hasattr(kind, "__attrs_attrs__")
        and not _is_pydantic(kind)
        and not issubclass(kind, enum.Enum)
        and kind.__module__ not in ("builtins", "typing", "collections")
        and typing.get_origin(kind) is None
    )


def _structure_plain(value: Any, kind: Any) -> Any:
    """An object of a plain class: with its constructor's defaults, then what is stored."""
    if isinstance(value, Namespace):
        value = vars(value)
    if not isinstance(value, Mapping):
        raise TypeError(f"expected attributes, got {value!r}")
    try:
        made = kind()
    except TypeError:  # it wants arguments: its attributes are all that is known
        made = kind.__new__(kind)
    hints = _hints(kind)
    for name, item in value.items():
        if name.startswith("__"):
            raise TypeError(f"the attribute {name!r} is the language's own")
        setattr(made, name, _converter().structure(item, hints[name]) if name in hints else item)
    return made


@lru_cache(maxsize=256)
def _hints(kind: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except Exception:  # annotations of a user's class may name what can't be found any more
        return {}


# ------------------------------------------------------------------------------------- workflow data


def encode_data(data: object, path: str = "data") -> dict[str, Plain]:
    """A workflow's data: its top-level attributes, by escaped name."""
    if data is None:
        return {}
    attributes: Mapping[Any, Any] | None
    if isinstance(data, Namespace):
        attributes = vars(data)
    elif isinstance(data, Mapping):
        attributes = data
    else:
        attributes = _attributes(data)
    if attributes is None:
        raise DataError(path, f"must be an object or a dict, not {type(data).__name__}")
    for name in attributes:
        if not isinstance(name, str):
            raise DataError(path, f"the name {name!r} is not a string")
    try:
        return _encode_named(attributes, 0)
    except DataError as exc:
        _prefix(exc, path)
        raise


def decode_data(plain: Mapping[str, Plain], type_: type | None) -> Any:
    """The data object: of the declared type, or a `Namespace`. What a type does not know is left out."""
    with _readable("data"):
        model: Callable[[dict[str, Any]], Any] = Namespace if type_ is None or type_ is dict else dict
        values = {unescape_key(key): _decode(value, model) for key, value in plain.items()}
    if type_ is None:
        return Namespace(values)
    return values if type_ is dict else _typed(values, type_, "data")


def changes(before: Mapping[str, Plain], after: Mapping[str, Plain]) -> tuple[dict[str, Plain], list[str]]:
    """The top-level attributes that were set and that were removed."""
    changed = {
        name: value for name, value in after.items() if name not in before or not same(before[name], value)
    }
    return changed, [name for name in before if name not in after]


def same(a: Plain, b: Plain) -> bool:
    """Strict equality: True is not 1, and 1 is not 1.0."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and not (isinstance(a, float) and math.copysign(1, a) != math.copysign(1, b))  # type: ignore[arg-type]


def size(plain: Plain) -> int:
    """About how many bytes the stored form takes."""
    if plain == {}:
        return 2
    return len(json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))


# ------------------------------------------------------------------------------------------------ JSON


def to_json(plain: Plain) -> Any:
    """JSON for people and other programs: what JSON has no form for becomes text."""
    with _readable("value"):
        return _to_json(plain)


def _to_json(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_to_json(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    tag = plain.get(MARKER)
    if tag is None or tag == "object":
        return {unescape_key(key): _to_json(item) for key, item in plain.items() if key != MARKER}
    if tag == "dict":
        return [[_to_json(key), _to_json(item)] for key, item in plain["items"]]
    if tag in _COLLECTIONS:
        return [_to_json(item) for item in plain["value"]]
    if tag == "timedelta":
        return decode(plain).total_seconds()
    return plain["value"]


def from_json(value: Any, path: str = "data") -> Plain:
    """The plain form of parsed JSON from outside. Refuses what a store can't hold exactly."""
    try:
        return _from_json(value, 0)
    except DataError as exc:
        _prefix(exc, path)
        raise


def _from_json(value: Any, depth: int) -> Plain:
    kind = type(value)
    if kind is dict:
        _check_depth(depth)
        named: dict[str, Plain] = {}
        for key, item in value.items():
            if "\0" in key:
                raise DataError("", "a key contains NUL")
            escaped = escape_key(_text(key))
            try:
                named[escaped] = _from_json(item, depth + 1)
            except DataError as exc:
                _prefix(exc, f".{key}")
                raise
        return named
    if kind is list:
        _check_depth(depth)
        items: list[Plain] = []
        try:
            for item in value:
                items.append(_from_json(item, depth + 1))
        except DataError as exc:
            _prefix(exc, f"[{len(items)}]")
            raise
        return items
    if kind is float and not math.isfinite(value):
        raise DataError("", "NaN and Infinity are not allowed")
    return _encode(value, depth)


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise DataError("", f"it is nested more than {MAX_DEPTH} deep")


__all__ = [
    "DataError", "Namespace", "Plain", "changes", "decode", "decode_data", "encode", "encode_data",
    "escape_key", "from_json", "get_path", "same", "set_path", "size", "to_json", "unescape_key",
]  # fmt: skip
