"""Everything about `wake_at` between commits: due instances, their holds, claims, parked instances."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bson.raw_bson import RawBSONDocument

from liteflow.core.errors import DataError
from liteflow.core.models import Parked, WorkflowStatus
from liteflow.core.providers import ClaimRenewal, Due, Waiter, WakeMove
from liteflow.providers.mongo import documents
from liteflow.providers.mongo.errors import repeated
from liteflow.providers.mongo.indexes import Collections
from liteflow.providers.mongo.reading import readable, readable_page, set_aside
from liteflow.providers.mongo.values import time_from_bson, time_to_bson
from liteflow.providers.mongo.writing import encoded, update

NOT_ENDED = [int(status) for status in WorkflowStatus if not status.ended]
ANY_DUE: dict[str, Any] = {"wake_at": {"$gt": ""}}
_AS_READ = ("_id", "revision", "wake_at", "message_sent", "hold")
"""What has to be as it was read where it may be taken for sent. None matches a field that is not there."""


def due_query(now: datetime) -> dict[str, Any]:
    """Matches instances that are due."""
    return {"wake_at": {"$lte": time_to_bson(now)}}


def parked_query(workflow_definition_id: str, version: int, after: str) -> dict[str, Any]:
    """Matches the parked instances of a definition."""
    return {
        "workflow_definition_id": workflow_definition_id,
        "version": version,
        "parked": {"$exists": True},
        "_id": {"$gt": after},
    }


class Scheduling:
    """The methods of `PersistenceProvider` that move `wake_at` without a commit."""

    def __init__(self, collections: Collections) -> None:
        self._instances = collections.instances
        self._loose = collections.scheduling

    def hold_due(self, now: datetime, hold: Callable[[Due], datetime | Parked], limit: int) -> list[Due]:
        """See `PersistenceProvider.hold_due`.

        Holds wait for the majority: a worker that is woken loads what the majority has, and must see
        the hold to restore what was before it.
        """
        query = self._loose.find(due_query(now), documents.DUE_FIELDS).sort("wake_at", 1).limit(limit)
        found = {document["_id"]: document for document in query}
        if not found:
            return []
        due, wrong = {}, {}
        for instance_id, document in found.items():
            try:
                due[instance_id] = documents.due(document)
            except DataError as exc:
                wrong[instance_id] = exc
        set_aside(self._instances, "wake_at", wrong)
        if not due:
            return []
        token = uuid.uuid4().hex
        holds: list[RawBSONDocument] = []
        together: dict[datetime, list[str]] = {}
        for instance_id, one in due.items():
            until = hold(one)
            if isinstance(until, datetime) and not (one.message_sent or one.holds):
                together.setdefault(until, []).append(instance_id)
                continue
            same = {name: found[instance_id].get(name) for name in _AS_READ}
            holds.append(_statement(same, _held(until, one.holds + 1, token)))
        # Each of these is sent its id after the hold, whatever it was due for: that it is due is enough.
        for until, ids in together.items():
            still = {"_id": {"$in": ids}, **due_query(now)}
            holds.append(_statement(still, _held(until, 1, token), multi=True))
        if update(self._instances, holds) < len(due):
            mine = self._loose.find({"_id": {"$in": list(due)}, "hold.token": token}, {"_id": 1})
            got = {document["_id"] for document in mine}
            return [one for one in due.values() if one.instance_id in got]
        return list(due.values())

    def next_due(self) -> datetime | None:
        """The earliest `wake_at`."""
        while (found := self._loose.find_one(ANY_DUE, {"wake_at": 1}, sort=[("wake_at", 1)])) is not None:
            try:
                with readable(f"workflow {found['_id']}"):
                    return time_from_bson(found["wake_at"])
            except DataError as exc:
                set_aside(self._instances, "wake_at", {found["_id"]: exc})
        return None

    def lower_wake(self, wakes: Mapping[str, datetime]) -> None:
        """See `PersistenceProvider.lower_wake`."""
        updates = [
            _statement(
                {"_id": instance_id, "status": {"$in": NOT_ENDED}},
                {"$min": {"wake_at": time_to_bson(wake_at)}, "$unset": {"message_sent": "", "hold": ""}},
            )
            for instance_id, wake_at in wakes.items()
        ]
        update(self._instances, updates)

    def move_wake(self, moves: Sequence[WakeMove]) -> None:
        """See `PersistenceProvider.move_wake`."""
        # Who is sent the id is to find that it was sent, and reads what the majority has.
        update(self._loose, [_move(move) for move in moves if not move.message_sent])
        update(self._instances, [_move(move) for move in moves if move.message_sent])

    def renew_claims(self, renewals: Sequence[ClaimRenewal]) -> list[bool]:
        """See `PersistenceProvider.renew_claims`."""
        updates = [_renewal(renewal) for renewal in renewals]
        if not updates:
            return []
        if update(self._instances, updates) == len(updates):
            return [True] * len(renewals)
        ids = [renewal.instance_id for renewal in renewals]
        stored = {found["_id"]: found for found in self._instances.find({"_id": {"$in": ids}}, {"claims": 1})}
        return [
            _token(stored.get(renewal.instance_id), renewal.pointer_id) == renewal.claim.token
            for renewal in renewals
        ]

    def count_crash(self, instance_id: str, revision: int, by: int) -> None:
        """See `PersistenceProvider.count_crash`."""
        same = {"_id": instance_id, "revision": revision}
        repeated(lambda: self._instances.update_one(same, {"$inc": {"crashes": by}}))

    def park(self, instance_id: str, revision: int, parked: Parked) -> None:
        """See `PersistenceProvider.park`."""
        query: dict[str, Any] = {"_id": instance_id}
        if revision != -1:
            query["revision"] = revision
        update = {"$set": {"parked": documents.PARKED.write(parked)}, "$unset": {"wake_at": "", "hold": ""}}
        repeated(lambda: self._instances.update_one(query, update))

    def parked(self, workflow_definition_id: str, version: int, after: str, limit: int) -> list[Waiter]:
        """See `PersistenceProvider.parked`."""

        def page(after: str) -> Iterable[Mapping[str, Any]]:
            query = parked_query(workflow_definition_id, version, after)
            return self._instances.find(query, documents.WAITER_FIELDS).sort("_id", 1).limit(limit)

        return readable_page("workflow", documents.waiter, page, after, limit)


def _held(until: datetime | Parked, count: int, token: str) -> dict[str, Any]:
    """The update that holds or parks. Who asks for it tells from the token if it was done."""
    if isinstance(until, Parked):
        parked = {"parked": documents.PARKED.write(until), "hold": {"token": token, "count": 0}}
        return {"$set": parked, "$unset": {"wake_at": ""}}
    return {"$set": {"wake_at": time_to_bson(until), "hold": {"token": token, "count": count}}}


def _statement(condition: dict[str, Any], changes: Any, *, multi: bool = False) -> RawBSONDocument:
    return encoded({"q": condition, "u": changes, "multi": multi})


def _move(move: WakeMove) -> RawBSONDocument:
    # None matches a field that is not there.
    expected = time_to_bson(move.expected) if move.expected is not None else None
    same: dict[str, Any] = {
        "_id": move.instance_id,
        "revision": move.revision,
        "inbox_sequence": move.inbox_sequence,
        "wake_at": expected,
    }
    cleared = {"hold": "", "parked": ""}
    if not move.message_sent:
        cleared["message_sent"] = ""
    if move.new is None:
        return _statement(same, {"$unset": {**cleared, "wake_at": ""}})
    same["$or"] = [{"wake_at": same.pop("wake_at")}, {"wake_at": {"$gt": time_to_bson(move.new)}}]
    sent = {"message_sent": True} if move.message_sent else {}
    return _statement(same, {"$set": {"wake_at": time_to_bson(move.new), **sent}, "$unset": cleared})


_EARLIEST_END = {"$min": {"$map": {"input": {"$objectToArray": "$claims"}, "in": "$$this.v.until"}}}


def _renewal(renewal: ClaimRenewal) -> RawBSONDocument:
    """In steps, since `wake_at` goes along only if it was the earliest end of the claims before."""
    claim = f"claims.{renewal.pointer_id}"
    return _statement(
        {"_id": renewal.instance_id, f"{claim}.token": renewal.claim.token},
        [
            {"$set": {"goes_along": {"$eq": ["$wake_at", _EARLIEST_END]}}},
            {"$set": {f"{claim}.until": time_to_bson(renewal.until)}},
            {"$set": {"wake_at": {"$cond": ["$goes_along", _EARLIEST_END, "$wake_at"]}}},
            {"$unset": "goes_along"},
        ],
    )


def _token(stored: Mapping[str, Any] | None, pointer_id: str) -> str | None:
    claim = (stored or {}).get("claims", {}).get(pointer_id, {})
    token: str | None = claim.get("token")
    return token
