"""The AsyncAPI document says what the code does: names, bodies, answers, error codes, events."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pika
import pytest
import yaml
from servers import wait_for

import liteflow.core.hooks
import liteflow.providers.rabbitmq.commands
import liteflow.worker.gateway
from liteflow.core import (
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowHost,
    configure_workflow_host,
)
from liteflow.core.codec import MAX_DEPTH
from liteflow.core.commands import Answer, Command, Refusal
from liteflow.core.lifecycle import LifecycleMessage
from liteflow.core.outbox import lifecycle_message
from liteflow.providers.rabbitmq import RabbitMQQueueProvider
from liteflow.providers.rabbitmq.topology import Topology
from liteflow.worker.gateway import MAX_BODY, MAX_NAME, Gateway

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "asyncapi.yaml").read_text())
COMPONENTS = DOCUMENT["components"]
SCHEMAS = COMPONENTS["schemas"]
COMMANDS = {
    DOCUMENT["channels"][operation["channel"]["$ref"].rpartition("/")[2]]["address"]: operation
    for operation in DOCUMENT["operations"].values()
    if operation["action"] == "receive"
}
ORDER_ID = "90e81013-d071-52d5-b170-1bbec1ba96a2"


def resolve(reference: str) -> Any:
    value: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        value = value[part]
    return value


def message_of(operation: dict[str, Any]) -> dict[str, Any]:
    (reference,) = operation["messages"]
    found: dict[str, Any] = resolve(resolve(reference["$ref"])["$ref"])
    return found


def valid(schema: str, value: Any) -> bool:
    return not problems({"$ref": f"#/components/schemas/{schema}"}, value)


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value; references are into the document."""
    whole = {"components": COMPONENTS, "allOf": [schema]}
    return [error.message for error in jsonschema.Draft7Validator(whole).iter_errors(value)]


class Order(Workflow):
    id = "order"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.wait_for("paid", lambda data: "o-42")


@pytest.fixture
def host() -> Iterator[WorkflowHost]:
    made = configure_workflow_host()
    made.register_workflow(Order)
    made.open()
    yield made
    made.stop()


@pytest.fixture
def gateway(host: WorkflowHost) -> Gateway:
    return Gateway(host)


def send(gateway: Gateway, routing_key: str, payload: Any, **properties: Any) -> Answer | Refusal:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return gateway.handle(Command(routing_key, body, **properties))


def body_of(outcome: Answer | Refusal) -> dict[str, Any]:
    if isinstance(outcome, Answer):
        return outcome.body
    return {"error": outcome.code, "reason": outcome.reason}


# ------------------------------------------------------------------------------------------- structure


