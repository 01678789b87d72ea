"""Every query of the SQL store is served by an index, and in its order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sql_stores import opened, sent_by
from sqlalchemy import Connection

from liteflow.core.models import Activity, Claim, Event, Parked, Request, Wait, WorkflowStatus
from liteflow.core.providers import ClaimRenewal, ListFilter, Message, PersistenceProvider, WakeMove
from liteflow.core.testing.samples import T0, after, new_id, new_instance, step
from liteflow.providers.sql import SqlPersistenceProvider
from liteflow.providers.sql.messages import Messages, Settled

_PARKED = Parked("missing", T0, "order 1")
_CLAIM = Claim("me", "t", T0)


def _queue(provider: PersistenceProvider, act: Callable[[Messages, Connection, Any], Any]) -> Any:
    """What the queue provider asks of its tables, here beside a store that the tests can listen to."""
    assert isinstance(provider, SqlPersistenceProvider)
    store = provider._store
    messages = Messages(store.tables.messages)
    return store.database.write(lambda connection: act(messages, connection, store.tables.sessions))


PERIODIC: dict[str, Callable[[PersistenceProvider], Any]] = {
    "next_due": lambda p: p.next_due(),
    "hold_due": lambda p: p.hold_due(T0, lambda due: after(60), 10),
    "hold_events": lambda p: p.hold_events(T0, after(60), 10),
    "events": lambda p: p.events([Wait("paid", "k7", T0, "1")], T0, 10),
    "waiting_for": lambda p: p.waiting_for("common", "c", "5", 10),
    "parked": lambda p: p.parked("order", 1, "", 10),
    "take_activity": lambda p: p.take_activity("paint", "me", new_id(), after(10), after(60)),
    "activity": lambda p: p.activity("t7"),
    "lower_wake": lambda p: p.lower_wake({"x": T0}),
    "move_wake": lambda p: p.move_wake([WakeMove("x", 1, 0, T0, T0), WakeMove("x", 1, 0, None, None)]),
    "renew_claims": lambda p: p.renew_claims([ClaimRenewal("x", "1", _CLAIM, after(60))]),
    "load": lambda p: p.load(["x", "y"]),
    "ready messages": lambda p: _queue(p, lambda m, on, _: m.ready(on, ["q1", "q2", "nothing"])),
    "claim messages": lambda p: _queue(p, lambda m, on, _: m.claim(on, "q1", 7, 10)),
    "settle messages": lambda p: _queue(p, lambda m, on, _: m.settle(on, 7, Settled([1], [2], [3]))),
    "messages of the dead": lambda p: _queue(p, lambda m, on, sessions: m.orphaned(on, sessions)),
    "depth": lambda p: Messages(p._store.tables.messages).depth(p._store.database, "q1"),  # type: ignore[attr-defined]
    "commit": lambda p: p.commit(
        [step(new_instance(id="waiting0"), waits=[], data_removed=["a"], claims_expected={"1": _CLAIM})]
    ),
    "commit that changes the inbox": lambda p: p.commit(
        [step(new_instance(id="waiting1", revision=1), waits=[], data_removed=["a"], fields={"inbox": []})]
    ),
}

MORE: dict[str, Callable[[PersistenceProvider], Any]] = {
    "definitions": lambda p: p.definitions("order"),
    "forget_definition": lambda p: p.forget_definition("x", 1),
    "processes": lambda p: p.processes(),
    "forget_processes": lambda p: p.forget_processes(["x", "y"]),
    "history": lambda p: p.history("x"),
    "errors": lambda p: p.errors("x", 10),
    "count_crash": lambda p: p.count_crash("x", 1, 1),
    "park": lambda p: p.park("x", 1, _PARKED),
    "request": lambda p: p.request("waiting2", Request("suspend", "r", T0), T0),
    "release_activity": lambda p: p.release_activity("t7"),
    "finish_activity": lambda p: p.finish_activity("x"),
    "withdraw_activities": lambda p: p.withdraw_activities(["x", "y"]),
    "event": lambda p: p.event("x"),
    "mark_processed": lambda p: p.mark_processed(["x", "y"]),
    "purge": lambda p: p.purge(WorkflowStatus.COMPLETE, after(1000), 10),
    "purge_events": lambda p: p.purge_events(after(0), 10, ["paid"]),
    "list by status": lambda p: p.list(ListFilter(limit=10, status=WorkflowStatus.SUSPENDED)),
    "list by workflow and status": lambda p: p.list(
        ListFilter(limit=10, workflow="order", status=WorkflowStatus.COMPLETE, created_after=T0)
    ),
    "list by reference": lambda p: p.list(ListFilter(limit=10, reference="r7")),
    "list parked": lambda p: p.list(ListFilter(limit=10, parked=True)),
}

MERGED: dict[str, Callable[[PersistenceProvider], Any]] = {
    "list": lambda p: p.list(ListFilter(limit=10)),
    "list after a cursor": lambda p: p.list(ListFilter(limit=10, cursor=p.list(ListFilter(limit=10)).next)),
    "list by workflow": lambda p: p.list(ListFilter(limit=10, workflow="order")),
    "list by time": lambda p: p.list(ListFilter(limit=10, created_after=T0, created_before=after(9))),
    "survey": lambda p: p.survey(T0),
}
"""Pages that are merged from one page of each status, and counts: only those are sorted."""


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlPersistenceProvider]:
    path: Path = tmp_path_factory.mktemp("plans")
    yield from _populated(f"sqlite:///{path}/store.db", "ANALYZE")


@pytest.fixture(scope="module")
def postgres(postgres_url: str) -> Iterator[SqlPersistenceProvider]:
    yield from _populated(postgres_url, "ANALYZE")


@pytest.fixture(scope="module")
def mariadb(mariadb_url: str) -> Iterator[SqlPersistenceProvider]:
    tables = ", ".join(
        f"plans_{name}" for name in ("instances", "parts", "waits", "events", "activities", "messages")
    )
    yield from _populated(mariadb_url, f"ANALYZE TABLE {tables}")


@pytest.mark.parametrize("name", [*PERIODIC, *MORE, *MERGED])
def test_sqlite_uses_an_index(sqlite: SqlPersistenceProvider, name: str) -> None:
    for statement, plan in _plans(sqlite, name, "EXPLAIN QUERY PLAN "):
        steps = [row[3] for row in plan]
        scans = [line for line in steps if line.startswith("SCAN") and "USING" not in line]
        assert not [line for line in scans if "plans_" in line], (statement, steps)
        if name not in MERGED:
            assert not [line for line in steps if "TEMP B-TREE" in line], (statement, steps)


@pytest.mark.parametrize("name", [*PERIODIC, *MORE, *MERGED])
def test_postgresql_uses_an_index(postgres: SqlPersistenceProvider, name: str) -> None:
    # A few pages are read faster without an index: the question here is if there is one.
    with postgres._store.database.engine.connect() as connection:
        for setting in ("seqscan", "bitmapscan", "sort"):
            connection.exec_driver_sql(f"SET enable_{setting} = off")
        for statement, plan in _plans(postgres, name, "EXPLAIN (FORMAT JSON) ", connection):
            nodes = list(_nodes(_json(plan[0][0])[0]["Plan"]))
            kinds = {node["Node Type"] for node in nodes}
            assert "Seq Scan" not in kinds, (statement, nodes)
            if name not in MERGED:
                assert not kinds & {"Sort", "Incremental Sort"} or _sorts_a_few(nodes), (statement, nodes)


@pytest.mark.parametrize("name", PERIODIC)
def test_mariadb_uses_an_index(mariadb: SqlPersistenceProvider, name: str) -> None:
    for statement, plan in _plans(mariadb, name, "EXPLAIN "):
        for row in plan:
            known = row._mapping
            if known["table"] is not None:
                # A derived table is what an index has found already.
                assert known["type"] != "ALL" or known["table"].startswith("<derived"), (statement, plan)
                assert known["type"] != "index" or int(known["rows"] or 0) <= 100, (statement, plan)
            elif known["Extra"]:
                # Tables in which nothing fits are left out of the plan.
                said = known["Extra"]
                nothing = ("Impossible", "no matching row", "No tables used")
                assert any(words in said for words in nothing), (statement, plan)


def _plans(
    provider: SqlPersistenceProvider, name: str, explain: str, connection: Any = None
) -> Iterator[tuple[str, Any]]:
    """What the database says of each statement of a call that reads, or finds what it changes."""
    sent = sent_by(provider)
    {**PERIODIC, **MORE, **MERGED}[name](provider)
    mine = [(one, values) for one, values in sent if not one.startswith(("INSERT", "SET", "EXPLAIN"))]
    assert mine, name
    for statement, values in mine:
        single = values[0] if isinstance(values, list) else values
        if connection is not None:
            yield statement, connection.exec_driver_sql(explain + statement, single).all()
            continue
        with provider._store.database.engine.connect() as own:
            if provider._store.database.engine.name == "mysql" and not own.dialect.is_mariadb:
                own.exec_driver_sql("SET explain_format = TRADITIONAL")  # rows, as MariaDB has them
            yield statement, own.exec_driver_sql(explain + statement, single).all()


def _json(found: Any) -> Any:
    return json.loads(found) if isinstance(found, str) else found


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from _nodes(inner)


def _sorts_a_few(nodes: list[dict[str, Any]]) -> bool:
    """What a primary key finds may be sorted."""
    return all(node["Plan Rows"] <= 10 for node in nodes if "Sort" in node["Node Type"])


def _populated(url: str, analyze: str) -> Iterator[SqlPersistenceProvider]:
    """Some of everything, among many that have ended."""
    for provider in opened(url, "plans"):
        ended = [
            new_instance(
                status=WorkflowStatus.COMPLETE,
                create_time=after(n / 10),
                complete_time=after(n),
                reference=f"r{n % 50}",
                data={"a": 1},
            )
            for n in range(3000)
        ]
        waiting = [
            new_instance(
                id=f"waiting{n}", status=WorkflowStatus(n % 2), create_time=after(n), wake_at=after(n - 100)
            )
            for n in range(400)
        ]
        provider.create([*ended, *waiting])
        common = Wait("common", "c", T0, "2")
        transitions = [
            step(one, waits=[Wait("paid", f"k{n}", T0, "1"), common], wake_at=one.wake_at)
            for n, one in enumerate(waiting)
        ]
        provider.commit(transitions)
        for instance in [*ended[:20], *waiting[:20]]:
            provider.park(instance.id, -1, _PARKED)
        for number in range(300):
            provider.add_event(Event(new_id(), "paid", f"k{number % 10}", after(-number)))
            provider.add_event(Event(new_id(), "seen", "k", T0, processed=after(-number)))
        activities = [
            Activity(new_id(), "paint", number, after(number), f"i{number}") for number in range(1500)
        ]
        for number, activity in enumerate(activities[:1200]):
            activity.done = number < 1100
            if not activity.done:
                activity.token, activity.until = f"t{number - 1100}", after(60)
        provider.offer_activities(activities)
        with provider._store.database.engine.begin() as connection:
            messages, tables = Messages(provider._store.tables.messages), provider._store.tables
            messages.put(connection, [Message(f"q{n % 3}", str(n)) for n in range(3000)])
            connection.execute(tables.sessions.insert().values(id=7, until=0))
            connection.execute(tables.messages.update().where(tables.messages.c.id <= 60).values(consumer=7))
        with provider._store.database.engine.begin() as connection:
            connection.exec_driver_sql(analyze)
        yield provider
