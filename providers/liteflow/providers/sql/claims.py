"""Claims of long steps, whose holders move their ends without a commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, select, update

from liteflow.core.models import Claim
from liteflow.core.providers import ClaimRenewal
from liteflow.providers.sql.database import Database, batches, execute_many
from liteflow.providers.sql.errors import repeated
from liteflow.providers.sql.records import CLAIM, CLAIMS, Encoder
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.upserts import put
from liteflow.providers.sql.values import from_json, to_micros


class ClaimStore:
    """Renews claims: under the lock of their instances' rows, so that no commit comes in between."""

    def __init__(self, database: Database, tables: Tables, encoder: Encoder) -> None:
        self._db = database
        self._encoder = encoder
        i, p = tables.instances.c, tables.parts.c
        ids: BindParameter[Any] = bindparam("ids", expanding=True)
        self._locked = select(i.id, i.wake_at).where(i.id.in_(ids)).order_by(i.id).with_for_update()
        self._claims = select(p.instance_id, p.name, p.value).where(p.instance_id.in_(ids), p.kind == CLAIMS)
        self._put = put(tables.parts, database.name)
        self._wake = update(tables.instances).where(i.id == bindparam("of_id"))

    def renew(self, renewals: Sequence[ClaimRenewal]) -> list[bool]:
        """See `PersistenceProvider.renew_claims`."""
        renewed: list[bool] = []
        for batch in batches(renewals):
            renewed += repeated(lambda: self._db.write(lambda c: self._renew(c, batch)))  # noqa: B023
        return renewed

    def _renew(self, connection: Connection, renewals: Sequence[ClaimRenewal]) -> list[bool]:
        ids = {"ids": list({renewal.instance_id for renewal in renewals})}
        wakes = {row.id: row.wake_at for row in connection.execute(self._locked, ids)}
        claims: dict[str, dict[str, Claim]] = {}
        for row in connection.execute(self._claims, ids):
            claims.setdefault(row.instance_id, {})[row.name] = CLAIM.read(from_json(row.value))  # type: ignore[arg-type]
        before = {key: _earliest(of_one) for key, of_one in claims.items()}
        renewed = [_renew_one(claims.get(renewal.instance_id, {}), renewal) for renewal in renewals]
        changed = {
            (renewal.instance_id, renewal.pointer_id)
            for renewal, mine in zip(renewals, renewed, strict=True)
            if mine
        }
        rows = [self._encoder.claim(key, pointer, claims[key][pointer]) for key, pointer in sorted(changed)]
        execute_many(connection, self._put, rows)
        moved = [
            {"of_id": key, "wake_at": _earliest(claims[key])}
            for key in sorted({key for key, _ in changed})
            if wakes.get(key) == before[key]
        ]
        execute_many(connection, self._wake, moved)
        return renewed


def _renew_one(claims: dict[str, Claim], renewal: ClaimRenewal) -> bool:
    claim = claims.get(renewal.pointer_id)
    if claim is None or claim.token != renewal.claim.token:
        return False
    claims[renewal.pointer_id] = replace(claim, until=renewal.until)
    return True


def _earliest(claims: dict[str, Claim]) -> int:
    return to_micros(min(claim.until for claim in claims.values()))
