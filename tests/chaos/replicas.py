"""A MongoDB replica set of several members, which reach each other through links."""

from __future__ import annotations

import pymongo
from chaos.proxy import Link, Proxy
from servers import MongoServer, wait_for


class MongoReplicas:
    """Like a `MongoServer`; what is done to it is done to one member, the primary of that moment."""

    def __init__(self, members: int, proxy: Proxy) -> None:
        self.members = [MongoServer(replica_set=True) for _ in range(members)]
        self.links: list[Link] = [proxy.link(member.port) for member in self.members]
        self._down: list[MongoServer] = []
        self._new = True

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in self.links)
        return f"mongodb://{hosts}/liteflow?replicaSet=rs0"

    def launch(self) -> None:
        """Start all, or those that were killed, and return at once."""
        for member in self._down or self.members:
            member.launch()
        self._down = []

    def wait(self) -> None:
        """Make the set if it is new; return when there is a primary."""
        if self._new:
            self._new = False
            hosts = [
                {"_id": number, "host": f"127.0.0.1:{link.port}"} for number, link in enumerate(self.links)
            ]
            with self._direct(self.members[0]) as client:
                wait_for(
                    "the set is made",
                    lambda: client.admin.command("replSetInitiate", {"_id": "rs0", "members": hosts}),
                    30,
                )
        wait_for("there is a primary", self.primary, 60)

    @staticmethod
    def _direct(member: MongoServer) -> pymongo.MongoClient[dict[str, object]]:
        return pymongo.MongoClient(
            "127.0.0.1", member.port, serverSelectionTimeoutMS=1000, directConnection=True
        )

    def primary(self) -> MongoServer | None:
        """The member that is the primary now."""
        for member in self.members:
            try:
                with self._direct(member) as client:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return member
            except pymongo.errors.PyMongoError:
                continue
        return None

    @property
    def port(self) -> int:
        """Where the primary is, past the links."""
        primary = self.primary()
        return primary.port if primary is not None else self.members[0].port

    def kill(self) -> None:
        """Kill the primary."""
        primary = self.primary() or self.members[0]
        primary.kill()
        self._down.append(primary)

    def close(self) -> None:
        """End all and remove their data."""
        for member in self.members:
            member.close()
