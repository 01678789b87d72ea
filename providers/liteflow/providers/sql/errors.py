"""The drivers' errors as ours: which of them trying again may cure, and what to do about the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from liteflow.core.errors import ProviderError, StoreUnavailableError, UnavailableError

T = TypeVar("T")

_UNDONE = re.compile(r"^(40001|40P01|1213|1020)$")
"""A deadlock, or a transaction that came too late: the server has undone it."""

_TRANSIENT = re.compile(
    r"^(08...|57P0[1-5]|57014|53...|55P03|40001|40P01|25P0[34]"  # PostgreSQL's states
    r"|1020|1021|1040|1053|1114|1158|1159|1160|1161|1205|1213|1317|2002|2003|2006|2013|2055|3024)$"  # MySQL
)
"""Away, busy, short of something, or shutting down: the server itself will get over it."""

_SQLITE_TRANSIENT = {5, 6, 10, 13}
"""SQLITE_BUSY, _LOCKED, _IOERR, _FULL; the extended codes have these in their lowest byte."""

_SQLITE_WORDS = ("database is locked", "database table is locked", "disk I/O error", "disk is full")
"""Their texts, for Python 3.10, which does not tell the codes."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What a database refuses, by its codes or, where the driver tells none, its words; and what to do."""

    codes: frozenset[str]
    words: re.Pattern[str]
    advice: str


def _refusal(codes: str, words: str, advice: str) -> _Refusal:
    return _Refusal(frozenset(codes.split()), re.compile(words or r"(?!)"), advice)


_REFUSALS = (
    _refusal(
        "28P01 28000 1045 1698",
        r"password authentication failed|no pg_hba.conf entry|no password supplied"
        r"|role \".*\" does not exist",
        "the login was refused: check user name and password in the URL, and that the server lets them in",
    ),
    _refusal("3D000 1049", r"database \".*\" does not exist", "there is no such database: create it first"),
    _refusal(
        "42501 1044 1142 1227 1370",
        r"permission denied",
        "the user may not do this: grant it SELECT, INSERT, UPDATE and DELETE, and CREATE, ALTER and INDEX"
        " for the first time and after an upgrade",
    ),
    _refusal("", r"unable to open database file", "check that its folder exists and can be written to"),
    _refusal("25006 1290 1836", r"readonly database", "it is read-only: make it writable for this user"),
    _refusal(
        "", r"file is not a database|malformed", "it is no SQLite database, or damaged: name another file"
    ),
)
_PASSING = (
    _refusal(
        "2002 2003",
        r"onnection refused|timeout expired|could not translate|Name or service|failed to resolve",
        "check host and port in the URL, and that the server runs",
    ),
    _refusal("", r"database is locked", "other processes have been writing to the file for too long"),
)
"""What trying again may cure, but not by itself if it goes on."""


def code_of(exc: DBAPIError) -> str:
    """The database's own code: MySQL's numbers, a SQL state of PostgreSQL, or nothing."""
    orig: Any = exc.orig
    number = orig.args[0] if getattr(orig, "args", ()) else None
    return str(number) if isinstance(number, int) else getattr(orig, "sqlstate", None) or ""


def is_lost(exc: SQLAlchemyError) -> bool:
    """True if the connection is gone. What was asked may have been done or not."""
    return isinstance(exc, DBAPIError) and (exc.connection_invalidated or _is_driver_network(exc))


def is_undone(exc: SQLAlchemyError) -> bool:
    """True if the server has undone the transaction because of another one."""
    return isinstance(exc, DBAPIError) and bool(_UNDONE.match(code_of(exc)))


def is_transient(exc: Exception) -> bool:
    """True if trying again later makes sense."""
    if isinstance(exc, (StoreUnavailableError, PoolTimeoutError)):
        return True
    if not isinstance(exc, DBAPIError) or _refused(exc):
        return False
    orig: Any = exc.orig
    if _module(exc) == "sqlite3":
        number = getattr(orig, "sqlite_errorcode", None)
        if number is not None:
            return (number & 0xFF) in _SQLITE_TRANSIENT
        return any(words in str(orig) for words in _SQLITE_WORDS)
    return is_lost(exc) or bool(_TRANSIENT.match(code_of(exc)))


def _is_driver_network(exc: DBAPIError) -> bool:
    """psycopg gives no state to what it could not send or connect to; PyMySQL an empty number."""
    kind = type(exc.orig).__name__
    return _module(exc) in ("psycopg", "pymysql") and kind in _NETWORK and code_of(exc) in ("", "0")


_NETWORK = ("OperationalError", "ConnectionTimeout", "InterfaceError")


def _module(exc: DBAPIError) -> str:
    return type(exc.orig).__module__.partition(".")[0]


def summary(exc: SQLAlchemyError) -> str:
    """One line: the database, what it says, and what to do. Without statements and values."""
    if not isinstance(exc, DBAPIError):
        return f"SQL: {type(exc).__name__}: {str(exc).splitlines()[0]}"[:500]
    name = {"sqlite3": "SQLite", "psycopg": "PostgreSQL", "pymysql": "MySQL"}.get(_module(exc), "SQL")
    orig: Any = exc.orig
    said = orig.args[1] if len(getattr(orig, "args", ())) > 1 else orig
    line = " ".join(str(said).split())[:300]
    advice = _refused(exc, (*_REFUSALS, *_PASSING))
    return f"{name}: {line}" + (f" ({advice})" if advice else "")


def _refused(exc: DBAPIError, known: Iterable[_Refusal] = _REFUSALS) -> str:
    """What to do about a refusal; nothing if it is none."""
    code, text = code_of(exc), str(exc.orig)
    return next((one.advice for one in known if code in one.codes or one.words.search(text)), "")


@contextmanager
def mapped(unavailable: type[UnavailableError] = StoreUnavailableError) -> Iterator[None]:
    """The seam: no error of SQLAlchemy or a driver leaves it. `unavailable` is what may pass."""
    try:
        yield
    except SQLAlchemyError as exc:
        kind = unavailable if is_transient(exc) else ProviderError
        raise kind(summary(exc)) from exc
    except StoreUnavailableError as exc:
        if unavailable is StoreUnavailableError:
            raise
        raise unavailable(str(exc)) from exc


def repeated(act: Callable[[], T]) -> T:
    """Run what does no harm if it is done twice; once more if the connection was lost."""
    try:
        return act()
    except DBAPIError as exc:
        if not is_lost(exc):
            raise
        return act()
