"""Hostile messages through a real RabbitMQ into a real store: the worker lives, and does the next one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pika
import pymongo
import pytest
from fuzz import messages
from pika.exceptions import AMQPError
from pika.spec import BasicProperties
from servers import wait_for

from liteflow.core import Settings, Workflow, WorkflowBuilder, WorkflowHost
from liteflow.core.models import Instance
from liteflow.providers.mongo.documents import event_from_document
from liteflow.worker.gateway import Gateway
from liteflow.worker.wiring import Servers

MESSAGES = 400
SEED = 20_260_102


class Raw(BasicProperties):
    """Properties that are sent as these bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw

    def encode(self) -> list[bytes]:
        return [self.raw]


class Order(Workflow):
    id = "order"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.then(lambda context: None)


class Sender:
    """Publishes, and connects again when the server throws it out."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix, self.thrown_out = url, prefix, 0
        self.connect()

    def connect(self) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(self.url))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def send(self, key: str, body: bytes, properties: BasicProperties) -> bool:
        """True if the server has it."""
        try:
            self.channel.basic_publish(self.prefix, key, body, properties)
            return True
        except (AMQPError, UnicodeError):
            self.thrown_out += 1
            with suppress(AMQPError):
                self.connection.close()
            self.connect()
            return False

    def ask(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        self.channel.basic_consume(
            "amq.rabbitmq.reply-to", lambda ch, m, p, b: answers.append(json.loads(b)), auto_ack=True
        )
        reply = BasicProperties(reply_to="amq.rabbitmq.reply-to")
        self.channel.basic_publish(self.prefix, key, json.dumps(body).encode(), reply)

        def answered() -> bool:
            self.connection.process_data_events(0.05)
            return bool(answers)

        wait_for("an answer", answered, 30)
        return answers[0]


@pytest.fixture
def host(mongo_url: str, amqp_url: str, redis_url: str, prefix: str) -> Iterator[WorkflowHost]:
    host = Servers(mongo_url, amqp_url, redis_url, prefix).host(Settings())
    host.register_workflow(Order)
    host.start()
    serving = host.queue.serve_commands(Gateway(host).handle, 2)  # type: ignore[attr-defined]
    yield host
    serving.cancel()
    host.stop()


def test_a_worker_outlives_hostile_messages(
    host: WorkflowHost, mongo_url: str, amqp_url: str, prefix: str
) -> None:
    sender = Sender(amqp_url, prefix)
    sent = 0
    for number in range(MESSAGES):
        chance = random.Random(f"{SEED}:{number}")
        key = messages.routing_key(chance)
        body, properties = messages.body(chance, key), messages.properties(chance)
        sent += sender.send(key, body, Raw(properties))
    assert sent > MESSAGES // 2
    answer = sender.ask("workflow.start", {"workflow": "order", "reference": "after all"})
    assert host.wait_for_workflow(answer["id"], 30).reference == "after all"

    def at_rest() -> bool:
        depth = sender.channel.queue_declare(f"{prefix}.commands", passive=True).method.message_count
        return bool(depth == 0)

    wait_for("all commands are handled", at_rest, 30)
    with pymongo.MongoClient(mongo_url, tz_aware=True) as client:
        database = client.get_default_database()
        ids = [found["_id"] for found in database[f"{prefix}.instances"].find({}, {"_id": 1})]
        events = list(database[f"{prefix}.events"].find())
    assert len(ids) > 10
    assert len(events) > 10
    assert all(isinstance(found, Instance) for found in host.persistence.load(ids).values())
    for event in events:
        event_from_document(event)
    dead = sender.channel.queue_declare(f"{prefix}.dead", passive=True).method.message_count
    assert dead > 10
    for _ in range(dead):
        _, properties, _ = sender.channel.basic_get(f"{prefix}.dead", auto_ack=True)
        assert properties.headers["x-liteflow-error"] != "internal"
        assert properties.headers["x-liteflow-reason"]
    sender.connection.close()
