"""Hostile documents in MongoDB: each is a plain error or set aside, and those beside it go on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pymongo
import pytest
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from bson.regex import Regex
from servers import wait_for

from liteflow.core import Settings, StepExecutionContext, Workflow, WorkflowBuilder, WorkflowHost
from liteflow.core.errors import LiteFlowError
from liteflow.core.memory_lock import LocalLockProvider
from liteflow.core.memory_queue import SingleNodeQueueProvider
from liteflow.core.models import EPOCH, Event, Instance, Wait, WorkflowStatus
from liteflow.core.providers import ListFilter
from liteflow.providers.mongo import MongoPersistenceProvider
from liteflow.providers.mongo.documents import instance_from_document

NOW = "2026-01-01T00:00:00.000000Z"
GOOD: dict[str, Any] = {
    "_id": "i", "format": 1, "workflow_definition_id": "w", "version": 1, "create_time": NOW,
    "status": 0, "revision": 3, "inbox_sequence": 0, "reference": "r",
    "data": {"a": 1}, "pointer_sequence": 2,
    "pointers": {"1": {"step_id": "s", "status": 5, "event_name": "n", "event_key": "k", "event_since": NOW}},
    "applied": ["x"], "consumed": [{"wait": "1:n:k", "events": ["e"]}],
    "claims": {"1": {"by": "me", "token": "t", "until": NOW}},
    "inbox": [{"kind": "suspend", "id": "q", "time": NOW, "sequence": 1}],
    "outbox": [{"sequence": 1, "kind": "event", "time": NOW, "body": {}}],
    "items": {"1": [1, 2]},
}  # fmt: skip

WRONG: list[tuple[str, Any]] = [
    ("format", "1"),
    ("format", True),
    ("workflow_definition_id", {"$gt": ""}),
    ("workflow_definition_id", None),
    ("version", "1"),
    ("version", [1]),
    ("create_time", 5),
    ("create_time", "yesterdayZ"),
    ("create_time", datetime(2026, 1, 1, tzinfo=timezone.utc)),
    ("status", 17),
    ("status", "RUNNABLE"),
    ("revision", "3"),
    ("revision", float("nan")),
    ("revision", float("inf")),
    ("reference", {"a": 1}),
    ("reference", Regex(".*")),
    ("data", [1]),
    ("data", {"a": Regex("(a+)+$")}),
    ("data", {"a": DatetimeMS(2**62)}),
    ("data.a~", 1),
    ("data.a", {"~": "decimal", "value": "x"}),
    ("pointers", []),
    ("pointers", {"one": {}}),
    ("pointers.1", None),
    ("pointers.1.step_id", 5),
    ("pointers.1.status", Int64(2**60)),
    ("pointers.1.scope", [{"a": 1}]),
    ("pointers.1.scope", 7),
    ("pointers.1.retry_count", "many"),
    ("pointers.1.event_published", "no"),
    ("pointers.1.event_data", {"~": "uuid", "value": 1}),
    ("applied", [1]),
    ("applied", "x"),
    ("consumed", [{"wait": ["a"], "events": ["e"]}]),
    ("consumed", [{"wait": "a", "events": [5]}]),
    ("claims.1.until", None),
    ("claims.1.token", 5),
    ("inbox", [5]),
    ("outbox", [{"sequence": 1}]),
    ("items", []),
    ("items", {"1": [{"~": "set", "value": 1}]}),
    ("parked", "yes"),
    ("parent", 5),
]


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    inner = changed(document.get(name, {}), rest, value) if rest else value
    return {**document, name: inner}


@pytest.mark.parametrize(("path", "value"), WRONG, ids=str)
def test_an_instance_of_wrong_types_is_a_plain_error(path: str, value: Any) -> None:
    assert isinstance(instance_from_document(GOOD), Instance)
    with pytest.raises(LiteFlowError, match="i"):
        read_all(instance_from_document(changed(GOOD, path, value)))


def read_all(instance: Instance) -> None:
    """What is decoded only when somebody looks at it."""
    from liteflow.core import codec

    codec.decode_data(instance.data, None)
    for pointer in instance.pointers.values():
        codec.decode(pointer.event_data)
    for items in instance.items.values():
        codec.decode(items)


@pytest.fixture
def provider(mongo_url: str, prefix: str) -> Iterator[MongoPersistenceProvider]:
    made = MongoPersistenceProvider(mongo_url, prefix=prefix)
    made.open()
    yield made
    made.close()


@pytest.fixture
def database(mongo_url: str) -> Iterator[Any]:
    with pymongo.MongoClient(mongo_url, datetime_conversion="DATETIME_AUTO") as client:
        yield client.get_default_database()


def stored(provider: MongoPersistenceProvider, instance_id: str) -> Instance:
    instance = Instance(instance_id, "w", 1, EPOCH, wake_at=EPOCH)
    provider.create([instance])
    return instance


def test_an_instance_that_can_not_be_read_does_not_hold_up_the_scheduler(
    provider: MongoPersistenceProvider, database: Any, prefix: str
) -> None:
    for name in ("a", "b", "c", "d", "good"):
        stored(provider, name)
    instances = database[f"{prefix}.instances"]
    instances.update_one({"_id": "a"}, {"$set": {"wake_at": "0"}})
    instances.update_one({"_id": "b"}, {"$set": {"workflow_definition_id": {"a": 1}}})
    instances.update_one({"_id": "c"}, {"$set": {"hold": {"count": "x"}}})
    instances.update_one({"_id": "d"}, {"$unset": {"version": ""}})
    due = provider.hold_due(provider.now(), lambda one: provider.now() + timedelta(seconds=60), 100)
    assert [one.instance_id for one in due] == ["good"]
    assert provider.next_due() is not None
    for name in ("a", "b", "c", "d"):
        found = instances.find_one({"_id": name})
        assert "can't be read" in found["parked"]["reason"], name
        assert "wake_at" not in found
    assert provider.hold_due(provider.now(), lambda one: provider.now(), 100) == []


def test_the_time_of_the_next_one_due_passes_over_what_is_no_time(
    provider: MongoPersistenceProvider, database: Any, prefix: str
) -> None:
    stored(provider, "bad")
    database[f"{prefix}.instances"].update_one({"_id": "bad"}, {"$set": {"wake_at": "2"}})
    database[f"{prefix}.events"].insert_one({"_id": "bad", "due": "2"})
    later = Instance("good", "w", 1, EPOCH, wake_at=datetime(3000, 1, 1, tzinfo=timezone.utc))
    provider.create([later])
    assert provider.next_due() == later.wake_at


def test_an_event_that_can_not_be_read_does_not_hold_up_the_others(
    provider: MongoPersistenceProvider, database: Any, prefix: str
) -> None:
    events = database[f"{prefix}.events"]
    for name, wrong in (
        ("a", {"name": 5}),
        ("b", {"data": DatetimeMS(2**62)}),
        ("c", {"time": "0000"}),
        ("d", {"traceparent": 7}),
    ):
        provider.add_event(Event(name, "n", "k", EPOCH))
        events.update_one({"_id": name}, {"$set": wrong})
    provider.add_event(Event("good", "n", "k", EPOCH))
    assert [event.id for event in provider.hold_events(provider.now(), provider.now(), 100)] == ["good"]
    for name in ("a", "b", "c", "d"):
        found = events.find_one({"_id": name})
        assert "can't be read" in found["parked"]["reason"]
        assert "due" not in found
    wait = Wait("n", "k", datetime.min.replace(tzinfo=timezone.utc), "1")
    assert [event.id for event in provider.events([wait], provider.now(), 100)] == ["good"]


def test_listings_and_definitions_pass_over_what_can_not_be_read(
    provider: MongoPersistenceProvider, database: Any, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "good"):
        stored(provider, name)
    instances = database[f"{prefix}.instances"]
    instances.update_one({"_id": "a"}, {"$set": {"create_time": "x"}})
    instances.update_one({"_id": "b"}, {"$set": {"parked": 5}})
    page = provider.list(ListFilter(limit=10))
    assert [row.id for row in page.items] == ["good"]
    assert "workflow a" in caplog.text
    assert [row.id for row in provider.list(ListFilter(limit=1)).items] == ["good"]
    from liteflow.core.models import DefinitionRecord

    provider.record_definitions([DefinitionRecord("w", 1, "f")])
    definitions = database[f"{prefix}.definitions"]
    definitions.insert_many(
        [
            {"_id": {"workflow": "w", "version": "9"}, "fingerprint": "f"},
            {"_id": "x"},
            {"_id": {"workflow": "w"}},
        ]
    )
    assert provider.definitions() == [DefinitionRecord("w", 1, "f")]
    assert provider.definitions("w") == [DefinitionRecord("w", 1, "f")]


class Greet(Workflow):
    id = "greet"

    def build(self, builder: WorkflowBuilder) -> None:
        def greet(context: StepExecutionContext) -> None:
            context.data.greeting = f"Hello, {context.data.name}"

        builder.wait_for("go", "k").then(greet)


WRONG_IN_ITSELF: dict[str, dict[str, Any]] = {
    "a step that the definition does not have": {"pointers.1.step_id": "nowhere"},
    "a scope that is not there": {"pointers.1.scope": ["77"]},
    "itself as its scope": {"pointers.1.scope": ["1"]},
    "a pointer that is no number": {"pointers.x": {"step_id": "greet", "status": 0}},
    "another definition": {"workflow_definition_id": "unheard of"},
    "data of wrong types": {"data": {"name": {"~": "decimal", "value": "x"}}},
    "data that is no object": {"data": 5},
    "a request of no known kind": {
        "inbox": [{"kind": "__import__('os')", "id": "x", "time": NOW, "sequence": 1}], "inbox_sequence": 1,
    },
    "a result of nothing": {
        "inbox": [{"kind": "result", "id": "x", "time": NOW, "sequence": 1, "arguments": {"a": 1}}],
        "inbox_sequence": 1,
    },
    "an outbox of no known kind": {
        "outbox": [{"sequence": 1, "kind": "os.system", "time": NOW, "body": "x"}],
    },
}  # fmt: skip


def test_hostile_instances_and_events_do_not_keep_the_others_from_their_end(
    mongo_url: str, prefix: str, database: Any
) -> None:
    provider = MongoPersistenceProvider(mongo_url, prefix=prefix)
    host = WorkflowHost(
        provider,
        SingleNodeQueueProvider(),
        LocalLockProvider(),
        Settings(allow_local_lock=True, poll_interval=0.2, wake_grace=0.5, concurrency=2),
    )
    host.register_workflow(Greet)
    instances = database[f"{prefix}.instances"]
    with host:
        hostile = {name: host.start_workflow("greet", data={"name": name}) for name in WRONG_IN_ITSELF}
        good = [host.start_workflow("greet", data={"name": n}) for n in range(20)]

        def waiting() -> bool:
            return instances.count_documents({"waits": {"$exists": True}}) == len(hostile) + len(good)

        wait_for("all wait", waiting, 30)
        for name, instance_id in hostile.items():
            change = {**WRONG_IN_ITSELF[name], "wake_at": NOW}
            instances.update_one({"_id": instance_id}, {"$set": change})
        database[f"{prefix}.events"].insert_one(
            {"_id": "hostile", "name": "go", "key": "k", "time": "2026-01-01T00:00:00.000000Z", "due": "x"}
        )
        host.publish_event("go", "k")
        for instance_id in good:
            assert host.wait_for_workflow(instance_id, timeout=30).status is WorkflowStatus.COMPLETE

        def going_on() -> set[str]:
            ids = {instance_id: name for name, instance_id in hostile.items()}
            still = {"_id": {"$in": list(ids)}, "status": 0, "parked": {"$exists": False}}
            return {ids[found["_id"]] for found in instances.find(still)}

        # Data that can't be decoded fails the step that reads it, which is tried again later, like any
        # other.
        later = {"data of wrong types"}
        wait_for("the others are parked or have ended", lambda: going_on() == later, 20)
        errors = host.get_errors(hostile["data of wrong types"])
        assert errors[0].type == "DataError"
