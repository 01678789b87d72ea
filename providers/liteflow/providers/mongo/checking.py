"""Is a MongoDB fit for LiteFlow? Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from liteflow.core.errors import ProviderError, UnavailableError
from liteflow.core.findings import Finding, problem, warning, well
from liteflow.providers.mongo.connection import Client, connect, database_of
from liteflow.providers.mongo.errors import mapped
from liteflow.providers.mongo.indexes import Collections

AREA = "store"

LEAST_VERSION = (4, 4)

NEEDED = frozenset({"find", "insert", "update", "remove", "createIndex", "createCollection"})
"""What the user has to be allowed to do in the database."""


def check(url: str, options: dict[str, Any], database: str | None, prefix: str) -> list[Finding]:
    """See `Provider.check`."""
    try:
        client = connect(url, options)
    except ProviderError as exc:
        return [problem(AREA, str(exc), "correct --store; it is like mongodb://host:27017/liteflow")]
    try:
        with mapped():
            return list(_check(client, database_of(client, database), prefix))
    except UnavailableError as exc:
        return [problem(AREA, str(exc), "start the server, or check host and port in --store")]
    except ProviderError as exc:
        return [problem(AREA, str(exc), "check user, password and authSource in --store")]
    finally:
        client.close()


def _check(client: Client, database: Database[dict[str, Any]], prefix: str) -> Iterator[Finding]:
    hello = client.admin.command("hello")
    version = client.admin.command("buildInfo")["version"]
    where = f"MongoDB {version}, database {database.name!r}"
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_VERSION:
        yield problem(AREA, f"{where} is too old", "use 4.4 or later")
    else:
        yield well(AREA, f"{where} answers")
    yield from _topology(hello)
    yield _durability(client)
    missing = _missing_permissions(client, database.name)
    if missing:
        yield problem(
            AREA,
            f"the user may not {', '.join(missing)} in database {database.name!r}",
            f"grant it the role readWrite on {database.name!r}",
        )
    yield _indexes(Collections.of(database, prefix))


def _topology(hello: dict[str, Any]) -> Iterator[Finding]:
    if hello.get("msg") == "isdbgrid":
        yield well(AREA, "a sharded cluster")
    elif "setName" not in hello:
        yield warning(
            AREA,
            "a standalone server: what its disk loses is lost, and while it is away nothing goes on",
            "use a replica set of three for what has to live on",
        )
    else:
        members = len(hello.get("hosts", ())) + len(hello.get("passives", ()))
        if members < 3:
            yield warning(
                AREA,
                f"replica set {hello['setName']!r} has {members} data-bearing members: it does not survive"
                " the loss of one",
                "add members until there are three",
            )
        else:
            yield well(AREA, f"replica set {hello['setName']!r} of {members}")


def _durability(client: Client) -> Finding:
    concern = client.write_concern.document
    if concern.get("w") != "majority" or not concern.get("j"):
        return warning(
            AREA,
            f"the URL asks for the write concern w={concern.get('w', 1)}, journal={bool(concern.get('j'))}:"
            " what was accepted can be lost in a crash",
            "leave w and journal out of the URL; the default is majority and journaled",
        )
    return well(AREA, "writes wait for the majority and the journal")


def _missing_permissions(client: Client, database: str) -> list[str]:
    """What the user may not do. Nothing on a server that asks nobody who he is."""
    status = client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    if not status["authenticatedUsers"]:
        return []
    allowed: set[str] = set()
    for privilege in status["authenticatedUserPrivileges"]:
        resource = privilege["resource"]
        if resource.get("anyResource") or (
            resource.get("db") in (database, "") and resource.get("collection") == ""
        ):
            allowed |= set(privilege["actions"])
    return [] if "anyAction" in allowed else sorted(NEEDED - allowed)


def _indexes(collections: Collections) -> Finding:
    missing = []
    for collection, wanted in collections.indexes():
        try:
            present = collection.index_information()
        except OperationFailure:
            present = {}
        for index in wanted:
            name = index.document["name"]
            if list(index.document["key"].items()) != present.get(name, {}).get("key"):
                missing.append(f"{collection.name}.{name}")
    if missing:
        return warning(
            AREA,
            f"indexes are missing: {', '.join(missing)}",
            "they are created whenever a process opens the store; if they stay missing, see its log",
        )
    return well(AREA, "all indexes are there")
