"""Everything about `wake_at` between commits: due instances, their holds, parked instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, case, or_, select, update

from liteflow.core.models import Parked, WorkflowStatus
from liteflow.core.providers import Due, Waiter, WakeMove
from liteflow.providers.sql.database import Database, batches, execute_many
from liteflow.providers.sql.errors import repeated
from liteflow.providers.sql.records import PARKED
from liteflow.providers.sql.schema import Tables, topic
from liteflow.providers.sql.values import from_micros, to_json, to_micros


class Scheduling:
    """The methods of `PersistenceProvider` that find instances, or move `wake_at` without a commit."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._db = database
        self._instances, self._waits = tables.instances, tables.waits
        i, self._i = tables.instances.c, tables.instances.c
        self._waiter = (i.id, i.workflow_definition_id, i.version)
        mine = update(tables.instances).where(i.id == bindparam("of_id"))
        at = bindparam("at", type_=BigInteger)
        not_ended = [i.status == int(status) for status in WorkflowStatus if not status.ended]
        lowered = case((i.wake_at <= at, i.wake_at), else_=at)
        self._lower = mine.where(or_(*not_ended)).values(wake_at=lowered, message_sent=False, holds=0)
        same_revision = i.revision == bindparam("at_revision")
        as_read = i.wake_at.is_not_distinct_from(bindparam("expected", type_=BigInteger))
        lowers = i.wake_at > bindparam("lowest", type_=BigInteger)
        same_inbox = i.inbox_sequence == bindparam("at_inbox")
        self._move = mine.where(same_revision, same_inbox, or_(as_read, lowers)).values(
            parked=None, is_parked=None, holds=0
        )
        self._hold = mine.values(holds=i.holds + 1)
        self._count = mine.where(same_revision).values(crashes=i.crashes + bindparam("by"))
        self._park = mine.values(is_parked=1, wake_at=None, holds=0)
        self._same_revision = same_revision
        self._locked = (
            select(i.id, i.revision, i.wake_at, i.message_sent, i.holds)
            .where(i.id.in_(bindparam("ids", expanding=True)))
            .order_by(i.id)
            .with_for_update()
        )

    def hold_due(self, now: datetime, hold: Callable[[Due], datetime | Parked], limit: int) -> list[Due]:
        """See `PersistenceProvider.hold_due`."""
        i = self._i
        query = (
            select(*self._waiter, i.wake_at, i.message_sent, i.holds, i.revision)
            .where(i.wake_at <= to_micros(now))
            .order_by(i.wake_at)
            .limit(limit)
        )
        rows = self._db.read(lambda c: c.execute(query).all())
        found = [
            (Due(row[0], row[1], row[2], from_micros(row[3]), row[4], row[5]), _state(row)) for row in rows
        ]
        # Outside of the transaction: the function is the caller's.
        holds = {due.instance_id: hold(due) for due, _ in found}
        held: list[Due] = []
        for batch in batches(found):
            seen = {due.instance_id: state for due, state in batch}
            got = self._db.write(lambda c: self._put_holds(c, seen, holds))  # noqa: B023 (run at once)
            held += [due for due, _ in batch if due.instance_id in got]
        return held

    def _put_holds(
        self,
        connection: Connection,
        seen: Mapping[str, tuple[Any, ...]],
        holds: Mapping[str, datetime | Parked],
    ) -> set[str]:
        """Hold or park those that are as they were seen; their ids."""
        rows = connection.execute(self._locked, {"ids": list(seen)})
        same = [row.id for row in rows if seen[row.id] == _state(row)]
        held, parked = [], []
        for one in same:
            until = holds[one]
            if isinstance(until, Parked):
                parked.append({"of_id": one, "parked": to_json(PARKED.write(until))})
            else:
                held.append({"of_id": one, "wake_at": to_micros(until)})
        execute_many(connection, self._hold, held)
        execute_many(connection, self._park, parked)
        return set(same)

    def next_due(self) -> datetime | None:
        """The earliest `wake_at`."""
        at = self._i.wake_at
        query = select(at).where(at.is_not(None)).order_by(at).limit(1)
        found = self._db.read(lambda c: c.execute(query).scalar())
        return from_micros(found) if found is not None else None

    def lower_wake(self, wakes: Mapping[str, datetime]) -> None:
        """See `PersistenceProvider.lower_wake`."""
        # In order of the ids, as everybody does it who changes several: so none waits for each other.
        self._many(self._lower, [{"of_id": key, "at": to_micros(wakes[key])} for key in sorted(wakes)])

    def move_wake(self, moves: Sequence[WakeMove]) -> None:
        """See `PersistenceProvider.move_wake`."""
        rows = [
            {
                "of_id": move.instance_id,
                "at_revision": move.revision,
                "at_inbox": move.inbox_sequence,
                "expected": None if move.expected is None else to_micros(move.expected),
                "lowest": None if move.new is None else to_micros(move.new),
                "wake_at": None if move.new is None else to_micros(move.new),
                "message_sent": move.message_sent,
            }
            for move in sorted(moves, key=lambda move: move.instance_id)
        ]
        self._many(self._move, rows)

    def _many(self, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
        for batch in batches(rows):
            repeated(lambda: self._db.write(lambda c: execute_many(c, statement, batch)))  # noqa: B023

    def count_crash(self, instance_id: str, revision: int, by: int) -> None:
        """See `PersistenceProvider.count_crash`."""
        row = {"of_id": instance_id, "at_revision": revision, "by": by}
        self._db.write(lambda c: c.execute(self._count, row))

    def park(self, instance_id: str, revision: int, parked: Parked) -> None:
        """See `PersistenceProvider.park`."""
        row = {"of_id": instance_id, "parked": to_json(PARKED.write(parked))}
        statement = self._park
        if revision != -1:
            statement = statement.where(self._same_revision)
            row["at_revision"] = revision  # type: ignore[assignment]
        repeated(lambda: self._db.write(lambda c: c.execute(statement, row)))

    def parked(self, workflow_definition_id: str, version: int, after: str, limit: int) -> list[Waiter]:
        """See `PersistenceProvider.parked`."""
        i = self._i
        query = (
            select(*self._waiter)
            .where(i.is_parked == 1, i.workflow_definition_id == workflow_definition_id, i.version == version)
            .where(i.id > after)
            .order_by(i.id)
            .limit(limit)
        )
        return [Waiter(*row) for row in self._db.read(lambda c: c.execute(query).all())]

    def waiting_for(self, name: str, key: str, after: str, limit: int) -> list[Waiter]:
        """See `PersistenceProvider.waiting_for`."""
        w = self._waits.c
        query = (
            select(*self._waiter)
            .join_from(self._waits, self._instances, w.instance_id == self._i.id)
            .where(w.topic == topic(name, key), w.instance_id > after)
            .order_by(w.instance_id)
            .limit(limit)
        )
        return [Waiter(*row) for row in self._db.read(lambda c: c.execute(query).all())]


def _state(row: Any) -> tuple[Any, ...]:
    """What has to be as it was read for a hold."""
    return row.revision, row.wake_at, row.message_sent, row.holds
