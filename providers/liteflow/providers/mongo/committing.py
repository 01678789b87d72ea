"""Commits: many instances in one trip, each compared on its own, each outcome known or settled."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo.errors import ConnectionFailure, PyMongoError

from liteflow.core.errors import DataError
from liteflow.core.transition import Outcome, Transition
from liteflow.providers.mongo.documents import CLAIM, transition_to_update
from liteflow.providers.mongo.error_log import ErrorLog
from liteflow.providers.mongo.errors import REFUSED_CODES, TRANSIENT_CODES, is_transient
from liteflow.providers.mongo.indexes import Documents
from liteflow.providers.mongo.items import ItemStore, Stored, of_transition
from liteflow.providers.mongo.values import time_to_bson
from liteflow.providers.mongo.writing import encoded, send

log = logging.getLogger("liteflow.mongo")

SETTLE_SECONDS = 2.0
"""So long the majority of a replica set is waited for when an outcome is read back."""

Pending = Mapping[int, Transition]
"""Transitions without an outcome so far, by their place in the call."""


class Committer:
    """Writes transitions. Without a state of its own, so any thread may use it."""

    def __init__(self, instances: Documents, items: ItemStore, errors: ErrorLog) -> None:
        self._instances = instances
        self._items = items
        self._errors = errors

    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        """See `PersistenceProvider.commit`."""
        outcomes = [Outcome.REJECTED] * len(transitions)
        updates: dict[int, RawBSONDocument] = {}
        stored: list[Stored] = []
        for place, transition in enumerate(transitions):
            try:
                items = of_transition(transition)
                updates[place] = _update(transition, items)
            except DataError:
                continue
            stored.append(items)
        pending = {place: transitions[place] for place in updates}
        for place, outcome in self._write(pending, updates, stored).items():
            outcomes[place] = outcome
        self._items.remove(pending[place] for place in pending if outcomes[place] is Outcome.COMMITTED)
        return outcomes

    def _write(
        self, pending: Pending, updates: Mapping[int, RawBSONDocument], stored: Sequence[Stored]
    ) -> dict[int, Outcome]:
        if not pending:
            return {}
        try:
            self._errors.store(list(pending.values()))
            self._items.add(stored)
            matched, outcomes, settled = self._update(updates)
        except PyMongoError as exc:
            if not is_transient(exc):
                raise
            return dict.fromkeys(pending, Outcome.UNKNOWN)
        rest = {place: transition for place, transition in pending.items() if place not in outcomes}
        if settled and matched == len(rest):
            return outcomes | dict.fromkeys(rest, Outcome.COMMITTED)
        return outcomes | self._read_back(rest)

    def _update(self, updates: Mapping[int, RawBSONDocument]) -> tuple[int, dict[int, Outcome], bool]:
        """How many were matched, those that can't be stored, and if the rest is surely durable.

        Repeating it after a lost connection is safe: each is compared, so each is done once.
        """
        places = list(updates)
        matched, rejected, settled = 0, dict[int, Outcome](), True
        for first, reply in send(self._instances, "update", list(updates.values())):
            matched += reply["n"]
            settled = settled and "writeConcernError" not in reply
            for error in reply.get("writeErrors", ()):
                if error["code"] in REFUSED_CODES:
                    rejected[places[first + error["index"]]] = Outcome.REJECTED
                    continue
                settled = False
                if error["code"] not in TRANSIENT_CODES:
                    log.warning("MongoDB could not store a commit: error %d", error["code"])
        return matched, rejected, settled

    def _read_back(self, pending: Pending) -> dict[int, Outcome]:
        """Settle outcomes by the tokens that are stored.

        A write that is on one server only is not seen yet: then its instance seems unchanged.
        """
        outcomes: dict[int, Outcome] = {}
        deadline, pause = time.monotonic() + SETTLE_SECONDS, 0.002
        while True:
            try:
                outcomes |= self._outcomes({p: t for p, t in pending.items() if p not in outcomes})
            except ConnectionFailure:
                break
            if len(outcomes) == len(pending) or time.monotonic() > deadline:
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
        return dict.fromkeys(pending, Outcome.UNKNOWN) | outcomes

    def _outcomes(self, pending: Pending) -> dict[int, Outcome]:
        ids = [transition.instance_id for transition in pending.values()]
        fields = {"token": 1, "revision": 1, "inbox_sequence": 1, "claims": 1}
        stored = {found["_id"]: found for found in self._instances.find({"_id": {"$in": ids}}, fields)}
        found = {p: _outcome(t, stored.get(t.instance_id)) for p, t in pending.items()}
        return {place: outcome for place, outcome in found.items() if outcome is not Outcome.UNKNOWN}


def _update(transition: Transition, items: Stored) -> RawBSONDocument:
    condition: dict[str, Any] = {
        "_id": transition.instance_id,
        "revision": transition.revision,
        "inbox_sequence": transition.inbox_sequence,
    }
    for pointer_id, claim in transition.claims_expected.items():
        condition[f"claims.{pointer_id}.token"] = claim.token
        condition[f"claims.{pointer_id}.until"] = time_to_bson(claim.until)
    return encoded({"q": condition, "u": transition_to_update(transition, items.lists)})


def _outcome(transition: Transition, stored: Mapping[str, Any] | None) -> Outcome:
    if stored is None:
        return Outcome.CONFLICT
    if transition.token and stored.get("token") == transition.token:
        return Outcome.COMMITTED
    same = (stored["revision"], stored["inbox_sequence"]) == (transition.revision, transition.inbox_sequence)
    return Outcome.UNKNOWN if same and _claims_stand(transition, stored) else Outcome.CONFLICT


def _claims_stand(transition: Transition, stored: Mapping[str, Any]) -> bool:
    claims = stored.get("claims", {})
    return all(
        key in claims and CLAIM.read(claims[key]) == claim
        for key, claim in transition.claims_expected.items()
    )