def test_it_has_what_asyncapi_requires() -> None:
    assert re.fullmatch(r"3\.0\.\d+", DOCUMENT["asyncapi"])
    assert DOCUMENT["info"]["title"]
    assert DOCUMENT["info"]["version"]
    assert DOCUMENT["defaultContentType"] == "application/json"
    for server in DOCUMENT["servers"].values():
        assert server["host"]
        assert server["protocol"] == "amqp"
    for channel in DOCUMENT["channels"].values():
        assert channel["messages"]
        assert set(channel.get("parameters", ())) == set(re.findall(r"{(\w+)}", channel["address"] or ""))
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = resolve(operation["channel"]["$ref"])
        for reference in operation["messages"]:
            assert reference["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
            assert resolve(reference["$ref"]) in channel["messages"].values()


def test_all_references_lead_somewhere_and_stand_alone() -> None:
    def walk(value: Any) -> int:
        if isinstance(value, dict):
            if "$ref" in value:
                assert len(value) == 1, f"what stands beside a reference is ignored: {value}"
                assert resolve(value["$ref"]) is not None
            return ("$ref" in value) + sum(walk(item) for item in value.values())
        return sum(walk(item) for item in value) if isinstance(value, list) else 0

    assert walk(DOCUMENT) > 50


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", sorted(COMPONENTS["messages"]))
def test_examples_fit_their_schemas(name: str) -> None:
    message = COMPONENTS["messages"][name]
    traits = [resolve(trait["$ref"]) for trait in message.get("traits", ())]
    headers = [part["headers"] for part in (message, *traits) if "headers" in part]
    assert message["examples"]
    for example in message["examples"]:
        assert problems(message["payload"], example["payload"]) == []
        for schema in headers:
            assert problems(schema, example.get("headers", {})) == []
    names = {example["name"] for example in message["examples"]}
    for example_name, properties in message.get("x-amqp-examples", {}).items():
        assert example_name in names
        assert valid("CommandProperties", properties)


# ------------------------------------------------------------------------------------ names on the server


def test_names_are_those_of_the_default_prefix() -> None:
    topology = Topology("liteflow", "quorum")
    channels = DOCUMENT["channels"]
    for routing_key in COMMANDS:
        (channel,) = (c for c in channels.values() if c["address"] == routing_key)
        assert resolve(channel["bindings"]["$ref"])["amqp"]["exchange"]["name"] == topology.commands
    assert channels["lifecycle"]["bindings"]["amqp"]["exchange"]["name"] == topology.lifecycle
    assert channels["deadLetters"]["bindings"]["amqp"]["queue"]["name"] == topology.dead
    assert channels["deadLetters"]["address"] == topology.dead
    assert channels["deadLetters"]["x-amqp-exchange"]["name"] == topology.dead


def test_exchanges_are_on_the_server_as_described(amqp_url: str, prefix: str) -> None:
    provider = RabbitMQQueueProvider(amqp_url, prefix=prefix)
    provider.open()
    provider.close()
    described = [
        COMPONENTS["channelBindings"]["commands"]["amqp"]["exchange"],
        DOCUMENT["channels"]["lifecycle"]["bindings"]["amqp"]["exchange"],
        DOCUMENT["channels"]["deadLetters"]["x-amqp-exchange"],
    ]
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        for exchange in described:
            name = exchange["name"].replace("liteflow", prefix)
            channel.exchange_declare(name, passive=True)
            # The server refuses another type or durability for what is there.
            channel.exchange_declare(
                name, exchange["type"], durable=exchange["durable"], auto_delete=exchange["autoDelete"]
            )
        channel.queue_declare(f"{prefix}.dead", passive=True)


# ----------------------------------------------------------------------------------------------- commands


def test_commands_are_those_that_the_gateway_knows(gateway: Gateway) -> None:
    outcome = send(gateway, "no.such", {})
    assert isinstance(outcome, Refusal)
    assert outcome.reason.partition("known are ")[2].split(", ") == sorted(COMMANDS)


def test_the_examples_are_accepted_and_answered_as_shown(gateway: Gateway) -> None:
    """One after another: the instance of the first example is the one that the others steer."""
    shown = {e["name"]: e["payload"] for e in COMPONENTS["messages"]["Done"]["examples"]}
    seen = []
    for routing_key in COMMANDS:
        message = message_of(COMMANDS[routing_key])
        for example in message["examples"]:
            properties = message.get("x-amqp-examples", {}).get(example["name"], {})
            headers = example.get("headers", {})
            outcome = send(gateway, routing_key, example["payload"], headers=headers, **properties)
            assert isinstance(outcome, Answer), outcome
            assert valid("Done", outcome.body)
            if example["name"] in shown:
                assert outcome.body == shown[example["name"]]
                seen.append(example["name"])
            if "id" in example["payload"]:
                assert outcome.body == {"id": example["payload"]["id"]}
    assert sorted(seen) == sorted(shown)


def test_a_trace_is_kept_where_the_document_has_its_header(host: WorkflowHost, gateway: Gateway) -> None:
    traced = {
        routing_key
        for routing_key, operation in COMMANDS.items()
        if {"$ref": "#/components/messageTraits/traced"} in message_of(operation)["traits"]
    }
    assert traced == {"workflow.start", "event.publish"}
    longest = SCHEMAS["TraceHeaders"]["properties"]["traceparent"]["maxLength"]
    kept = []
    for length in (longest, longest + 1):
        outcome = send(
            gateway, "workflow.start", {"workflow": "order"}, headers={"traceparent": "t" * length}
        )
        assert isinstance(outcome, Answer)
        kept.append(host.get_workflow(outcome.body["id"]).record.traceparent)
    assert kept == ["t" * longest, None]


def test_a_request_to_an_ended_instance_is_answered_as_described(
    gateway: Gateway, host: WorkflowHost
) -> None:
    send(gateway, "workflow.start", {"workflow": "order"}, message_id="start-o-42")
    host.start()
    host.terminate_workflow(ORDER_ID)
    assert host.wait_for_workflow(ORDER_ID, 10).status.ended
    outcome = send(gateway, "workflow.suspend", {"id": ORDER_ID})
    (example,) = COMPONENTS["messages"]["Ended"]["examples"]
    assert body_of(outcome) == example["payload"]
    assert valid("Ended", body_of(outcome))
    assert not valid("Done", body_of(outcome))


REFUSED: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "unknown_command": ("order.start", b"{}", {}),
    "malformed": ("workflow.start", b"{", {}),
    "content_type": ("workflow.start", b"{}", {"content_type": "text/xml"}),
    "too_large": ("workflow.start", b" " * (MAX_BODY + 1), {}),
    "missing_field": ("event.publish", b'{"name": "paid"}', {}),
    "bad_field": ("workflow.start", b'{"workflow": "order", "version": 0}', {}),
    "bad_data": ("workflow.start", b'{"workflow": "order", "data": {"n": 99999999999999999999}}', {}),
    "unknown_workflow": ("workflow.start", b'{"workflow": "nobody"}', {}),
    "not_found": ("workflow.suspend", b'{"id": "nobody"}', {}),
}


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_refusals_are_as_described(gateway: Gateway, code: str) -> None:
    routing_key, body, properties = REFUSED[code]
    outcome = send(gateway, routing_key, body, **properties)
    assert body_of(outcome)["error"] == code
    assert valid("Refused", body_of(outcome))


