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


def told(name: str, exc: RedisError, prefix: str) -> ProviderError:
    """The error of ours for one of the driver's; `name` is the server's address."""
    if is_login(exc):
        return ProviderError(
            f"redis {name} refuses the login: check user name and password in the URL"
            " (redis://user:password@host:6379/0)"
        )
    said = " ".join(str(exc).split())[:200]
    if isinstance(exc, NoPermissionError) or said.startswith("NOPERM"):
        return ProviderError(
            f"redis {name}: the user may not do this ({said}); grant it the keys and channels of the prefix:"
            f" ACL SETUSER ... ~{prefix}:* &{prefix}:* +@all -@admin"
        )
    if isinstance(exc, ResponseError) and not (isinstance(exc, _PASSING) or said.startswith(_PASSING_WORDS)):
        if "nknown command" in said:
            return ProviderError(f"redis {name} is too old, or not Redis ({said}); upgrade the server")
        return ProviderError(f"redis {name} refuses a command: {said}")
    return QueueUnavailableError(f"redis {name} can't be used now: {said or type(exc).__name__}")
