"""Activities: one row each, leased by an update that compares, to the first who finds it free."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, delete, or_, select, update
from sqlalchemy.exc import DBAPIError

from liteflow.core.errors import DataError
from liteflow.core.models import FORMAT_VERSION, Activity
from liteflow.providers.sql.database import Database, batches, execute_many
from liteflow.providers.sql.errors import is_lost, repeated
from liteflow.providers.sql.records import UNREADABLE, Encoder, Row
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.upserts import insert_missing
from liteflow.providers.sql.values import checked_name, from_json, from_micros, to_micros

_NO_LEASE = {"token": None, "worker": None, "until": None}


class ActivityPool:
    """The methods of `PersistenceProvider` that are about activities."""

    def __init__(self, database: Database, tables: Tables, encoder: Encoder) -> None:
        self._db = database
        self._activities = tables.activities
        self._encoder = encoder
        self._insert = insert_missing(tables.activities, database.name)
        self._in_order = f"FORCE INDEX (`{tables.activities.name}_offered`)"
        self._leased = select(tables.activities).where(tables.activities.c.token == bindparam("of_token"))

    def offer(self, activities: Sequence[Activity]) -> None:
        """Insert those whose id is not there."""
        rows = sorted((self._row(activity) for activity in activities), key=lambda row: str(row["id"]))
        for batch in batches(rows):
            repeated(lambda: self._db.write(lambda c: execute_many(c, self._insert, batch)))  # noqa: B023

    def _row(self, activity: Activity) -> Row:
        path = f"activity {activity.id}"
        plain = activity.parameters
        return {
            "id": checked_name(activity.id, path),
            "format": FORMAT_VERSION,
            "name": checked_name(activity.name, f"{path}: name"),
            "parameters": None if plain is None else self._encoder.json(plain, f"{path}: parameters"),
            "time": to_micros(activity.time),
            "instance_id": activity.instance_id,
            "token": activity.token or None,
            "worker": activity.worker or None,
            "until": None if activity.until is None else to_micros(activity.until),
            "done": activity.done,
        }

    def take(self, name: str, worker: str, token: str, now: datetime, until: datetime) -> Activity | None:
        """Lease the oldest of this name that is free."""
        a = self._activities.c
        lease = {"token": token, "worker": worker, "until": to_micros(until)}
        is_free = and_(
            a.done.is_(False),
            or_(a.until.is_(None), a.until <= to_micros(now)),
            a.format <= FORMAT_VERSION,
        )
        oldest = select(self._activities).where(a.name == name, is_free).order_by(a.time, a.id).limit(1)
        # MySQL would rather sort all that are free.
        oldest = oldest.with_hint(self._activities, self._in_order, "mysql")
        # Who loses a race for the oldest looks again: somebody else has got further.
        while True:
            row = self._db.read(lambda c: c.execute(oldest).first())
            if row is None:
                return None
            mine = update(self._activities).where(a.id == row.id, is_free).values(lease)
            if self._lease(mine, token):
                return _activity({**row._mapping, **lease})

    def _lease(self, statement: Any, token: str) -> bool:
        try:
            return self._db.write(lambda c: bool(c.execute(statement).rowcount))
        except DBAPIError as exc:
            if not is_lost(exc):
                raise
            # What the lost try has taken is found by the token, so that no second one is leased.
            return self._find(token) is not None

    def of_token(self, token: str) -> Activity | None:
        """The one that is leased under this token."""
        row = self._find(token) if token else None
        return None if row is None else _activity(row._mapping)

    def _find(self, token: str) -> Any:
        return self._db.read(lambda c: c.execute(self._leased, {"of_token": token}).first())

    def finish(self, activity_id: str) -> None:
        """Keep only a mark of it."""
        a = self._activities.c
        mark: Row = {**_NO_LEASE, "done": True, "parameters": None}
        done = update(self._activities).where(a.id == activity_id).values(mark)
        repeated(lambda: self._db.write(lambda c: c.execute(done)))

    def release(self, token: str) -> bool:
        """End a lease; False if there is none."""
        if not token:
            return False
        free = update(self._activities).where(self._activities.c.token == token).values(_NO_LEASE)
        try:
            return self._db.write(lambda c: bool(c.execute(free).rowcount))
        except DBAPIError as exc:
            if not is_lost(exc):
                raise
            # If it is not leased now, the lost try has ended the lease.
            self._db.write(lambda c: c.execute(free))
            return True

    def withdraw(self, activity_ids: Sequence[str]) -> None:
        """Delete these."""
        for batch in batches(sorted(activity_ids)):
            gone = delete(self._activities).where(self._activities.c.id.in_(batch))
            repeated(lambda: self._db.write(lambda c: c.execute(gone)))  # noqa: B023 (run at once)


def _activity(row: Any) -> Activity:
    try:
        return Activity(
            row["id"],
            row["name"],
            None if row["parameters"] is None else from_json(row["parameters"]),
            from_micros(row["time"]),
            row["instance_id"],
            row["token"] or "",
            row["worker"] or "",
            None if row["until"] is None else from_micros(row["until"]),
            row["done"],
        )
    except UNREADABLE as exc:
        raise DataError(f"activity {row['id']}", f"can't be read: {exc}") from exc
