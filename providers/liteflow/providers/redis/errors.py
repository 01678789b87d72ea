"""The driver's errors as ours: which of them trying again may cure, and what to do about the others."""

from __future__ import annotations

from liteflow.core.errors import ProviderError, QueueUnavailableError
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

_LOGIN = (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError)
_LOGIN_WORDS = ("NOAUTH", "WRONGPASS", "invalid username-password", "Authentication required")
_PASSING = (OutOfMemoryError, ReadOnlyError, MasterDownError)
_PASSING_WORDS = ("OOM", "READONLY", "MISCONF", "LOADING", "BUSY", "MASTERDOWN", "NOREPLICAS", "NOGROUP")
"""What the server, or whoever runs it, will get over: classes, and how answers begin that have none."""


def is_login(exc: RedisError) -> bool:
    """True if the server does not let us in."""
    return isinstance(exc, _LOGIN) or any(words in str(exc) for words in _LOGIN_WORDS)


def is_passing(exc: RedisError) -> bool:
    """True if trying again later makes sense."""
    if is_login(exc):
        return False
    passing = isinstance(exc, _PASSING) or str(exc).startswith(_PASSING_WORDS)
    return passing or not isinstance(exc, ResponseError)


def explained(name: str, exc: RedisError, prefix: str) -> str:
    """One line: the server, by its address, what it says, and what to do."""
    if is_login(exc):
        return (
            f"redis {name} refuses the login: check user name and password in the URL"
            " (redis://user:password@host:6379/0)"
        )
    said = " ".join(str(exc).split()).rstrip(".")[:200] or type(exc).__name__
    if isinstance(exc, NoPermissionError) or said.startswith("NOPERM"):
        return (
            f"redis {name}: the user may not do this ({said}); grant it the keys and channels of the prefix:"
            f" ACL SETUSER ... ~{prefix}:* &{prefix}:* +@all -@admin"
        )
    if is_passing(exc):
        away = "" if isinstance(exc, ResponseError) else "; check host and port in the URL, and that it runs"
        return f"redis {name} can't be used now: {said}{away}"
    if "nknown command" in said:
        return f"redis {name} is too old, or not Redis ({said}); upgrade the server"
    if "DB index" in said:
        return f"redis {name} has no database of that number; the path of the URL names it, like /0"
    return f"redis {name} refuses a command: {said}"


def told(name: str, exc: RedisError, prefix: str) -> ProviderError:
    """The error of ours for one of the driver's, of a queue."""
    kind = QueueUnavailableError if is_passing(exc) else ProviderError
    return kind(explained(name, exc, prefix))
