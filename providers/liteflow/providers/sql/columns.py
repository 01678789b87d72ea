"""The types of columns. Texts compare by their bytes in every database, and may hold NUL everywhere."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import BigInteger, Column, Dialect, Identity, Integer, String, Text
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.types import TypeDecorator

from liteflow.providers.sql.values import NAME_LENGTH

_ESCAPE = "\x1a"

_AS_IT_IS = 120
"""Characters up to which a name of any length is stored as it is."""


def number_column() -> Column[int]:
    """A key that the database counts up, and never gives twice.

    For PostgreSQL an identity and not a serial: its sequence needs no right of its own.
    """
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True)


def short_name(name: str) -> str:
    """What stands for a name of any length in a `Name` column: itself, or its begin and a digest."""
    if len(name) <= _AS_IT_IS:
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name[:100]}#{digest}"  # longer than any that is stored as it is, so that they can't meet


def _escaped(text: str) -> str:
    """PostgreSQL takes no NUL, so it is written as two characters that no other text is written as."""
    if "\0" in text or _ESCAPE in text:
        return text.replace(_ESCAPE, _ESCAPE + "1").replace("\0", _ESCAPE + "0")
    return text


def _unescaped(text: str) -> str:
    if _ESCAPE in text:
        return text.replace(_ESCAPE + "0", "\0").replace(_ESCAPE + "1", _ESCAPE)
    return text


class _Escaped(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _escaped(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else _unescaped(value)


class Name(_Escaped):
    """A text of up to `NAME_LENGTH` characters, which can be indexed."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(String(NAME_LENGTH, _collation(dialect)))


class LongText(_Escaped):
    """A text of any length. JSON is one too: none of the databases' JSON types keeps values exactly."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name == "mysql":
            return dialect.type_descriptor(LONGTEXT())
        return dialect.type_descriptor(Text(collation=_collation(dialect)))


def _collation(dialect: Dialect) -> str | None:
    """PostgreSQL's by column; MySQL's goes with the table, and SQLite compares bytes anyway."""
    return "C" if dialect.name == "postgresql" else None


def table_options(dialect: Dialect) -> dict[str, Any]:
    """What a new table needs so that its texts compare by their bytes, trailing blanks included."""
    if dialect.name != "mysql":
        return {}
    collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    return {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": collation}
