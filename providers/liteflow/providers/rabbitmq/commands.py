"""Commands over AMQP: from the queue to a handler, and back as an answer or to the dead letters."""

from __future__ import annotations

import copy
import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime, timezone
from typing import Any

from pika.spec import BasicProperties

from liteflow.core.commands import Answer, Command, Refusal
from liteflow.core.errors import UnavailableError
from liteflow.core.providers import Consumer
from liteflow.core.retry import backoff
from liteflow.providers.rabbitmq.connection import Connection
from liteflow.providers.rabbitmq.consuming import RabbitConsumer, Received
from liteflow.providers.rabbitmq.driver import UnreadableProperties
from liteflow.providers.rabbitmq.publishing import PERSISTENT, Letter, Publisher
from liteflow.providers.rabbitmq.topology import Topology

log = logging.getLogger("liteflow.rabbitmq")

MAX_REASON = 1000
"""Characters of a refusal's reason in a header."""

MAX_PROPERTIES = 100_000
"""Bytes of a dead letter's properties: they have to fit one frame, which the server limits to 128 kB."""

ADDED_BY_SERVER = ("x-delivery-count", "x-acquired-count")
"""Headers that the sender did not write."""


class CommandConsumer(Consumer):
    """Hands commands to the handler, each on one of `concurrency` threads.

    Answers and dead letters have a channel of their own, so that an odd `reply_to` can't close the one
    on which wake-ups are sent.
    """

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        handler: Callable[[Command], Answer | Refusal],
        concurrency: int,
        timeout: float,
    ) -> None:
        self._connection = connection
        self._topology = topology
        self._handler = handler
        self._timeout = timeout
        self._publisher = Publisher("answers", connection, topology)
        self._work: queue.SimpleQueue[Received | None] = queue.SimpleQueue()
        self._consumer = RabbitConsumer(connection, topology, ["commands"], concurrency * 2, self._work.put)
        self._pauses = backoff()
        self._changed = threading.Condition()
        self._unsettled = 0
        self._ending = False  # nothing more is begun
        self._busy: set[threading.Thread] = set()
        self._threads = [
            threading.Thread(target=self._serve, name=f"liteflow-command-{n + 1}", daemon=True)
            for n in range(concurrency)
        ]

    def begin(self) -> None:
        """Subscribe."""
        for thread in self._threads:
            thread.start()
        try:
            self._connection.call(lambda: self._connection.add(self._publisher))
            self._consumer.begin(self._timeout)
        except BaseException:
            self.cancel()
            raise

    def limit(self, prefetch: int) -> None:
        """See `Consumer`."""
        self._consumer.limit(prefetch)

    def cancel(self) -> None:
        """Take no more, and return when the handlers have ended and their outcomes are sent."""
        self._ending = True
        self._consumer.cancel()
        for received in self._not_begun():
            received.nack()
        self._end_threads()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._unsettled, self._timeout)
        self._connection.call(lambda: self._connection.remove(self._publisher))

    def abandon(self) -> None:
        """The connection is closed: end the threads, without waiting for handlers that still run."""
        self._not_begun()
        self._end_threads()
        for thread in self._threads:
            if thread not in self._busy and thread is not threading.current_thread():
                thread.join()

    def _not_begun(self) -> list[Received]:
        waiting: list[Received] = []
        while True:
            try:
                received = self._work.get_nowait()
            except queue.Empty:
                return waiting
            if received is not None:
                waiting.append(received)

    def _end_threads(self) -> None:
        for _ in self._threads:
            self._work.put(None)

    # ------------------------------------------------------------------------------- on their threads

    def _serve(self) -> None:
        me = threading.current_thread()
        while (received := self._work.get()) is not None:
            if self._ending:
                received.nack()
                continue
            self._busy.add(me)
            with self._changed:
                self._unsettled += 1
            try:
                self._handle(received)
            except Exception:
                log.exception("a command could not be handled")
                self._give_back(received)
            self._busy.discard(me)

    def _handle(self, received: Received) -> None:
        outcome = self._outcome(received)
        if outcome is None:
            self._give_back(received)
        elif isinstance(outcome, Answer):
            self._reply(received, outcome.body)
        else:
            self._refuse(received, outcome)

    def _outcome(self, received: Received) -> Answer | Refusal | None:
        """What the handler makes of it; None to give it back."""
        try:
            outcome = outcome_of(received, self._handler)
            self._pauses = backoff()
            return outcome
        except UnavailableError as exc:
            log.warning("command %s waits: %s", received.routing_key, exc)
            return None
        except Exception:
            log.exception("command %s met a defect", received.routing_key)
            if received.redelivered:
                return Refusal("internal", "the command could not be handled; the log of the worker says why")
            return None

    def _refuse(self, received: Received, refusal: Refusal) -> None:
        user = getattr(self._connection.node.credentials, "username", None)
        letter = Letter(
            self._topology.dead,
            received.routing_key,
            received.body,
            dead_properties(received, refusal, user),
        )

        def stored(future: Future[None]) -> None:
            if future.exception() is not None:
                log.warning("a refused command could not be dead-lettered: %s", future.exception())
                self._give_back(received)
            else:
                self._reply(received, {"error": refusal.code, "reason": refusal.reason})

        self._publisher.publish([letter], self._timeout).add_done_callback(stored)

    def _reply(self, received: Received, body: Mapping[str, Any]) -> None:
        """Answer if that was asked for, then acknowledge.

        Also if the answer can't be sent: the command is done, and again would be once too often.
        """
        properties = received.properties
        if not properties.reply_to:
            self._settled(received.ack)
            return
        letter = Letter(
            "",
            properties.reply_to,
            json.dumps(body).encode(),
            BasicProperties(
                content_type="application/json",
                delivery_mode=PERSISTENT,
                correlation_id=properties.correlation_id,
            ),
            mandatory=False,
        )

        def sent(future: Future[None]) -> None:
            if future.exception() is not None:
                log.warning("an answer could not be sent to %s: %s", letter.routing_key, future.exception())
            self._settled(received.ack)

        self._publisher.publish([letter], self._timeout).add_done_callback(sent)

    def _give_back(self, received: Received) -> None:
        self._connection.call(lambda: self._connection.later(next(self._pauses), received.nack))
        self._settled(lambda: None)

    def _settled(self, settle: Callable[[], None]) -> None:
        settle()
        with self._changed:
            self._unsettled -= 1
            self._changed.notify_all()


