"""The MongoDB persistence provider passes the contract, on a standalone server and on a replica set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import bson
import pymongo
import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from pymongo.monitoring import CommandListener

from liteflow.core import codec
from liteflow.core.errors import DataError, InstanceUnreadableError, ProviderError, StoreUnavailableError
from liteflow.core.models import (
    Activity,
    ErrorRecord,
    Event,
    Parked,
    Pointer,
    Request,
    Wait,
    WorkflowStatus,
)
from liteflow.core.providers import ListFilter, PersistenceProvider, WakeMove
from liteflow.core.survey import ProcessRecord
from liteflow.core.testing.persistence import PersistenceContract
from liteflow.core.testing.persistence_commit import CommitContract
from liteflow.core.testing.persistence_items import ItemsContract, large
from liteflow.core.testing.samples import T0, after, created, loaded, new_id, new_instance, step
from liteflow.core.transition import Outcome
from liteflow.providers.mongo import MongoPersistenceProvider, error_log, items
from liteflow.providers.mongo.values import time_to_bson

Documents = pymongo.collection.Collection[dict[str, Any]]


def opened(url: str, prefix: str, **options: Any) -> Iterator[MongoPersistenceProvider]:
    """A provider with collections of its own, which are removed in the end."""
    provider = MongoPersistenceProvider(url, prefix=prefix, **options)
    provider.open()
    yield provider
    provider.close()
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        for name in database.list_collection_names(filter={"name": {"$regex": f"^{prefix}\\."}}):
            database.drop_collection(name)


class TestStandalone(PersistenceContract):
    @pytest.fixture
    def provider(self, mongo_url: str, prefix: str) -> Iterator[PersistenceProvider]:
        yield from opened(mongo_url, prefix)


class TestReplicaSet(PersistenceContract):
    @pytest.fixture
    def provider(self, mongo_replica_url: str, prefix: str) -> Iterator[PersistenceProvider]:
        yield from opened(mongo_replica_url, prefix)


class TestAllItemsOutside(CommitContract, ItemsContract):
    """With every list in chunks, however small, values of all kinds come by there too."""

    @pytest.fixture
    def provider(
        self, mongo_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[PersistenceProvider]:
        monkeypatch.setattr(items, "LARGE", 0)
        monkeypatch.setattr(items, "CHUNK", 20_000)
        yield from opened(mongo_url, prefix)


@pytest.fixture
def provider(mongo_url: str, prefix: str) -> Iterator[MongoPersistenceProvider]:
    yield from opened(mongo_url, prefix)


@pytest.fixture
def instances(mongo_url: str, prefix: str) -> Iterator[Documents]:
    """The collection of instances, as the driver shows it."""
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        yield client.get_default_database()[f"{prefix}.instances"]


# ------------------------------------------------------------------------------------------ documents


def test_documents_can_be_read_and_queried(provider: PersistenceProvider, instances: Documents) -> None:
    data = codec.encode_data({"customer": {"name": "Ann", "born": T0.replace(microsecond=0)}, "lines": [1]})
    instance = created(provider, data=data, pointers={"1": Pointer("1", "charge")})
    document = instances.find_one({"data.customer.name": "Ann", "data.customer.born": {"$lt": after(1)}})
    assert document == {
        "_id": instance.id,
        "format": 1,
        "workflow_definition_id": "order",
        "version": 1,
        "create_time": "2026-01-02T03:04:05.678901Z",
        "status": 0,
        "data": {"customer": {"name": "Ann", "born": T0.replace(microsecond=0, tzinfo=None)}, "lines": [1]},
        "revision": 0,
        "inbox_sequence": 0,
        "pointers": {"1": {"step_id": "charge", "status": 1}},
    }


def test_what_bson_holds_exactly_is_stored_as_its_own_type(
    provider: PersistenceProvider, instances: Documents
) -> None:
    whole, exact_id = T0.replace(microsecond=123000), UUID(int=7)
    data = {
        "price": Decimal("12.50"),
        "raw": b"\0\xff",
        "at": whole,
        "key": exact_id,
        "finer": T0,
        "longer": Decimal("1." + "3" * 40),
        "pair": (whole, 1),
    }
    instance = created(provider, data=codec.encode_data(data))
    stored = instances.find_one({"_id": instance.id})
    assert stored is not None
    assert stored["data"] == {
        "price": Decimal128("12.50"),
        "raw": b"\0\xff",
        "at": whole.replace(tzinfo=None),
        "key": Binary.from_uuid(exact_id),
        "finer": {"~": "datetime", "value": "2026-01-02T03:04:05.678901Z"},
        "longer": {"~": "decimal", "value": "1." + "3" * 40},
        "pair": {"~": "tuple", "value": [whole.replace(tzinfo=None), 1]},
    }
    assert vars(codec.decode_data(loaded(provider, instance.id).data, None)) == data


def test_a_newer_format_is_not_guessed(provider: PersistenceProvider, instances: Documents) -> None:
    newer, fine = created(provider), created(provider)
    instances.update_one({"_id": newer.id}, {"$set": {"format": 2}})
    found = provider.load([newer.id, fine.id])
    assert isinstance(found[newer.id], InstanceUnreadableError)
    assert found[fine.id] == fine
    with pytest.raises(InstanceUnreadableError):
        provider.request(newer.id, _request(), T0)


def test_what_is_left_of_a_finished_activity_is_a_mark(
    provider: PersistenceProvider, instances: Documents
) -> None:
    stored = instances.database[instances.name.replace("instances", "activities")]
    provider.offer_activities([Activity("a", "paint", {"wall": 1}, T0, "i")])
    mark = {"_id": "a", "format": 1, "name": "paint", "time": "2026-01-02T03:04:05.678901Z"}
    offered = {**mark, "parameters": {"wall": 1}, "instance_id": "i", "done": False}
    assert stored.find_one() == offered
    provider.take_activity("paint", "me", "t", T0, after(60))
    provider.release_activity("t")
    assert stored.find_one() == offered
    provider.take_activity("paint", "me", "t", T0, after(60))
    provider.finish_activity("a")
    assert stored.find_one() == {**mark, "instance_id": "i", "done": True}


def test_an_activity_in_a_newer_format_is_not_taken(
    provider: PersistenceProvider, instances: Documents
) -> None:
    stored = instances.database[instances.name.replace("instances", "activities")]
    provider.offer_activities([Activity(key, "paint", None, T0, "i") for key in "ab"])
    stored.update_one({"_id": "a"}, {"$set": {"format": 2}})
    taken = provider.take_activity("paint", "me", "t", T0, after(60))
    assert taken is not None
    assert taken.id == "b"


def test_a_newer_format_is_not_purged(provider: PersistenceProvider, instances: Documents) -> None:
    ended: dict[str, Any] = {"status": WorkflowStatus.COMPLETE, "complete_time": T0}
    newer, fine = created(provider, **ended), created(provider, **ended)
    instances.update_one({"_id": newer.id}, {"$set": {"format": 2}})
    assert provider.purge(WorkflowStatus.COMPLETE, after(1), 10) == 1
    assert provider.load([newer.id, fine.id]).keys() == {newer.id}


def test_what_others_wrote_into_events_and_waits_does_not_keep_old_events_from_being_purged(
    provider: PersistenceProvider, instances: Documents
) -> None:
    waiting = created(provider)
    waits = [{"name": "child", "key": "k"}, 7, {"name": "child"}, {"key": ["k"]}]
    instances.update_one({"_id": waiting.id}, {"$set": {"waits": waits}})
    provider.add_event(Event("kept", "child", "k", T0, processed=T0))
    events = instances.database[instances.name.replace("instances", "events")]
    odd: list[dict[str, Any]] = [
        {},
        {"name": "child"},
        {"name": "child", "key": {"a": 1}},
        {"name": ["child"]},
    ]
    for number, fields in enumerate(odd):
        events.insert_one({"_id": f"odd{number}", "processed": time_to_bson(T0), **fields})
    assert provider.purge_events(after(1), 10, ["child"]) == 5
    assert [event["_id"] for event in events.find()] == ["kept"]


def test_an_instance_is_purged_after_all_that_belongs_to_it(mongo_url: str, prefix: str) -> None:
    queries = _Queries()
    for provider in opened(mongo_url, prefix, event_listeners=[queries]):
        created(provider, status=WorkflowStatus.COMPLETE, complete_time=T0)
        provider.purge(WorkflowStatus.COMPLETE, after(1), 10)
        deleted = [command["delete"] for command in queries.commands if "delete" in command]
        parts = ("history", "errors", "items", "activities", "instances")
        assert deleted == [f"{prefix}.{part}" for part in parts]


@pytest.mark.parametrize(
    "change",
    [
        {"status": 77},
        {"create_time": "yesterday"},
        {"pointers": {"x": {}}},
        {"pointers": {"1": {"status": 1}}},
        {"pointers": 5},
        {"data": {"id": ObjectId("0123456789ab0123456789ab")}},
        {"version": None, "workflow_definition_id": None},
    ],
    ids=str,
)
def test_what_cannot_be_read_spoils_nothing_else(
    provider: PersistenceProvider, instances: Documents, change: dict[str, Any]
) -> None:
    broken, fine = created(provider), created(provider)
    instances.update_one({"_id": broken.id}, {"$set": change})
    found = provider.load([broken.id, fine.id])
    assert isinstance(found[broken.id], DataError)
    assert found[fine.id] == fine


def test_dates_that_python_has_not_are_data_errors(
    provider: PersistenceProvider, instances: Documents
) -> None:
    broken, fine = created(provider), created(provider)
    date = Int64(2**60)
    instances.update_one({"_id": broken.id}, [{"$set": {"data": {"date": {"$toDate": {"$literal": date}}}}}])
    found = provider.load([broken.id, fine.id])
    assert isinstance(found[broken.id], DataError)
    assert found[fine.id] == fine


def test_one_that_cannot_be_stored_is_rejected_alone(provider: PersistenceProvider) -> None:
    bad = [
        {"huge": "x" * (17 * 1024 * 1024)},
        {"text": "\ud800"},
        {"number": 2**63},
        {"deep": _nested(200)},
        {"": 1},
    ]
    stored = [created(provider) for _ in range(len(bad) + 1)]
    transitions = [step(one, data_set=data) for one, data in zip(stored, [*bad, {"a": 1}], strict=True)]
    assert provider.commit(transitions) == [Outcome.REJECTED] * len(bad) + [Outcome.COMMITTED]
    assert [loaded(provider, one.id).revision for one in stored] == [0] * len(bad) + [1]
    with pytest.raises(DataError, match="workflow"):
        provider.create([new_instance(data=bad[0])])


def test_a_document_that_grows_too_large_is_rejected_alone(provider: PersistenceProvider) -> None:
    half = "x" * (9 * 1024 * 1024)
    large, fine = created(provider, data={"a": half}), created(provider)
    transitions = [step(large, data_set={"b": half}), step(fine)]
    assert provider.commit(transitions) == [Outcome.REJECTED, Outcome.COMMITTED]
    assert loaded(provider, large.id).revision == 0


def test_errors_are_bounded(provider: PersistenceProvider, monkeypatch: pytest.MonkeyPatch) -> None:
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


# ---------------------------------------------------------------------------------- large collections


@pytest.fixture
def chunks(instances: Documents) -> Documents:
    """The collection of the parts of large lists."""
    return instances.database[instances.name.replace("instances", "items")]


def test_a_large_collection_is_not_in_the_document(
    provider: PersistenceProvider, instances: Documents, chunks: Documents
) -> None:
    instance = created(provider, items={"1": large("a")})
    provider.commit([step(instance, items_set={"2": large("b", 30_000), "3": [1]})])
    document = instances.find_one()
    assert document is not None
    assert len(bson.encode(document)) < 100_000
    assert document["items"]["3"] == [1]
    sizes = [len(bson.encode(chunk)) for chunk in chunks.find()]
    assert len(sizes) == 2 + 4
    assert max(sizes) < 1_200_000
    assert {chunk["format"] for chunk in chunks.find()} == {1}


def test_64_kilobytes_stay_in_the_document(provider: PersistenceProvider, chunks: Documents) -> None:
    created(provider, items={"1": ["x" * 65_000], "2": []})
    assert chunks.count_documents({}) == 0
    created(provider, items={"1": ["x" * 65_000, "y" * 1000]})
    assert chunks.count_documents({}) == 1


def test_chunks_go_when_the_collection_is_removed(provider: PersistenceProvider, chunks: Documents) -> None:
    items = {"1": large("a"), "11": large("b")}
    one, two = created(provider, items=items), created(provider, items=items)
    # What a commit that lost has left there goes along.
    winner, loser = step(one), step(one, items_set=items)
    assert provider.commit([winner]) == [Outcome.COMMITTED]
    assert provider.commit([loser]) == [Outcome.CONFLICT]
    winner.apply(one)
    assert provider.commit([replace(step(one, items_removed=["1"]), revision=7)]) == [Outcome.CONFLICT]
    assert chunks.count_documents({}) == 12
    assert provider.commit([step(one, items_removed=["1"])]) == [Outcome.COMMITTED]
    left = {(chunk["_id"]["instance"], chunk["_id"]["pointer"]) for chunk in chunks.find()}
    assert left == {(one.id, "11"), (two.id, "1"), (two.id, "11")}
    assert loaded(provider, two.id) == two


def test_an_item_that_is_too_large_is_rejected(provider: PersistenceProvider, chunks: Documents) -> None:
    instance, fine = created(provider), created(provider)
    too_large: list[codec.Plain] = [*large("a"), "x" * (16 * 1024 * 1024)]
    transitions = [step(instance, items_set={"1": too_large}), step(fine, items_set={"1": [*large("b")]})]
    assert provider.commit(transitions) == [Outcome.REJECTED, Outcome.COMMITTED]
    assert {chunk["_id"]["instance"] for chunk in chunks.find()} == {fine.id}
    with pytest.raises(DataError, match="workflow"):
        provider.create([new_instance(), new_instance(items={"1": too_large})])
    assert len(provider.list(ListFilter()).items) == 2


def test_a_collection_of_more_than_a_document_holds(provider: PersistenceProvider, chunks: Documents) -> None:
    instance = created(provider)
    items = {"1": ["x" * (9 * 1024 * 1024), "y" * (9 * 1024 * 1024)]}
    assert provider.commit([step(instance, items_set=items)]) == [Outcome.COMMITTED]
    assert chunks.count_documents({}) == 2
    assert loaded(provider, instance.id).items == items


@pytest.mark.parametrize(
    "marker",
    [
        {"revision": 0},
        {"revision": "x", "token": "t", "chunks": 1},
        {"revision": 0, "token": "", "chunks": 1},
        5,
    ],
    ids=str,
)
def test_a_collection_whose_chunks_are_not_there_spoils_nothing_else(
    provider: PersistenceProvider, instances: Documents, marker: Any
) -> None:
    broken, fine = created(provider), created(provider, items={"1": large("a")})
    instances.update_one({"_id": broken.id}, {"$set": {"items": {"1": marker}}})
    found = provider.load([broken.id, fine.id])
    assert isinstance(found[broken.id], DataError)
    assert found[fine.id] == fine


def test_a_chunk_that_cannot_be_read_spoils_nothing_else(
    provider: PersistenceProvider, chunks: Documents
) -> None:
    broken, gone, fine = (created(provider, items={"1": large("a")}) for _ in range(3))
    date = {"$toDate": {"$literal": Int64(2**60)}}
    chunks.update_one({"_id.instance": broken.id, "_id.chunk": 1}, [{"$set": {"items": [date]}}])
    chunks.delete_one({"_id.instance": gone.id, "_id.chunk": 1})
    found = provider.load([broken.id, gone.id, fine.id])
    for one in (broken, gone):
        with pytest.raises(DataError, match=f"{one.id}.*items.1"):
            raise found[one.id]  # type: ignore[misc]
    assert found[fine.id] == fine


def test_large_collections_cost_one_more_query(mongo_url: str, prefix: str) -> None:
    queries = _Queries()
    for provider in opened(mongo_url, prefix, event_listeners=[queries]):
        many = [created(provider, items={"1": large("a"), "2": large("b")}) for _ in range(3)]
        small = created(provider, items={"1": [1]})
        for ids, expected in (([small.id], 1), ([small.id, *(one.id for one in many)], 2)):
            queries.commands.clear()
            assert len(provider.load(ids)) == len(ids)
            assert len(queries.commands) == expected


def test_a_collection_that_is_removed_while_it_is_loaded(mongo_url: str, prefix: str) -> None:
    removals: list[Callable[[], object]] = []

    class BeforeChunksAreRead(_Queries):
        def started(self, event: Any) -> None:
            if event.command.get("find") == f"{prefix}.items" and removals:
                removals.pop()()

    for provider in opened(mongo_url, prefix, event_listeners=[BeforeChunksAreRead()]):
        for other in opened(mongo_url, prefix):
            instance = created(provider, items={"1": large("a"), "2": large("b")})
            removed = step(instance, items_removed=["1"])
            removals.append(lambda: other.commit([removed]))  # noqa: B023
            found = loaded(provider, instance.id)
            assert (found.revision, found.items) == (1, {"2": large("b")})


# -------------------------------------------------------------------------------------------- options


def test_prefixes_share_nothing(provider: PersistenceProvider, mongo_url: str, prefix: str) -> None:
    instance = created(provider, wake_at=T0)
    for other in opened(mongo_url, f"{prefix}x"):
        assert other.load([instance.id]) == {}
        assert other.next_due() is None
        assert other.create([instance]) == [True]


def test_the_database_is_that_of_the_argument_the_path_or_the_default(mongo_url: str, prefix: str) -> None:
    server = mongo_url.rpartition("/")[0]
    for url, database in ((f"{server}/{prefix}", None), (server, prefix), (f"{server}/other", prefix)):
        provider = MongoPersistenceProvider(url, database, prefix="p")
        provider.open()
        with pymongo.MongoClient[dict[str, Any]](url) as client:
            assert "p.instances" in client[prefix].list_collection_names()
            client.drop_database(prefix)
        provider.close()


def test_what_is_confirmed_is_durable_unless_the_url_says_otherwise(mongo_url: str, prefix: str) -> None:
    concerns = []
    for url in (mongo_url, f"{mongo_url}?w=1&journal=false"):
        for provider in opened(url, prefix):
            written = provider._store.collections.instances
            concerns.append((written.write_concern.document, written.read_concern.document))
    assert concerns == [
        ({"w": "majority", "j": True, "wtimeout": 10_000}, {"level": "majority"}),
        ({"w": 1, "j": False, "wtimeout": 10_000}, {"level": "local"}),
    ]
    for more in ("w=0", "w=0&journal=false"):
        with pytest.raises(ProviderError):
            MongoPersistenceProvider(f"{mongo_url}?{more}").open()


def test_secrets_are_not_told(mongo_url: str) -> None:
    address = mongo_url.removeprefix("mongodb://")
    password = "pa55w0rd"
    urls = [
        f"mongodb://me:{password}@127.0.0.1:1/?serverSelectionTimeoutMS=50",
        f"mongodb://me:{password}/x@127.0.0.1:1/",
        f"mongodb://me:{password}@x@127.0.0.1:1/",
        f"mongodb://me:{password}@127.0.0.1:1/?w=wrong&journal=wrong",
        f"mongodb://me:{password}@{address}",
    ]
    for url in urls:
        provider = MongoPersistenceProvider(url)
        assert password not in repr(provider)
        with pytest.raises(ProviderError) as raised:
            provider.open()
        told: BaseException | None = raised.value
        while told is not None:
            assert password not in f"{told} {told!r}"
            told = told.__cause__
        provider.close()


def test_an_impossible_option_is_a_provider_error(mongo_url: str) -> None:
    impossible: list[dict[str, Any]] = [{"maxPoolSize": -1}, {"nonsense": object()}, {"tls": "x"}]
    providers = [MongoPersistenceProvider(mongo_url, **options) for options in impossible]
    for provider in [*providers, MongoPersistenceProvider(f"{mongo_url}?nonsense=1")]:
        with pytest.raises(ProviderError) as raised:
            provider.open()
        assert not isinstance(raised.value, StoreUnavailableError)


def test_a_provider_that_is_not_open_says_so(mongo_url: str) -> None:
    provider = MongoPersistenceProvider(mongo_url)
    provider.close()
    for call in (provider.now, provider.next_due, lambda: provider.commit([])):
        with pytest.raises(ProviderError, match="not open"):
            call()


# -------------------------------------------------------------------------------------------- indexes


class _Queries(CommandListener):
    """Keeps what the provider asks the server for."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: Any) -> None:
        name = event.command_name
        if name in ("find", "findAndModify"):
            command = {key: value for key, value in event.command.items() if key in _EXPLAINED}
            self.commands.append(command)
        if name == "aggregate":
            self.commands.append(
                {key: event.command[key] for key in ("aggregate", "pipeline", "hint", "cursor")}
            )
        if name in ("update", "delete"):
            for single in event.command[f"{name}s"]:
                self.commands.append({name: event.command[name], f"{name}s": [single]})

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


