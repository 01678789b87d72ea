"""The driver's errors as ours, and which of them trying again may cure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from bson.errors import InvalidBSON
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from liteflow.core.errors import ProviderError, StoreUnavailableError

T = TypeVar("T")

DUPLICATE_KEY = 11000
UNAUTHORIZED = 13

UNREACHABLE = (ConnectionFailure,)
"""The server is away or did not answer: with it AutoReconnect, NotPrimaryError, NetworkTimeout,
ServerSelectionTimeoutError and WaitQueueTimeoutError. What was asked may have been done or not."""

TRANSIENT_CODES = frozenset(
    [
        *(6, 7, 89, 9001),  # the server's own network trouble
        *(91, 11600, 11601, 11602),  # it shuts down, or somebody or itself interrupts what it does
        *(189, 10107, 13435, 13436),  # another one is the primary now
        134,  # after a start or an election it can't tell yet what the majority has
        *(24, 46, 50, 112, 262),  # busy: locks, time limits, write conflicts
        *(64, 100),  # the write concern was not met in time, or can't be now
        *(14031,),  # no space on its disk
    ]
)
"""Codes of errors that the server itself will get over."""


REFUSED_CODES = frozenset(
    [
        *(2, 9, 22, 28, *range(52, 58)),  # a name or value that the server does not take
        *(15, 10334, 17280, 17419, 17420),  # nested too deeply, or too large
        121,  # a rule of the collection's own
    ]
)
"""Codes of errors that lie in what is to be stored. Any other may be the server's, and is no step's fault."""


ADVICE = {
    18: "the login was refused: check user name, password and authSource in the URL",
    13: "grant it the role readWrite on the database that the URL names, or those of SECURITY.md",
}
"""What to do about errors that say who may do what."""


def is_transient(exc: PyMongoError) -> bool:
    """True if trying again later makes sense."""
    if isinstance(exc, (*UNREACHABLE, ExecutionTimeout, WTimeoutError)):
        return True
    if isinstance(exc, BulkWriteError):
        return any(error["code"] in TRANSIENT_CODES for error in write_errors(exc)) or bool(
            exc.details and exc.details.get("writeConcernErrors")
        )
    return isinstance(exc, OperationFailure) and exc.code in TRANSIENT_CODES


def write_errors(exc: BulkWriteError) -> list[dict[str, Any]]:
    """The errors of single operations, each with `index` and `code`."""
    return list(exc.details["writeErrors"]) if exc.details else []


@contextmanager
def mapped() -> Iterator[None]:
    """The seam: no error of the driver leaves it."""
    try:
        yield
    except PyMongoError as exc:
        kind = StoreUnavailableError if is_transient(exc) else ProviderError
        raise kind(f"MongoDB: {_summary(exc)}") from exc
    except InvalidBSON as exc:
        raise ProviderError(f"MongoDB: a document is no valid BSON: {exc}"[:500]) from exc


def _summary(exc: PyMongoError) -> str:
    """Short, and without the documents that a bulk error quotes: they are the users' data."""
    if isinstance(exc, BulkWriteError):
        codes = sorted({error["code"] for error in write_errors(exc)})
        return f"a bulk write failed with codes {codes}"
    if isinstance(exc, OperationFailure) and exc.code == UNAUTHORIZED:
        # The server quotes the command that it refuses, which holds the users' data.
        refused = str((exc.details or {}).get("errmsg", "")).partition(" {")
        what = f"{refused[0]} {refused[2].split(':')[0].strip()}"[:300].strip()
        return f"the user may not do this: {what} ({ADVICE[UNAUTHORIZED]})"
    if isinstance(exc, OperationFailure) and exc.code in ADVICE:
        said = (exc.details or {}).get("errmsg", exc)
        return f"{str(said).rstrip('.')[:300]} ({ADVICE[exc.code]})"
    if isinstance(exc, ServerSelectionTimeoutError):
        # The rest is a description of all that the driver knows, over several lines.
        said = re.sub(r" \(configured timeouts: [^)]*\)|, Timeout: .*", "", str(exc), flags=re.S)
        return f"no server can be used: {said[:300]} (check host and port in the URL, and that it runs)"
    return f"{type(exc).__name__}: {exc}"[:500]


def repeated(act: Callable[[], T]) -> T:
    """Run what does no harm if it is done twice; once more if the connection was lost.

    The driver does this by itself for reads, but for writes on replica sets only. A server that it has
    waited for in vain is not waited for again.
    """
    try:
        return act()
    except ServerSelectionTimeoutError:
        raise
    except UNREACHABLE:
        return act()