def test_error_codes_are_those_of_the_code() -> None:
    """First arguments of what makes a refusal, in the gateway and in the transport of commands."""
    found = set()
    for module in (liteflow.worker.gateway, liteflow.providers.rabbitmq.commands):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id in ("Refusal", "_Refused") and isinstance(first, ast.Constant):
                    found.add(first.value)
    documented = SCHEMAS["ErrorCode"]["enum"]
    assert found == set(documented) == {*REFUSED, "internal"}
    assert re.findall(r"^- `(\w+)`", SCHEMAS["ErrorCode"]["description"], re.M) == documented


BODIES: list[tuple[str, str, dict[str, Any], bool]] = [
    ("workflow.start", "Start", {"workflow": "order", "version": None, "data": None}, True),
    ("workflow.start", "Start", {"workflow": "order", "reference": "r", "more": [1]}, True),
    ("workflow.start", "Start", {"workflow": "order", "reference": "r" * MAX_NAME}, True),
    ("workflow.start", "Start", {"workflow": "order", "reference": "r" * (MAX_NAME + 1)}, False),
    ("workflow.start", "Start", {"workflow": "order", "reference": ""}, False),
    ("workflow.start", "Start", {"workflow": "order", "reference": "a\0"}, False),
    ("workflow.start", "Start", {"workflow": 1}, False),
    ("workflow.start", "Start", {"workflow": None}, False),
    ("workflow.start", "Start", {"workflow": "order", "version": "1"}, False),
    ("workflow.start", "Start", {"workflow": "order", "version": True}, False),
    ("workflow.start", "Start", {"workflow": "order", "version": 0}, False),
    ("workflow.start", "Start", {"workflow": "order", "data": []}, False),
    ("event.publish", "Publish", {"name": "n", "key": "k", "data": [None, 1.5, "x"]}, True),
    ("event.publish", "Publish", {"name": "n", "key": "k", "time": None}, True),
    ("event.publish", "Publish", {"name": "liteflow.child", "key": "k"}, False),
    ("event.publish", "Publish", {"name": "n", "key": 7}, False),
    ("event.publish", "Publish", {"key": "k"}, False),
    ("event.publish", "Publish", {"name": "n", "key": "k", "time": 7}, False),
    ("workflow.resume", "Control", {"id": ORDER_ID, "reason": None}, True),
    ("workflow.resume", "Control", {"id": ORDER_ID, "reason": ""}, False),
    ("workflow.resume", "Control", {"id": ""}, False),
    ("workflow.resume", "Control", {}, False),
]


@pytest.mark.parametrize(("routing_key", "schema", "payload", "good"), BODIES)
def test_schema_and_gateway_agree(
    gateway: Gateway, routing_key: str, schema: str, payload: dict[str, Any], good: bool
) -> None:
    send(gateway, "workflow.start", {"workflow": "order"}, message_id="start-o-42")
    assert valid(schema, payload) is good
    assert isinstance(send(gateway, routing_key, payload), Answer) is good


def test_limits_are_those_of_the_code() -> None:
    assert SCHEMAS["Text"]["maxLength"] == MAX_NAME
    assert f"at most {MAX_BODY:,} bytes" in DOCUMENT["info"]["description"]
    assert re.search(rf"nested\s+{MAX_DEPTH} deep", DOCUMENT["info"]["description"])


# ------------------------------------------------------------------------------- dead letters and events


def test_headers_of_dead_letters_are_those_of_the_code() -> None:
    source = inspect.getsource(liteflow.providers.rabbitmq.commands)
    headers = SCHEMAS["DeadHeaders"]
    assert set(re.findall(r'"(x-liteflow-[\w-]+)"', source)) == set(headers["properties"])
    longest = headers["properties"]["x-liteflow-reason"]["maxLength"]
    assert longest == liteflow.providers.rabbitmq.commands.MAX_REASON


