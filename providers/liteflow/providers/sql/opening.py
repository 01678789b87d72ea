"""What the three providers do when they are opened: a prefix, a database that will do, tables of today."""

from __future__ import annotations

import re
from typing import Any

from liteflow.core.errors import ProviderError
from liteflow.providers.sql.connection import create
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.migrating import migrate
from liteflow.providers.sql.servers import prepare

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,30}")


def checked_prefix(prefix: str) -> str:
    """The prefix, if tables can be named by it. `ProviderError` if not."""
    if not _PREFIX.fullmatch(prefix):
        raise ProviderError(
            f"the prefix {prefix!r} can't begin a table's name: use up to 30 letters, digits, _, . and -"
        )
    return prefix


def opened_database(url: str, prefix: str, options: dict[str, Any], *, durable: bool = True) -> Database:
    """A database whose version will do, with tables of this release. Raises what SQLAlchemy raises, too."""
    engine = create(url, options, durable=durable)
    try:
        database = Database(engine)
        prepare(database)
        migrate(database, prefix)
    except BaseException:
        engine.dispose()
        raise
    return database
