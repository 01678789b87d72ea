"""SECURITY.md on real servers: its users can do their work over TLS, and what they must not do is refused."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
from click.testing import CliRunner, Result
from pika.exceptions import ChannelClosedByBroker
from security.secured import PASSWORD, Certificates, SecuredMongo, SecuredRabbit, SecuredRedis
from servers import wait_for

from liteflow.core import (
    ExecutionResult,
    Settings,
    StepExecutionContext,
    Workflow,
    WorkflowBuilder,
    WorkflowErrorHandling,
    WorkflowHost,
    WorkflowStatus,
)
from liteflow.core.errors import ProviderError
from liteflow.providers.mongo import MongoPersistenceProvider
from liteflow.providers.rabbitmq import RabbitMQQueueProvider
from liteflow.providers.redis import RedisLockProvider
from liteflow.worker.cli import main
from liteflow.worker.gateway import Gateway
from liteflow.worker.wiring import Servers

PAGE = (Path(__file__).resolve().parent.parent.parent / "SECURITY.md").read_text()


@dataclass
class Secured:
    """The three servers, with the users that the page describes."""

    mongo: SecuredMongo
    rabbit: SecuredRabbit
    redis: SecuredRedis

    def servers(self, user: str = "worker") -> Servers:
        return Servers(self.mongo.url_of(user), self.rabbit.url_of("worker"), self.redis.url_of("worker"))


def set_up_rabbitmq(server: SecuredRabbit) -> None:
    for line in re.findall(r"^rabbitmqctl (.*)$", PAGE, re.M):
        words = shlex.split(line.replace('"$PASSWORD"', PASSWORD))
        if words != ["delete_user", "guest"]:  # with whom the test looks whether the server answers
            server.control(*words)


def set_up_mongo(server: SecuredMongo) -> None:
    commands = [json.loads(found) for found in re.findall(r"^db\.runCommand\((.*?)\)$", PAGE, re.M | re.S)]
    assert [command["createRole"] for command in commands] == [
        "liteflowWorker", "liteflowClient", "liteflowReader",
    ]  # fmt: skip
    with server.admin() as admin:
        for command in commands:
            role = command["createRole"]
            admin["liteflow"].command(command)
            user = role.removeprefix("liteflow").lower()
            admin["liteflow"].command("createUser", user, pwd=PASSWORD, roles=[role])
        admin["liteflow"].command("createUser", "nobody", pwd=PASSWORD, roles=[])


def set_up_redis(server: SecuredRedis) -> None:
    lines = re.findall(r"^ACL SETUSER (.*)$", PAGE, re.M)
    assert [line.split()[0] for line in lines] == ["worker", "default"]
    with server.admin() as admin:
        everything = f"admin on >{PASSWORD} allkeys allchannels allcommands"
        for line in (everything, *lines):
            admin.execute_command("ACL", "SETUSER", *line.replace(">PASSWORD", f">{PASSWORD}").split())


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    mongo, rabbit, redis = SecuredMongo(certificates), SecuredRabbit(certificates), SecuredRedis(certificates)
    try:
        for server in (mongo, rabbit, redis):
            server.start()
        set_up_mongo(mongo)
        set_up_rabbitmq(rabbit)
        set_up_redis(redis)
        yield Secured(mongo, rabbit, redis)
    finally:
        for server in (mongo, rabbit, redis):
            server.close()


def nap(context: StepExecutionContext) -> ExecutionResult:
    if context.persistence_data is None:
        return ExecutionResult.sleep(timedelta(milliseconds=200), "slept")
    return ExecutionResult.next()


class Order(Workflow):
    """Sleeps, has long lists, errors, children of its own, and waits: all collections are used."""

    id = "order"

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.start_with(nap)
            .for_each(lambda data: ["x" * 30_000] * 40)
            .do(lambda b: b.then(lambda context: None))
            .then(fail_once)
            .on_error(WorkflowErrorHandling.RETRY, 0.1)
            .activity("approve", lambda data: data.amount)
            .wait_for("paid", lambda data: "o-42")
        )


def fail_once(context: StepExecutionContext) -> None:
    if context.attempt == 1:
        raise RuntimeError("once")


@pytest.fixture(scope="module")
def worker(secured: Secured) -> Iterator[WorkflowHost]:
    """A worker and a scheduler, in this process, as the user `worker`."""
    host = secured.servers().host(Settings(poll_interval=1, lease_ttl=5))
    host.register_workflow(Order)
    host.start()
    serving = host.queue.serve_commands(Gateway(host).handle, 2)  # type: ignore[attr-defined]
    yield host
    serving.cancel()
    host.stop()


class Producer:
    """A service without LiteFlow that publishes commands and gets answers by direct reply-to."""

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.channel.confirm_delivery()
        self.answers: list[dict[str, Any]] = []
        self.channel.basic_consume(
            "amq.rabbitmq.reply-to", lambda ch, m, p, b: self.answers.append(json.loads(b)), auto_ack=True
        )

    def ask(self, routing_key: str, body: dict[str, Any]) -> dict[str, Any]:
        self.channel.basic_publish(
            "liteflow", routing_key, json.dumps(body).encode(),
            pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", content_type="application/json"),
        )  # fmt: skip

        def answered() -> bool:
            self.connection.process_data_events(0.05)
            return bool(self.answers)

        wait_for("an answer", answered, 20)
        return self.answers.pop(0)


@pytest.fixture
def producer(secured: Secured, worker: WorkflowHost) -> Iterator[Producer]:
    connection = secured.rabbit.connect("producer")
    yield Producer(connection)
    connection.close()


def run(secured: Secured, user: str, *words: str) -> Result:
    servers = secured.servers(user)
    options = ["--store", servers.store, "--queue", servers.queue, "--lock", servers.lock]
    return CliRunner().invoke(main, [*words, *options])


# ------------------------------------------------------------------------------------- what has to work


def test_a_workflow_completes_with_the_least_permissions(
    worker: WorkflowHost, producer: Producer, secured: Secured
) -> None:
    heard: list[str] = []
    listener = secured.rabbit.connect("listener")
    channel = listener.channel()
    channel.queue_declare("listener.orders", exclusive=True)
    channel.queue_bind("listener.orders", "liteflow.lifecycle", "order.#")
    channel.basic_consume(
        "listener.orders", lambda ch, m, p, b: heard.append(json.loads(b)["kind"]), auto_ack=True
    )
    instance_id = producer.ask("workflow.start", {"workflow": "order", "data": {"amount": 5}})["id"]
    activity = worker.get_pending_activity("approve", timeout=30)
    assert activity is not None
    assert activity.parameters == 5
    worker.submit_activity_success(activity.token, "yes")
    later = {"name": "paid", "key": "o-42", "time": "2999-01-01T00:00:00Z"}
    assert "id" in producer.ask("event.publish", later)
    wait_for(
        "it waits for the event",
        lambda: any(p.event_name == "paid" for p in worker.get_workflow(instance_id).execution_pointers),
        30,
    )
    assert "id" in producer.ask("event.publish", {"name": "paid", "key": "o-42"})
    assert worker.wait_for_workflow(instance_id, 30).status is WorkflowStatus.COMPLETE
    assert [error.message for error in worker.get_errors(instance_id)] == ["once"]

    def completed() -> bool:
        listener.process_data_events(0.05)
        return "completed" in heard

    wait_for("the listener hears of its end", completed, 20)
    assert heard[0] == "started"
    listener.close()


def test_a_client_starts_steers_and_looks(worker: WorkflowHost, secured: Secured) -> None:
    started = run(secured, "client", "start", "order", "--data", '{"amount": 1}')
    assert started.exit_code == 0, started.output
    instance_id = started.stdout.strip()
    for words in (
        ("publish", "nobody", "waits"), ("suspend", instance_id), ("resume", instance_id), ("list",),
        ("show", instance_id), ("terminate", instance_id),
    ):  # fmt: skip
        result = run(secured, "client", *words)
        assert result.exit_code == 0, (words, result.output)


def test_a_reader_looks(worker: WorkflowHost, secured: Secured) -> None:
    instance_id = worker.start_workflow("order", data={"amount": 1})
    for words in (("list",), ("show", instance_id)):
        result = run(secured, "reader", *words)
        assert result.exit_code == 0, (words, result.output)
    assert instance_id in result.stdout
    worker.terminate_workflow(instance_id)


# --------------------------------------------------------------------------------- what must be refused


@pytest.mark.parametrize(
    ("user", "exchange", "routing_key"),
    [
        ("producer", "liteflow", "workflow.terminate"),
        ("producer", "", "liteflow.commands"),
        ("producer", "", "liteflow.events"),
        ("producer", "liteflow.lifecycle", "order.1.completed"),
        ("producer", "liteflow.notify", "due"),
        ("listener", "liteflow", "workflow.start"),
        ("listener", "", "liteflow.commands"),
    ],
)
def test_publishing_elsewhere_is_refused(
    worker: WorkflowHost, secured: Secured, user: str, exchange: str, routing_key: str
) -> None:
    connection = secured.rabbit.connect(user)
    channel = connection.channel()
    channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        channel.basic_publish(exchange, routing_key, b"{}")
    connection.close()


@pytest.mark.parametrize(
    ("user", "queue"),
    [("producer", "liteflow.commands"), ("listener", "liteflow.commands"), ("listener", "liteflow.dead")],
)
def test_reading_elsewhere_is_refused(worker: WorkflowHost, secured: Secured, user: str, queue: str) -> None:
    connection = secured.rabbit.connect(user)
    for act in (
        lambda channel: channel.basic_get(queue),
        lambda channel: channel.queue_delete(queue),
        lambda channel: channel.queue_purge(queue),
        lambda channel: channel.queue_bind(queue, "liteflow", "x"),
    ):
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            act(connection.channel())
    connection.close()


def test_a_message_beyond_the_limit_does_not_get_in(worker: WorkflowHost, secured: Secured) -> None:
    connection = secured.rabbit.connect("producer")
    channel = connection.channel()
    channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker, match="larger than"):
        channel.basic_publish("liteflow", "workflow.start", b"x" * 1_000_001)
    connection.close()


def one_clear_line(result: Result, *words: str) -> None:
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 300
    for word in words:
        assert word in result.stderr
    assert PASSWORD not in result.stderr.replace("password", "")


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("reader", ("start", "order")),
        ("reader", ("publish", "paid", "o-42")),
        ("reader", ("terminate", "x")),
        ("client", ("purge", "--status", "COMPLETE", "--older-than", "0s", "--yes")),
        ("nobody", ("list",)),
    ],
)
def test_what_a_user_of_the_store_must_not_do_fails_with_one_clear_line(
    worker: WorkflowHost, secured: Secured, user: str, words: tuple[str, ...]
) -> None:
    worker.wait_for_workflow(ended_workflow(worker), 20)
    one_clear_line(run(secured, user, *words), "MongoDB", "may not")


def ended_workflow(worker: WorkflowHost) -> str:
    instance_id = worker.start_workflow("order", data={"amount": 1})
    worker.terminate_workflow(instance_id)
    return instance_id


def test_a_producer_is_no_user_of_the_library(worker: WorkflowHost, secured: Secured) -> None:
    provider = RabbitMQQueueProvider(secured.rabbit.url_of("producer"))
    with pytest.raises(ProviderError, match=r"RabbitMQ refuses a declaration: .*ACCESS_REFUSED"):
        provider.open()


def test_redis_lets_nobody_beyond_the_leases(secured: Secured) -> None:
    import redis

    client = redis.Redis.from_url(secured.redis.url_of("worker"))
    for words in (
        ("SET", "liteflow:lease:x", "1"), ("HGET", "other", "x"), ("KEYS", "*"), ("FLUSHALL",),
        ("CONFIG", "GET", "*"), ("EVAL", "return redis.call('HGET', 'other', 'x')", 0),
        ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "liteflow:lease:x"), ("PUBLISH", "x", "y"),
    ):  # fmt: skip
        with pytest.raises(redis.ResponseError, match=r"(?i)permission|can't (access|run)"):
            client.execute_command(*words)
    client.close()
    provider = RedisLockProvider(secured.redis.url_of("worker"), prefix="other")
    with pytest.raises(
        ProviderError, match=r"redis .* the user may not do this .*; leases need it on other:lease:"
    ):
        provider.open()


@pytest.mark.parametrize("command", ["eval", "hget", "hset", "hmget", "del", "pexpire", "pttl"])
def test_each_command_of_the_redis_user_is_needed(secured: Secured, command: str) -> None:
    (line,) = re.findall(r"^ACL SETUSER worker (.*)$", PAGE, re.M)
    assert f" +{command}" in line
    less = line.replace(">PASSWORD", f">{PASSWORD}").replace(f" +{command}", "", 1).split()
    with secured.redis.admin(username="admin", password=PASSWORD) as admin:
        admin.execute_command("ACL", "SETUSER", "less", "reset", *less)
    provider = RedisLockProvider(secured.redis.url_of("less"))
    with pytest.raises(ProviderError, match=r"redis .* the user may not do this .*; leases need it"):
        provider.open()


def test_without_the_authority_or_without_tls_there_is_no_connection(secured: Secured) -> None:
    servers = secured.servers()
    for options in ("", "tls=true&"):
        url = f"{servers.store.partition('?')[0]}?{options}serverSelectionTimeoutMS=500"
        with pytest.raises(ProviderError, match="MongoDB"):
            MongoPersistenceProvider(url).open()
    with pytest.raises(ProviderError, match=r"(?i)certificate"):
        RabbitMQQueueProvider(servers.queue.partition("?")[0], open_timeout=1).open()
    plain = servers.queue.partition("?")[0].replace("amqps", "amqp")
    with pytest.raises(ProviderError, match="can't be reached"):
        RabbitMQQueueProvider(plain, open_timeout=1).open()
    for url in (servers.lock.partition("?")[0], servers.lock.partition("?")[0].replace("rediss", "redis")):
        with pytest.raises(ProviderError, match=r"lock servers|redis"):
            lock = RedisLockProvider(url)
            lock.open()
            lock.acquire(["x"], 1)
