"""The rows of the queue: put in, claimed, removed or given back, counted. A ready one has no consumer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, func, insert, literal, select, update

from liteflow.core.providers import Message
from liteflow.providers.sql.columns import short_name
from liteflow.providers.sql.database import Database, batches, execute_many

COUNTED = 10_000
"""To so many a depth is counted: more tell nobody more, and a deep backlog must not take long to look at."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that now is this session's."""

    id: int
    body: str
    traceparent: str | None
    redelivered: bool


@dataclass(slots=True)
class Settled:
    """What became of claimed messages: their numbers, and the queues that have some ready again."""

    done: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)
    """Given back before anybody saw them, so that they don't count as delivered."""
    queues: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.done or self.back or self.unseen)


class Messages:
    """The statements, each for a connection that is in a transaction. Queues are short names."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def put(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Add messages, in order."""
        rows = [
            {
                "queue": short_name(message.queue),
                "body": message.body,
                "traceparent": message.traceparent,
                "redelivered": False,
            }
            for message in messages
        ]
        for some in batches(rows):
            execute_many(connection, insert(self._table), list(some))

    def ready(self, connection: Connection, queues: Sequence[str]) -> set[str]:
        """Those of the queues that have a ready message: a look at the index for each."""
        table, found = self._table.c, set()
        for some in batches(queues):
            asked = [exists().where(table.queue == queue, table.consumer.is_(None)) for queue in some]
            told = connection.execute(select(*[one.label(f"q{n}") for n, one in enumerate(asked)])).one()
            found |= {queue for queue, has in zip(some, told, strict=True) if has}
        return found

    def claim(self, connection: Connection, queue: str, session: int, most: int) -> list[Claimed]:
        """The oldest ready messages of a queue, past those that others are about to have."""
        table = self._table.c
        query = (
            select(table.id, table.body, table.traceparent, table.redelivered)
            .where(table.queue == queue, table.consumer.is_(None))
            # By consumer too, which all of them have not: PostgreSQL does not see that this changes nothing,
            # and would sort all that wait.
            .order_by(table.consumer, table.id)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(query).all()
        if rows:
            mine = update(self._table).where(table.id.in_([row.id for row in rows]))
            connection.execute(mine.values(consumer=session))
        return [Claimed(row.id, row.body, row.traceparent, bool(row.redelivered)) for row in rows]

    def settle(self, connection: Connection, session: int, settled: Settled) -> None:
        """Remove or give back what still is this session's."""
        table = self._table.c
        for some in batches(sorted(settled.done)):
            gone = delete(self._table).where(table.id.in_(some), table.consumer == session)
            connection.execute(gone)
        for numbers, told in ((settled.back, literal(True)), (settled.unseen, table.redelivered)):
            for some in batches(sorted(numbers)):
                back = update(self._table).where(table.id.in_(some), table.consumer == session)
                connection.execute(back.values(consumer=None, redelivered=told))

    def orphaned(self, connection: Connection, sessions: Table) -> set[str]:
        """Queues with messages whose session is no more."""
        return set(connection.scalars(select(self._table.c.queue).where(*self._orphan(sessions))))

    def take_back(self, connection: Connection, sessions: Table) -> int:
        """Make them ready, marked as delivered before; how many there were."""
        lost = update(self._table).where(*self._orphan(sessions)).values(consumer=None, redelivered=True)
        return connection.execute(lost).rowcount

    def give_back_all(self, connection: Connection, session: int) -> None:
        """Make all of a session ready again."""
        mine = update(self._table).where(self._table.c.consumer == session)
        connection.execute(mine.values(consumer=None, redelivered=True))

    def _orphan(self, sessions: Table) -> list[ColumnElement[bool]]:
        consumer = self._table.c.consumer
        return [consumer.is_not(None), ~exists().where(sessions.c.id == consumer)]

    def depth(self, database: Database, queue: str) -> int:
        """Ready messages in a queue, up to `COUNTED`."""
        table = self._table.c
        some = (
            select(table.id)
            .where(table.queue == short_name(queue), table.consumer.is_(None))
            .limit(COUNTED)
            .subquery()
        )
        return database.read(
            lambda connection: connection.scalars(select(func.count()).select_from(some)).one()
        )
