"""From a URL to a database: the driver's options, ours by default, the user's where the URL has them."""

from __future__ import annotations

from datetime import timezone
from typing import Any
from urllib.parse import parse_qsl

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from liteflow.core.errors import ProviderError

Client = MongoClient[dict[str, Any]]

DEFAULT_DATABASE = "liteflow"

OLDEST = (4, 4)
"""Deletions that name their index came with this version."""

CODEC_OPTIONS: CodecOptions[Any] = CodecOptions(
    tz_aware=True,
    tzinfo=timezone.utc,
    uuid_representation=UuidRepresentation.STANDARD,
    # A date beyond the calendar is for whoever reads its value to refuse, not for a cursor full of others.
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)

RAW_OPTIONS: CodecOptions[RawBSONDocument] = CODEC_OPTIONS.with_options(document_class=RawBSONDocument)
"""For documents that are decoded one by one, so that one that can't be does not spoil the others."""

DEFAULTS: dict[str, Any] = {
    # What is confirmed survives the crash of a server, and the loss of one in a replica set.
    "w": "majority",
    "journal": True,
    "wTimeoutMS": 10_000,
    # A server that is away is waited for so long; who calls tries again with backoff.
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 20_000,
    "appname": "liteflow",
}


def connect(url: str, options: dict[str, Any]) -> Client:
    """A client for a URL. `ProviderError` if the URL or an option is not valid; nothing is asked yet."""
    query = url.partition("?")[2]
    given = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
    given |= {name.lower() for name in options}
    defaults = {name: value for name, value in DEFAULTS.items() if name.lower() not in given}
    try:
        parse_uri(url, warn=False)  # else the client just warns of options that it does not understand
        client: Client = MongoClient(url, connect=False, **{**defaults, **options})
    except (PyMongoError, ValueError, TypeError, OSError) as exc:  # it opens the files of certificates
        # The driver quotes parts of the URL, which may hold a password, so it gets no say here.
        if "@" in url:
            reason = f"{type(exc).__name__}; are user name and password percent-encoded?"
            raise ProviderError(f"the MongoDB URL is not valid ({reason})") from None
        raise ProviderError(f"the MongoDB URL is not valid: {exc}") from exc
    if not client.write_concern.acknowledged:
        client.close()
        raise ProviderError(
            "the MongoDB URL asks for w=0, but a workflow is stored only once it is confirmed"
        )
    return client


def check_version(client: Client) -> None:
    """`ProviderError` if the server is too old. Raises what the driver raises."""
    told = client.server_info()
    if tuple(told["versionArray"][:2]) < OLDEST:
        raise ProviderError(
            f"MongoDB {told['version']} is too old: LiteFlow needs {OLDEST[0]}.{OLDEST[1]} or later;"
            " upgrade the server or name another one"
        )


def database_of(client: Client, name: str | None) -> Database[dict[str, Any]]:
    """The database that is named, or else that of the URL's path.

    Always read from the primary, and what the majority has, so that nothing is built on what may be
    rolled back; unless writes don't wait for the majority either.
    """
    if name is None:
        name = client.get_default_database(DEFAULT_DATABASE).name
    durable = client.write_concern.document.get("w") == "majority"
    return client.get_database(
        name,
        codec_options=CODEC_OPTIONS,
        read_preference=ReadPreference.PRIMARY,
        read_concern=ReadConcern("majority" if durable else "local"),
    )