_EXPLAINED = (
    *("find", "filter", "projection", "sort", "limit", "skip", "hint"),
    *("findAndModify", "query", "update", "new"),
)

_PARKED = Parked("missing", T0, "order 1")
_PROCESS = ProcessRecord("p", "node", 1, "0.1.0", T0, T0, after(15))

QUERIES: dict[str, Callable[[PersistenceProvider], Any]] = {
    "next_due": lambda p: p.next_due(),
    "hold_due": lambda p: p.hold_due(T0, lambda due: after(60), 10),
    "hold_events": lambda p: p.hold_events(T0, after(60), 10),
    "events": lambda p: p.events([Wait("paid", "k7", T0, "1")], T0, 10),
    "waiting_for": lambda p: p.waiting_for("paid", "k7", "", 10),
    "waiting for what many wait for": lambda p: p.waiting_for("common", "c", "5", 10),
    "parked": lambda p: p.parked("order", 1, "", 10),
    "definitions": lambda p: p.definitions("order"),
    "history": lambda p: p.history("x"),
    "errors": lambda p: p.errors("x", 10),
    "lower_wake": lambda p: p.lower_wake({"x": T0}),
    "move_wake": lambda p: p.move_wake([WakeMove("x", 1, 0, T0, T0), WakeMove("x", 1, 0, None, None)]),
    "commit": lambda p: p.commit([step(new_instance())]),
    "request": lambda p: p.request("x", _request(), T0),
    "take_activity": lambda p: p.take_activity("paint", "me", "t", after(10), after(60)),
    "activity": lambda p: p.activity("t7"),
    "release_activity": lambda p: p.release_activity("t7"),
    "finish_activity": lambda p: p.finish_activity("x"),
    "withdraw_activities": lambda p: p.withdraw_activities(["x", "y"]),
    "forget_definition": lambda p: p.forget_definition("x", 1),
    "beat": lambda p: p.beat(_PROCESS),
    "processes": lambda p: p.processes(),
    "forget_processes": lambda p: p.forget_processes(["x", "y"]),
    "list": lambda p: p.list(ListFilter(limit=10)),
    "list after a cursor": lambda p: p.list(ListFilter(limit=10, cursor=p.list(ListFilter(limit=10)).next)),
    "list by status": lambda p: p.list(ListFilter(limit=10, status=WorkflowStatus.SUSPENDED)),
    "list by workflow": lambda p: p.list(ListFilter(limit=10, workflow="order")),
    "list by workflow and status": lambda p: p.list(
        ListFilter(limit=10, workflow="order", status=WorkflowStatus.COMPLETE, created_after=T0)
    ),
    "list by reference": lambda p: p.list(ListFilter(limit=10, reference="r7")),
    "list parked": lambda p: p.list(ListFilter(limit=10, parked=True)),
    "load": lambda p: p.load(["large"]),
    "commit that removes items": lambda p: p.commit([step(loaded(p, "large"), items_removed=["1"])]),
    "purge": lambda p: p.purge(WorkflowStatus.COMPLETE, after(1000), 10),
    "purge_events": lambda p: p.purge_events(after(0), 10, ["paid"]),
    "list by time": lambda p: p.list(ListFilter(limit=10, created_after=T0, created_before=after(9))),
}