def outcome_of(received: Received, handler: Callable[[Command], Answer | Refusal]) -> Answer | Refusal:
    """What the handler says of a message, or why it does not get to see it. Raises what the handler does."""
    if isinstance(received.properties, UnreadableProperties):
        return Refusal("malformed", f"the AMQP properties can't be read ({received.properties.reason})")
    return handler(_command(received))


def _command(received: Received) -> Command:
    properties = received.properties
    return Command(
        routing_key=_text(received.routing_key) or "",
        body=received.body,
        message_id=_text(properties.message_id),
        reply_to=_text(properties.reply_to),
        correlation_id=_text(properties.correlation_id),
        content_type=_text(properties.content_type),
        content_encoding=_text(properties.content_encoding),
        headers={_text(key) or "": value for key, value in (properties.headers or {}).items()},
        timestamp=_time(properties.timestamp),
        redelivered=received.redelivered,
    )


def _text(value: str | bytes | None) -> str | None:
    """pika leaves what is not UTF-8 as bytes."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _time(timestamp: int | None) -> datetime | None:
    try:
        return None if timestamp is None else datetime.fromtimestamp(timestamp, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


def dead_properties(received: Received, refusal: Refusal, user: str | None) -> BasicProperties:
    """The message's own, with the reason in headers; without what the server would not take."""
    original = received.properties
    added: dict[str, Any] = {
        "x-liteflow-error": refusal.code,
        "x-liteflow-reason": refusal.reason[:MAX_REASON].encode("utf-8", "backslashreplace").decode(),
        "x-liteflow-routing-key": received.routing_key,
    }
    properties = copy.copy(original)
    if original.expiration is not None:
        # It would make the dead letter vanish.
        added["x-liteflow-expiration"] = original.expiration
        properties.expiration = None
    if original.user_id not in (None, user):
        # The server lets nobody write another user's name.
        added["x-liteflow-user-id"] = original.user_id
        properties.user_id = None
    headers = {key: value for key, value in (original.headers or {}).items() if key not in ADDED_BY_SERVER}
    properties.headers = headers | added
    if not isinstance(original, UnreadableProperties) and _fits(properties):
        return properties
    return BasicProperties(headers=added, delivery_mode=PERSISTENT)


def _fits(properties: BasicProperties) -> bool:
    try:
        return sum(map(len, properties.encode())) <= MAX_PROPERTIES
    except Exception:  # pika reads some things that it can't write
        return False
