"""Commits: many instances in one transaction, each compared on its own, each outcome known or settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select
from sqlalchemy.exc import DataError as RefusedValue
from sqlalchemy.exc import SQLAlchemyError

from liteflow.core.errors import DataError, StoreUnavailableError
from liteflow.core.models import Claim
from liteflow.core.transition import Outcome, Transition
from liteflow.providers.sql.bulk import OF_ID, Bulk
from liteflow.providers.sql.database import Database, batches, execute_many
from liteflow.providers.sql.error_log import ErrorLog
from liteflow.providers.sql.errors import is_transient, repeated
from liteflow.providers.sql.records import CLAIM, CLAIMS, Encoder, Row, parts_removed
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.values import from_json


@dataclass(frozen=True, slots=True)
class _Delta:
    """A transition as the rows that it writes. `waits` and `inbox` are None where they stay as they are."""

    transition: Transition
    columns: Row
    parts: list[Row]
    removed: list[Row]
    waits: list[Row] | None
    inbox: list[Row] | None


class Committer:
    """Writes transitions. Without a state of its own, so any thread may use it.

    A transaction locks the rows of its instances, in order of their ids, compares, and writes those that
    are as they should be. If the reply gets lost it is run again: the token tells what the lost try has
    stored.
    """

    def __init__(self, database: Database, tables: Tables, encoder: Encoder, errors: ErrorLog) -> None:
        self._db = database
        self._tables = tables
        self._encoder = encoder
        self._errors = errors
        i, p = tables.instances.c, tables.parts.c
        ids: BindParameter[Any] = bindparam("ids", expanding=True)
        self._stored = (
            select(i.id, i.revision, i.inbox_sequence, i.token)
            .where(i.id.in_(ids))
            .order_by(i.id)
            .with_for_update()
        )
        self._claims = select(p.instance_id, p.name, p.value).where(p.instance_id.in_(ids), p.kind == CLAIMS)
        self._instances = Bulk(tables.instances, database.name)
        self._parts = Bulk(tables.parts, database.name)
        self._remove_parts = delete(tables.parts).where(
            p.instance_id == bindparam("of_instance"),
            p.kind == bindparam("of_kind"),
            p.name == bindparam("of_name"),
        )
        self._remove_waits = delete(tables.waits).where(tables.waits.c.instance_id.in_(ids))
        self._remove_requests = delete(tables.requests).where(tables.requests.c.instance_id.in_(ids))

    def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
        """See `PersistenceProvider.commit`."""
        outcomes = [Outcome.REJECTED] * len(transitions)
        deltas: list[tuple[int, _Delta]] = []
        for place, transition in enumerate(transitions):
            try:
                deltas.append((place, self._delta(transition)))
            except DataError:
                continue
        for batch in batches(deltas):
            for place, outcome in self._write(dict(batch)).items():
                outcomes[place] = outcome
        return outcomes

    def _delta(self, transition: Transition) -> _Delta:
        t, encoder = transition, self._encoder
        fields = {name: value for name, value in t.fields.items() if name != "inbox"}
        fields |= {"wake_at": t.wake_at, "message_sent": t.message_sent, "crashes": t.crashes}
        columns = {name: encoder.column(name, value) for name, value in fields.items()}
        columns |= {
            "revision": t.revision + 1,
            "token": encoder.column("token", t.token),
            # A commit clears the mark of a parked instance and the scheduler's hold.
            "parked": None,
            "is_parked": None,
            "holds": 0,
        }
        return _Delta(
            t,
            columns,
            encoder.parts_set(t),
            parts_removed(t),
            None if t.waits is None else encoder.waits(t.instance_id, t.waits),
            encoder.requests(t.instance_id, t.fields["inbox"]) if "inbox" in t.fields else None,
        )

    def _write(self, deltas: Mapping[int, _Delta]) -> dict[int, Outcome]:
        try:
            return repeated(lambda: self._db.write(lambda connection: self._apply(connection, deltas)))
        except RefusedValue:
            if len(deltas) == 1:
                return dict.fromkeys(deltas, Outcome.REJECTED)
            outcomes: dict[int, Outcome] = {}
            for place, delta in deltas.items():
                outcomes |= self._write({place: delta})
            return outcomes
        except (SQLAlchemyError, StoreUnavailableError) as exc:
            if not is_transient(exc):
                raise
            return dict.fromkeys(deltas, Outcome.UNKNOWN)

    def _apply(self, connection: Connection, deltas: Mapping[int, _Delta]) -> dict[int, Outcome]:
        ids = [delta.transition.instance_id for delta in deltas.values()]
        stored = {row.id: row for row in connection.execute(self._stored, {"ids": ids})}
        claims = self._read_claims(connection, [delta.transition for delta in deltas.values()])
        outcomes = {
            place: _outcome(delta.transition, stored.get(delta.transition.instance_id), claims)
            for place, delta in deltas.items()
        }
        # What was committed before is as it was then.
        self._put(connection, [deltas[place] for place, outcome in outcomes.items() if outcome is None])
        return {place: outcome or Outcome.COMMITTED for place, outcome in outcomes.items()}

    def _read_claims(
        self, connection: Connection, transitions: Sequence[Transition]
    ) -> dict[tuple[str, str], Claim]:
        ids = [transition.instance_id for transition in transitions if transition.claims_expected]
        found = connection.execute(self._claims, {"ids": ids}) if ids else ()
        return {(row.instance_id, row.name): CLAIM.read(from_json(row.value)) for row in found}  # type: ignore[arg-type]

    def _put(self, connection: Connection, deltas: Sequence[_Delta]) -> None:
        rows = [{OF_ID: delta.transition.instance_id, **delta.columns} for delta in deltas]
        self._instances.update(connection, rows)
        execute_many(connection, self._remove_parts, [row for delta in deltas for row in delta.removed])
        self._parts.put(connection, [row for delta in deltas for row in delta.parts])
        waiting = {delta.transition.instance_id: delta.waits for delta in deltas if delta.waits is not None}
        self._replace(connection, self._remove_waits, insert(self._tables.waits), waiting)
        asked = {delta.transition.instance_id: delta.inbox for delta in deltas if delta.inbox is not None}
        self._replace(connection, self._remove_requests, insert(self._tables.requests), asked)
        self._errors.store(connection, [delta.transition for delta in deltas])

    @staticmethod
    def _replace(connection: Connection, removal: Any, insertion: Any, rows: Mapping[str, list[Row]]) -> None:
        """Put rows in the place of all that these instances have."""
        if rows:
            connection.execute(removal, {"ids": list(rows)})
            execute_many(connection, insertion, [row for of_one in rows.values() for row in of_one])


def _outcome(transition: Transition, stored: Any, claims: Mapping[tuple[str, str], Claim]) -> Outcome | None:
    """What is known from what is stored; None if the transition is to be written."""
    if stored is None:
        return Outcome.CONFLICT
    if transition.token and stored.token == transition.token:
        return Outcome.COMMITTED
    if (stored.revision, stored.inbox_sequence) != (transition.revision, transition.inbox_sequence):
        return Outcome.CONFLICT
    key = transition.instance_id
    if any(claims.get((key, name)) != claim for name, claim in transition.claims_expected.items()):
        return Outcome.CONFLICT
    return None