def lifecycle_kinds() -> set[str]:
    """As the words of `LifecycleEvent` list them."""
    words = inspect.getdoc(liteflow.core.hooks.LifecycleEvent) or ""
    listed = re.search(r"`kind` is (.*?)\.\s", words, re.S)
    assert listed is not None
    return set(re.split(r",\s+|\s+or\s+", listed[1]))


def test_lifecycle_events_are_as_described() -> None:
    """Two lives that make all kinds: one fails, is suspended, resumed and completes, one is terminated."""
    events: list[Any] = []
    tries: list[int] = []

    def fails_once(context: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("not yet")

    class Twice(Workflow):
        id = "twice.two"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(fails_once).on_error(WorkflowErrorHandling.SUSPEND)

    host = configure_workflow_host()
    host.on_lifecycle_event(events.append)
    host.register_workflow(Twice)
    host.register_workflow(Order)
    with host:
        first = host.start_workflow("twice.two", reference="r-1")
        host.wait_for_workflow(first, 10)
        host.resume_workflow(first)
        second = host.start_workflow("order")
        host.terminate_workflow(second)
        wait_for(
            "both have ended",
            lambda: (
                {e.workflow_id for e in events if e.kind in ("completed", "terminated")} == {first, second}
            ),
            10,
        )
    assert {event.kind for event in events} == lifecycle_kinds()
    assert (
        SCHEMAS["Lifecycle"]["properties"]["kind"]["enum"]
        == (DOCUMENT["channels"]["lifecycle"]["parameters"]["kind"]["enum"])
    )
    assert set(SCHEMAS["Lifecycle"]["properties"]["kind"]["enum"]) == lifecycle_kinds()
    for event in events:
        message = lifecycle_message(event)
        payload = json.loads(message.body)
        assert problems({"$ref": "#/components/schemas/Lifecycle"}, payload) == []
        assert payload.keys() <= SCHEMAS["Lifecycle"]["properties"].keys()
        address = DOCUMENT["channels"]["lifecycle"]["address"]
        assert message.routing_key == address.format(**payload)
        assert message.message_id == f"{payload['id']}:{payload['sequence']}"


@pytest.mark.parametrize("lacking", ["step", "error"])
def test_the_schema_of_events_is_not_lax(lacking: str) -> None:
    (example,) = (e for e in COMPONENTS["messages"]["Lifecycle"]["examples"] if e["name"] == "error")
    assert valid("Lifecycle", example["payload"])
    assert not valid("Lifecycle", {k: v for k, v in example["payload"].items() if k != lacking})
    assert not valid("Lifecycle", {**example["payload"], "kind": "vanished"})


# ------------------------------------------------------------------------------------ on a real server


def properties_of(received: pika.BasicProperties) -> dict[str, Any]:
    return {name: value for name, value in vars(received).items() if value is not None}


def test_properties_of_what_comes_back_are_as_described(amqp_url: str, prefix: str, gateway: Gateway) -> None:
    provider = RabbitMQQueueProvider(amqp_url, prefix=prefix)
    provider.open()
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        mine = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(mine, f"{prefix}.lifecycle", "order.*.started")

        def take(queue: str) -> tuple[dict[str, Any], Any]:
            got = wait_for(f"a message in {queue}", lambda: _got(channel.basic_get(queue, auto_ack=True)), 20)
            return properties_of(got[1]), json.loads(got[2])

        try:
            provider.serve_commands(gateway.handle, 1)
            asked = pika.BasicProperties(reply_to=mine, correlation_id="7", message_id="start-o-42")
            channel.basic_publish(prefix, "workflow.start", b'{"workflow": "order"}', asked)
            properties, answer = take(mine)
            assert valid("AnswerProperties", properties)
            assert properties["correlation_id"] == "7"
            assert answer == {"id": ORDER_ID}

            asked = pika.BasicProperties(headers={"mine": "stays"}, expiration="600000")
            channel.basic_publish(prefix, "workflow.start", b"{}", asked)
            properties, body = take(f"{prefix}.dead")
            assert valid("DeadHeaders", properties["headers"])
            assert properties["headers"]["mine"] == "stays"
            assert properties["headers"]["x-liteflow-expiration"] == "600000"
            assert body == {}

            (event,) = (e for e in COMPONENTS["messages"]["Lifecycle"]["examples"] if e["name"] == "started")
            payload = event["payload"]
            message_id = f"{payload['id']}:{payload['sequence']}"
            message = LifecycleMessage("order.1.started", json.dumps(payload).encode(), message_id)
            provider.publish_lifecycle([message])
            properties, body = take(mine)
            assert valid("LifecycleProperties", properties)
            assert body == payload
        finally:
            provider.close()


def _got(got: tuple[Any, Any, Any]) -> tuple[Any, Any, Any] | None:
    return got if got[0] is not None else None
