"""A process that starts workflows, publishes events and steers; or one that does activities.

    python -m chaos.producer producer|activities

Writes down what was accepted. Whatever a server's absence left undone is tried again, under the same
idempotency key, until it is accepted. SIGTERM: begin nothing new, finish what was begun, exit 0.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pika
from chaos.history import SLOT, History

from liteflow.core import Settings, WorkflowHost, WorkflowStatus
from liteflow.core.client import start_id
from liteflow.core.errors import ActivityTokenError, UnavailableError
from liteflow.worker.wiring import Servers

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds after which something that should have been accepted is given up, and written down as such."""

ACTIVITY_LEASE = 4.0
LATE = timedelta(minutes=5)


class Producer:
    """Runs scenarios in threads, each with a random source of its own."""

    def __init__(self, seed: int, pause: float) -> None:
        self.slot = os.environ[SLOT]
        self.history = History.of_environment()
        self.history.note_gaps()
        self.seed = seed
        self.pause = pause
        self.stopping = threading.Event()
        url = os.environ
        servers = Servers(
            url["LITEFLOW_STORE"], url["LITEFLOW_QUEUE"], url["LITEFLOW_LOCK"], url["LITEFLOW_PREFIX"]
        )
        settings = Settings(activity_lease=ACTIVITY_LEASE)
        self.host: WorkflowHost = self.insist("open", lambda: servers.host(settings).open())
        self._count = iter(range(1_000_000_000))

    # -------------------------------------------------------------------------------------------- calls

    def insist(self, what: str, act: Callable[[], T]) -> T:
        """Try until it is done. What is more than a server's absence is written down as a failure."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return act()
            except UnavailableError as exc:
                problem: Exception = exc
            except Exception as exc:
                self.history.write("failed", call=what, error=f"{type(exc).__name__}: {exc}"[:500])
                raise
            if time.monotonic() > deadline:
                self.history.write("failed", call=what, error=f"not within {PATIENCE} s: {problem}"[:500])
                raise problem
            time.sleep(0.2)

    def start(self, workflow: str, **data: Any) -> str:
        """Start an instance; returns its id once it is accepted."""
        reference = f"{self.slot}-{next(self._count)}"
        instance = self.insist(
            f"start {workflow}",
            lambda: self.host.start_workflow(
                workflow, data=data, reference=reference, idempotency_key=reference
            ),
        )
        self.history.write("started", instance=instance, workflow=workflow, reference=reference, data=data)
        return instance

    def publish(self, key: str, number: int, at: datetime | None) -> None:
        """Publish one reading."""
        self.insist(
            "publish",
            lambda: self.host.publish_event("reading", key, number, at, idempotency_key=f"{key}-{number}"),
        )
        self.history.write("published", key=key, number=number)

    def request(self, instance: str, kind: str) -> bool:
        """A control request; False if the instance had ended."""
        request_id = uuid.uuid4().hex
        asked = time.monotonic()
        accepted = self.insist(
            kind, lambda: self.host.request(instance, kind, "chaos", request_id=request_id)
        )
        self.history.write(
            "requested", instance=instance, kind=kind, id=request_id, accepted=accepted, asked=asked
        )
        return accepted

    # ---------------------------------------------------------------------------------------- scenarios

    def mixed(self, random: random.Random) -> None:
        """Any of the workflows that go their way alone."""
        number = random.randrange(1_000_000)
        choices: list[Callable[[], str]] = [
            lambda: self.start("chain"),
            lambda: self.start("loop", rounds=0),
            lambda: self.start("lines", lines=list(range(random.randint(0, 6)))),
            lambda: self.start("branches", seconds=random.choice([0.03, 0.5, 2.5])),
            lambda: self.start("timer", seconds=random.choice([0.5, 2.0, 4.0])),
            lambda: self.start("booking", fails=random.random() < 0.6),
            lambda: self.start("translation", number=number),
            lambda: self.start("parent", number=number),
        ]
        random.choice(choices)()

    def readings(self, random: random.Random) -> None:
        """A burst of events, some before the instance waits, some after; with given times or without."""
        key, count = uuid.uuid4().hex, random.randint(2, 6)
        began = self.host.persistence.now() - LATE
        dated = random.random() < 0.5
        before = random.randint(0, count)
        for number in range(count):
            if number == before:
                self._start_readings(key, count, began)
            self.publish(key, number, began + timedelta(seconds=number) if dated else None)
            if random.random() < 0.3:
                time.sleep(random.random() * 0.5)
        if before == count:
            self._start_readings(key, count, began)

    def _start_readings(self, key: str, count: int, began: datetime) -> None:
        self.start("readings", key=key, count=count, began=began.isoformat(), readings=[])

    def steered(self, random: random.Random) -> None:
        """Suspend an instance, see that it is, and resume it; or terminate it."""
        instance = self.start("steered", rounds=0)
        time.sleep(random.random() * 2)
        if random.random() < 0.4:
            self.request(instance, "terminate")
            return
        if not self.request(instance, "suspend"):
            return
        seen = self._becomes(instance, WorkflowStatus.SUSPENDED)
        self.history.write("suspended", instance=instance, seen=seen)
        time.sleep(random.random())
        self.request(instance, "resume")

    def _becomes(self, instance: str, status: WorkflowStatus) -> bool:
        deadline = time.monotonic() + PATIENCE / 2
        while time.monotonic() < deadline:
            found = self.insist("get", lambda: self.host.get_workflow(instance))
            if found.status is status:
                return True
            if found.status.ended:
                return False
            time.sleep(0.3)
        return False

    def amqp(self, random: random.Random) -> None:
        """Starts over AMQP, as a program does that knows no LiteFlow: accepted when the broker confirms.

        One in five is of a workflow that nobody has: it is to be refused, with a reason.
        """
        message_id = uuid.uuid4().hex
        reference = f"{self.slot}-{next(self._count)}"
        wrong = random.random() < 0.2
        body = {"workflow": "unheard-of" if wrong else "chain", "data": {}, "reference": reference}
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._publish_command(json.dumps(body).encode(), message_id)
                break
            except (pika.exceptions.AMQPError, OSError) as exc:
                if time.monotonic() > deadline:
                    self.history.write("failed", call="amqp", error=f"{type(exc).__name__}: {exc}")
                    return
                time.sleep(0.3)
        if wrong:
            self.history.write("wrong", command=message_id)
            return
        instance = start_id(f"message:{message_id}")
        self.history.write("started", instance=instance, workflow="chain", reference=reference, data={})

    def _publish_command(self, body: bytes, message_id: str) -> None:
        parameters = pika.URLParameters(os.environ["LITEFLOW_QUEUE"])
        parameters.socket_timeout = parameters.blocked_connection_timeout = 5
        parameters.stack_timeout = 10
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(
                os.environ["LITEFLOW_PREFIX"],
                "workflow.start",
                body,
                pika.BasicProperties(message_id=message_id, delivery_mode=2, content_type="application/json"),
                mandatory=True,
            )

    # -------------------------------------------------------------------------------------------- loops

    def repeat(self, scenario: Callable[[random.Random], None]) -> None:
        """One scenario after another, until it is time to stop."""
        source = random.Random(f"{self.seed} {self.slot} {scenario.__name__}")
        while not self.stopping.wait(source.uniform(0.5, 1.5) * self.pause):
            try:
                scenario(source)
            except Exception as exc:  # written down where it happened; the next scenario is another matter
                logging.warning("%s: %s: %s", scenario.__name__, type(exc).__name__, exc)

    def activities(self) -> None:
        """Take activities and do them; give some back, and let the time of others run out."""
        source = random.Random(f"{self.seed} activities")
        while not self.stopping.is_set():
            try:
                task = self.host.get_pending_activity("translate", self.slot, timeout=1.0)
                if task is None:
                    continue
                what = source.random()
                if what < 0.1:
                    self.host.release_activity_token(task.token)
                elif what > 0.1 + 0.1:
                    self.host.submit_activity_success(task.token, task.parameters["number"] * 2)
                    self.history.write("activity", instance=task.workflow_id)
            except (UnavailableError, ActivityTokenError) as exc:
                logging.info("activities: %s", exc)
                self.stopping.wait(0.2)


def loops(producer: Producer, role: str) -> Iterator[threading.Thread]:
    if role == "activities":
        yield threading.Thread(target=producer.activities)
        return
    for scenario in (
        producer.mixed,
        producer.mixed,
        producer.readings,
        producer.steered,
        producer.steered,
        producer.amqp,
    ):
        yield threading.Thread(target=producer.repeat, args=(scenario,))


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("liteflow").setLevel(logging.INFO)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    producer = Producer(int(os.environ["CHAOS_SEED"]), float(os.environ["CHAOS_PAUSE"]))
    signal.signal(signal.SIGTERM, lambda *_: producer.stopping.set())
    threads = list(loops(producer, sys.argv[1]))
    for thread in threads:
        thread.start()
    logging.getLogger("liteflow.chaos").info("ready")
    for thread in threads:
        thread.join()
    producer.host.stop()
    logging.getLogger("liteflow.chaos").info("stopped")


if __name__ == "__main__":
    main()