MOST_READ = 35
"""Documents that a query for at most 10 may read: far fewer than there are."""


def test_every_query_is_served_by_an_index(mongo_url: str, prefix: str) -> None:
    queries = _Queries()
    for provider in opened(mongo_url, prefix, event_listeners=[queries]):
        _populate(provider)
        with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
            database = client.get_default_database()
            for name, call in QUERIES.items():
                queries.commands.clear()
                call(provider)
                assert queries.commands, name
                for command in queries.commands:
                    explained = database.command("explain", command, verbosity="executionStats")
                    stages = set(_stages(explained["executionStats"]["executionStages"]))
                    assert not stages & {"COLLSCAN", "SORT"}, (name, command, stages)
                    read = explained["executionStats"]["totalDocsExamined"]
                    assert read <= MOST_READ, (name, command, read)
                    keys = explained["executionStats"]["totalKeysExamined"]
                    assert keys <= 3 * MOST_READ, (name, command, keys)


def test_counts_are_made_along_indexes(mongo_url: str, prefix: str) -> None:
    """They read the keys or documents that they count, and no others."""
    queries = _Queries()
    for provider in opened(mongo_url, prefix, event_listeners=[queries]):
        _populate(provider)
        queries.commands.clear()
        provider.survey(T0)
        counts = [command for command in queries.commands if "aggregate" in command]
        with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
            database = client.get_default_database()
            # 200 are open, 40 are parked, and some 100 are overdue.
            for command, most_keys, most_read in zip(counts, (210, 50, 110), (0, 40, 101), strict=True):
                explained = database.command("explain", command, verbosity="executionStats")
                found = explained["stages"][0]["$cursor"] if "stages" in explained else explained
                plan = found["queryPlanner"]["winningPlan"]
                assert not set(_stages(plan.get("queryPlan", plan))) & {"COLLSCAN", "SORT"}, (command, plan)
                assert found["executionStats"]["totalDocsExamined"] <= most_read, command
                assert found["executionStats"]["totalKeysExamined"] <= most_keys, command


