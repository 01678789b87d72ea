"""The SQL persistence provider passes the contract, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sql_stores import drop, execute, opened, sent_by

from liteflow.core import Workflow, WorkflowBuilder, WorkflowHost, codec, configure_workflow_host
from liteflow.core.errors import DataError, InstanceUnreadableError, ProviderError, SettingsError
from liteflow.core.models import (
    Activity,
    ErrorRecord,
    Event,
    Pointer,
    PointerStatus,
    Request,
    Wait,
    WorkflowStatus,
)
from liteflow.core.providers import PersistenceProvider, RequestOutcome
from liteflow.core.testing.persistence import PersistenceContract
from liteflow.core.testing.persistence_items import large
from liteflow.core.testing.samples import T0, after, created, exact, loaded, new_id, new_instance, step, until
from liteflow.core.transition import Outcome, Transition
from liteflow.providers.rabbitmq import RabbitMQQueueProvider
from liteflow.providers.redis import RedisLockProvider
from liteflow.providers.sql import SqlPersistenceProvider, error_log


class TestSqlite(PersistenceContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[PersistenceProvider]:
        yield from opened(f"sqlite:///{tmp_path}/store.db")


class TestPostgres(PersistenceContract):
    @pytest.fixture
    def provider(self, postgres_url: str, prefix: str) -> Iterator[PersistenceProvider]:
        yield from opened(postgres_url, prefix)


class TestMariaDB(PersistenceContract):
    @pytest.fixture
    def provider(self, mariadb_url: str, prefix: str) -> Iterator[PersistenceProvider]:
        yield from opened(mariadb_url, prefix)


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def provider(url: str, prefix: str) -> Iterator[SqlPersistenceProvider]:
    yield from opened(url, prefix)


# --------------------------------------------------------------------------------------------- rows


def test_rows_can_be_read_and_queried(provider: SqlPersistenceProvider) -> None:
    data = codec.encode_data({"customer": {"name": "Änn"}, "total": 12.5})
    instance = created(provider, data=data, reference="o-1", pointers={"1": Pointer("1", "charge")})
    (row,) = execute(provider, "SELECT * FROM {t}_instances WHERE reference = 'o-1'")
    assert {key: value for key, value in row.items() if value is not None} == {
        "id": instance.id,
        "format": 1,
        "workflow_definition_id": "order",
        "version": 1,
        "create_time": 1767323045678901,
        "fingerprint": "",
        "status": 0,
        "reference": "o-1",
        "revision": 0,
        "token": "",
        "begun": True,
        "message_sent": False,
        "pointer_sequence": 0,
        "inbox_sequence": 0,
        "outbox_sequence": 0,
        "crashes": 0,
        "holds": 0,
        "completions": 0,
    }
    parts = execute(provider, "SELECT kind, name, value FROM {t}_parts ORDER BY kind, name")
    assert [tuple(part.values()) for part in parts] == [
        ("data", "customer", '{"name":"Änn"}'),
        ("data", "total", "12.5"),
        ("pointer", "1", '{"step_id":"charge","status":1}'),
    ]


def test_a_commit_writes_what_has_changed_and_nothing_else(provider: SqlPersistenceProvider) -> None:
    pointers = {str(n): Pointer(str(n), "work") for n in range(1, 50)}
    many = [
        created(provider, data={f"a{n}": "x" * 100 for n in range(50)}, pointers=pointers) for _ in range(8)
    ]
    transitions = [step(one, data_set={"a1": 1}, pointers={"2": Pointer("2", "pay")}) for one in many]
    sent = sent_by(provider)
    assert provider.commit(transitions) == [Outcome.COMMITTED] * 8
    assert [statement.split()[0] for statement, _ in sent] == ["SELECT", "UPDATE", "INSERT"]
    # PostgreSQL gets the columns of all rows, the others get the rows.
    rows = [next(iter(values.values())) if isinstance(values, dict) else values for _, values in sent[1:]]
    assert [len(one) for one in rows] == [8, 16]


def test_an_attribute_with_a_very_long_name(provider: SqlPersistenceProvider) -> None:
    names = ["n" * 255, "n" * 256, "n" * 5000, "é" * 256]
    instance = created(provider, data={name: index for index, name in enumerate(names)})
    assert exact(loaded(provider, instance.id)) == exact(instance)
    transition = step(instance, data_set={names[1]: "new"}, data_removed=[names[2]])
    assert provider.commit([transition]) == [Outcome.COMMITTED]
    transition.apply(instance)
    assert exact(loaded(provider, instance.id)) == exact(instance)


def test_texts_differ_by_case_accent_and_trailing_blanks(provider: SqlPersistenceProvider) -> None:
    names = ["o", "O", "ö", "o ", " o", "o\0", "\x1a", "\x1a0"]
    instances = [new_instance(id=f"{new_id()}{name}", reference=name) for name in names]
    assert provider.create(instances) == [True] * len(names)
    for instance in instances:
        assert exact(loaded(provider, instance.id)) == exact(instance)
    for key in names:
        assert provider.add_event(Event(f"e{key}", "paid", key, T0))
        assert provider.event(f"e{key}") == Event(f"e{key}", "paid", key, T0)


def test_events_of_long_names_and_keys(provider: SqlPersistenceProvider) -> None:
    key = "k" * 10_000
    instance, wait = created(provider), Wait("n" * 3000, key, T0, "1")
    provider.commit([step(instance, waits=[wait])])
    provider.add_event(Event("e", wait.name, key, T0))
    assert [found.id for found in provider.events([wait], after(1), 10)] == ["e"]
    assert [one.instance_id for one in provider.waiting_for(wait.name, key, "", 10)] == [instance.id]
    assert provider.waiting_for(wait.name, key + "k", "", 10) == []


def test_what_is_left_of_a_finished_activity_is_a_mark(provider: SqlPersistenceProvider) -> None:
    provider.offer_activities([Activity("a", "paint", {"wall": 1}, T0, "i")])
    provider.take_activity("paint", "me", "t", T0, after(60))
    provider.finish_activity("a")
    (row,) = execute(provider, "SELECT * FROM {t}_activities")
    kept = {key: value for key, value in row.items() if value is not None}
    assert kept == {
        "id": "a", "format": 1, "name": "paint", "time": 1767323045678901, "instance_id": "i", "done": True,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ refusals


def test_a_newer_format_is_not_guessed(provider: SqlPersistenceProvider) -> None:
    ended: dict[str, Any] = {"status": WorkflowStatus.COMPLETE, "complete_time": T0}
    newer, fine = created(provider, **ended), created(provider, **ended)
    execute(provider, "UPDATE {t}_instances SET format = 2 WHERE id = :id", id=newer.id)
    found = provider.load([newer.id, fine.id])
    assert isinstance(found[newer.id], InstanceUnreadableError)
    assert found[fine.id] == fine
    with pytest.raises(InstanceUnreadableError):
        provider.request(newer.id, _request(), T0)
    assert provider.purge(WorkflowStatus.COMPLETE, after(1), 10) == 1
    assert provider.load([newer.id, fine.id]).keys() == {newer.id}
    provider.offer_activities([Activity(key, "paint", None, T0, "i") for key in "ab"])
    execute(provider, "UPDATE {t}_activities SET format = 2 WHERE id = 'a'")
    taken = provider.take_activity("paint", "me", "t", T0, after(60))
    assert taken is not None
    assert taken.id == "b"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {t}_instances SET status = 77 WHERE id = :id",
        "UPDATE {t}_instances SET create_time = 9000000000000000000 WHERE id = :id",
        "UPDATE {t}_instances SET outbox = '[{}]' WHERE id = :id",
        "UPDATE {t}_instances SET parked = '[' WHERE id = :id",
        "UPDATE {t}_parts SET value = '{' WHERE instance_id = :id",
        "UPDATE {t}_parts SET value = '[1]' WHERE instance_id = :id AND kind = 'pointer'",
        "UPDATE {t}_parts SET value = '7' WHERE instance_id = :id AND kind = 'items'",
        "UPDATE {t}_parts SET name = 'x' WHERE instance_id = :id AND kind = 'pointer'",
        "UPDATE {t}_parts SET kind = 'new' WHERE instance_id = :id AND kind = 'data'",
        "UPDATE {t}_parts SET name = '~#1' WHERE instance_id = :id AND kind = 'data'",
        "UPDATE {t}_requests SET value = '{}' WHERE instance_id = :id",
    ],
)
def test_what_cannot_be_read_spoils_nothing_else(provider: SqlPersistenceProvider, change: str) -> None:
    values: dict[str, Any] = {"data": {"a": 1}, "pointers": {"1": Pointer("1", "a")}, "items": {"1": [1]}}
    broken, fine = created(provider, **values), created(provider, **values)
    provider.request(broken.id, _request(), T0)
    execute(provider, change, id=broken.id)
    found = provider.load([broken.id, fine.id])
    assert isinstance(found[broken.id], DataError)
    assert found[fine.id] == fine


def test_one_that_cannot_be_stored_is_rejected_alone(provider: SqlPersistenceProvider) -> None:
    bad: list[dict[str, Any]] = [
        {"huge": "x" * (65 * 1024 * 1024)},
        {"text": "\ud800"},
        {"deep": _nested(5000)},
        {"not plain": float("nan")},
        {"\ud800": 1},
    ]
    stored = [created(provider) for _ in range(len(bad) + 2)]
    transitions = [step(one, data_set=data) for one, data in zip(stored, [*bad, {"a": 1}], strict=False)]
    transitions.append(replace(step(stored[-1]), token="t" * 300))
    outcomes = [Outcome.REJECTED] * len(bad) + [Outcome.COMMITTED, Outcome.REJECTED]
    assert provider.commit(transitions) == outcomes
    assert [loaded(provider, one.id).revision for one in stored] == [0] * len(bad) + [1, 0]
    fine = new_instance()
    for wrong in ({"data": bad[0]}, {"id": "x" * 256}, {"reference": "x" * 256}, {"reason": "\ud800"}):
        with pytest.raises(DataError):
            provider.create([fine, new_instance(**wrong)])
    assert provider.load([fine.id]) == {}


def test_mariadb_takes_what_its_packets_hold(mariadb_url: str, prefix: str) -> None:
    for provider in opened(mariadb_url, prefix):
        (row,) = execute(provider, "SELECT @@max_allowed_packet AS most")
        half = row["most"] // 2
        instances = [created(provider) for _ in range(3)]
        sizes = [half - 128 * 1024, half, half - 128 * 1024]
        data = [{"quotes": '"' * (size // 2)} for size in sizes]
        transitions = [step(one, data_set=values) for one, values in zip(instances, data, strict=True)]
        outcomes = [Outcome.COMMITTED, Outcome.REJECTED, Outcome.COMMITTED]
        assert provider.commit(transitions) == outcomes
        assert loaded(provider, instances[2].id).data == data[2]


def test_errors_are_bounded(provider: SqlPersistenceProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_log, "ERRORS_KEPT", 5)
    monkeypatch.setattr(error_log, "TRIM_EVERY", 1)
    instance, other = created(provider), created(provider)
    errors = []
    for number in range(8):
        message = "\ud800" + "x" * 300_000 if number == 7 else "no"
        errors.append(ErrorRecord(instance.id, "1", "a", 1, after(number), "E", message))
        transition = step(instance, errors=errors[-1:])
        assert provider.commit([transition]) == [Outcome.COMMITTED]
        transition.apply(instance)
    provider.commit([step(other, errors=[replace(errors[0], instance_id=other.id)])])
    kept = provider.errors(instance.id, 100)
    assert kept[:-1] == errors[3:-1]
    assert kept[-1].message.startswith("?xxx")
    assert len(kept[-1].message) < 110_000
    assert len(provider.errors(other.id, 100)) == 1


def test_a_large_collection_is_not_written_with_each_commit(provider: SqlPersistenceProvider) -> None:
    instance = created(provider, items={"1": large("a", 30_000)})
    sent = sent_by(provider)
    assert provider.commit([step(instance, data_set={"a": 1})]) == [Outcome.COMMITTED]
    assert len(repr(sent)) < 5000


# -------------------------------------------------------------------------------------------- options


def test_prefixes_share_nothing(provider: SqlPersistenceProvider, url: str, prefix: str) -> None:
    instance = created(provider, wake_at=T0)
    for other in opened(url, f"{prefix}x.y-z"):
        assert other.load([instance.id]) == {}
        assert other.next_due() is None
        assert other.create([instance]) == [True]


@pytest.mark.parametrize("prefix", ["", "a b", 'a"', "a" * 31, "a;"])
def test_an_impossible_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ProviderError, match="prefix"):
        SqlPersistenceProvider("sqlite:///x.db", prefix=prefix)


def test_a_provider_that_is_not_open_says_so(url: str) -> None:
    provider = SqlPersistenceProvider(url)
    provider.close()
    for call in (provider.now, provider.next_due, lambda: provider.commit([])):
        with pytest.raises(ProviderError, match="not open"):
            call()


def test_many_more_than_one_statement_takes(provider: SqlPersistenceProvider) -> None:
    instances = [new_instance(wake_at=T0) for _ in range(1203)]
    assert all(provider.create(instances))
    assert len(provider.load([one.id for one in instances])) == 1203
    outcomes = provider.commit([step(one, wake_at=T0) for one in instances])
    assert outcomes == [Outcome.COMMITTED] * 1203
    assert len(provider.hold_due(T0, lambda due: after(60), 2000)) == 1203


def test_requests_of_an_inbox_in_any_state_stay_in_order(provider: SqlPersistenceProvider) -> None:
    instance = created(provider)
    for key in "abc":
        provider.request(instance.id, _request(key), T0)
    stored = loaded(provider, instance.id)
    rest = stored.inbox[1:]
    assert provider.commit([step(stored, fields={"inbox": rest, "applied": ["a"]})]) == [Outcome.COMMITTED]
    assert provider.request(instance.id, _request("d"), T0) is RequestOutcome.STORED
    assert [request.id for request in loaded(provider, instance.id).inbox] == ["b", "c", "d"]


def _nested(depth: int) -> codec.Plain:
    value: codec.Plain = 1
    for _ in range(depth):
        value = [value]
    return value


def _request(request_id: str = "r") -> Request:
    return Request("suspend", request_id, T0)


# ----------------------------------------------------------------------------------------------- host


class Chain(Workflow):
    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None).wait_for("go", "k").then(lambda context: None)


class Short(Workflow):
    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None)


def test_a_file_goes_with_the_lock_and_the_queue_of_one_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    assert SqlPersistenceProvider(url).shared
    ids: list[str] = []
    with configure_workflow_host(SqlPersistenceProvider(url)) as host:
        host.register_workflow(Chain)
        ids += [host.start_workflow("Chain", idempotency_key="1") for _ in range(2)]
        until(lambda: host.get_workflow(ids[0]).revision)
    # Another host goes on where the first one was.
    with configure_workflow_host(SqlPersistenceProvider(url)) as host:
        host.register_workflow(Chain)
        host.publish_event("go", "k")
        assert host.wait_for_workflow(ids[0], timeout=20).status is WorkflowStatus.COMPLETE
    assert ids[0] == ids[1]


def test_what_a_killed_process_had_at_hand_is_taken_up_at_the_next_start(tmp_path: Path) -> None:
    url, minute = f"sqlite:///{tmp_path}/store.db", timedelta(minutes=1)
    for store in opened(url):
        # Its client stores what it starts; its messages go with its process.
        client = configure_workflow_host(store)
        client.register_workflow(Short)
        ids = [client.start_workflow("Short") for _ in range(3)]
        sleeping = client.start_workflow("Short")
        client.stop()
        store.open()
        # So do those of a scheduler, however long it has held what it sent.
        for _ in range(4):
            held = store.hold_due(store.now() + 4 * minute, lambda due: store.now() + 4 * minute, 10)  # noqa: B023
            assert len(held) == 4
        later = store.now() + minute
        found = loaded(store, sleeping)
        sleeps = replace(found.pointers["1"], status=PointerStatus.SLEEPING, sleep_until=later)
        store.commit([step(found, pointers={"1": sleeps}, wake_at=later)])
    with configure_workflow_host(SqlPersistenceProvider(url)) as host:
        host.register_workflow(Short)
        for one in ids:
            assert host.wait_for_workflow(one, timeout=20).status is WorkflowStatus.COMPLETE
        # What was only looked at is due when it was.
        until(lambda: loaded(host.persistence, sleeping).wake_at == later)
        assert host.get_workflow(sleeping).status is WorkflowStatus.RUNNABLE


def test_a_server_needs_a_lock_and_a_queue_that_are_shared(postgres_url: str) -> None:
    with pytest.raises(SettingsError, match="shared"):
        configure_workflow_host(SqlPersistenceProvider(postgres_url))


def test_commits_of_many_instances_go_together(tmp_path: Path) -> None:
    class Counting(SqlPersistenceProvider):
        sizes: list[int] = []

        def commit(self, transitions: Sequence[Transition]) -> list[Outcome]:
            self.sizes.append(len(transitions))
            return super().commit(transitions)

    store = Counting(f"sqlite:///{tmp_path}/store.db")
    with configure_workflow_host(store) as host:
        host.register_workflow(Chain)
        ids = [host.start_workflow("Chain") for _ in range(200)]
        until(lambda: len(store.waiting_for("go", "k", "", 1000)) == len(ids))
        store.sizes.clear()
        host.publish_event("go", "k")
        for one in ids:
            host.wait_for_workflow(one, timeout=60)
    assert sum(store.sizes) >= len(ids)
    assert len(store.sizes) < sum(store.sizes) / 2


def test_a_cluster_keeps_its_workflows_in_sql(url: str, amqp_url: str, redis_url: str, prefix: str) -> None:
    def member() -> WorkflowHost:
        host = configure_workflow_host(
            SqlPersistenceProvider(url, prefix=prefix),
            RabbitMQQueueProvider(amqp_url, prefix=prefix),
            RedisLockProvider(redis_url, prefix=prefix),
        )
        host.register_workflow(Chain)
        return host

    with member() as one, member() as two:
        ids = [host.start_workflow("Chain") for host in (one, two) * 10]
        until(lambda: len(one.persistence.waiting_for("go", "k", "", 100)) == len(ids))
        two.publish_event("go", "k")
        for found in ids:
            assert one.wait_for_workflow(found, timeout=30).status is WorkflowStatus.COMPLETE
    if not url.startswith("sqlite"):
        drop(url, prefix)