def _populate(provider: PersistenceProvider) -> None:
    """Some of everything, among many that have ended."""
    ended = [
        new_instance(
            status=WorkflowStatus.COMPLETE,
            create_time=after(n / 10),
            complete_time=after(n),
            reference=f"r{n % 50}",
        )
        for n in range(400)
    ]
    waiting = [
        new_instance(status=WorkflowStatus(n % 2), create_time=after(n), wake_at=after(n - 100))
        for n in range(200)
    ]
    provider.create([*ended, *waiting, new_instance(id="large", items={"1": large("a")})])
    provider.commit(
        [
            step(
                one, wake_at=one.wake_at, waits=[Wait("paid", f"k{n}", T0, "1"), Wait("common", "c", T0, "2")]
            )
            for n, one in enumerate(waiting)
        ]
    )
    for instance in [*ended[:20], *waiting[:20]]:
        provider.park(instance.id, -1, _PARKED)
    for number in range(100):
        provider.add_event(Event(new_id(), "paid", f"k{number % 10}", after(-number)))
        provider.add_event(Event(new_id(), "seen", "k", T0, processed=after(-number)))
    activities = [Activity(new_id(), "paint", number, after(number), "x") for number in range(300)]
    for number, activity in enumerate(activities[:200]):
        activity.done = number < 150
        if not activity.done:
            activity.token, activity.until = f"t{number - 150}", after(60)
    provider.offer_activities(activities)


def _stages(stage: dict[str, Any]) -> Iterator[str]:
    """The names of all stages of a plan."""
    if "stage" in stage:
        yield stage["stage"]
    for key, value in stage.items():
        if key.startswith("input") or key == "shards":
            for inner in value if isinstance(value, list) else [value]:
                yield from _stages(inner)


def _nested(depth: int) -> codec.Plain:
    value: codec.Plain = 1
    for _ in range(depth):
        value = [value]
    return value


def _request() -> Request:
    return Request("suspend", "r", T0)
