"""Subscriptions to streams: what is read, handed out, settled and given back."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import redis
from liteflow.core.providers import Consumer, Delivery, Message
from liteflow.providers.redis.client import Connection, interrupt
from liteflow.providers.redis.session import Sessions
from liteflow.providers.redis.streams import BODY, GROUP, REDELIVERED, TRACEPARENT
from redis.exceptions import RedisError

log = logging.getLogger("liteflow.redis")

BLOCK = 5.0
"""Seconds after which a reader that waits asks again, so that a server that is gone is noticed."""

FAILED_PAUSE = 1.0
"""Seconds after which a message whose callback failed goes back: it would fail again at once."""

JOIN = 2.0
"""Seconds that a reader gets to leave its read by itself."""

Fields = Mapping[bytes, bytes]


class Received:
    """A message as it came, and the session in which it can be settled."""

    def __init__(
        self, consumer: StreamConsumer, session: str, stream: str, message_id: str, fields: Fields
    ) -> None:
        self.consumer = consumer
        self.session = session
        self.stream = stream
        self.id = message_id
        self.fields = fields
        self.redelivered = REDELIVERED in fields
        self.settled = False

    def ack(self) -> None:
        """Done with it. From any thread; only the first settling counts."""
        self.consumer.settle(self, lambda s: s.acknowledge(self.stream, self.id))

    def nack(self) -> None:
        """Give it back."""
        self.consumer.settle(self, lambda s: s.give_back(self.stream, self.id, seen=True))

    def dead_letter(self, code: str, reason: str) -> None:
        """It can't be handled, now or later."""
        self.consumer.settle(self, lambda s: s.dead_letter(self.stream, self.id, code, reason))


class RedisDelivery(Delivery):
    """A received message as core sees it."""

    def __init__(self, received: Received, queue: str, body: str, traceparent: str | None) -> None:
        self.message = Message(queue, body, traceparent)
        self.redelivered = received.redelivered
        self._received = received

    def ack(self) -> None:
        self._received.ack()

    def nack(self) -> None:
        self._received.nack()


def delivery_of(received: Received, queue: str) -> RedisDelivery | None:
    """The message, or None if it is none: then it went to the dead letters."""
    try:
        body = received.fields[BODY].decode()
        traceparent = received.fields[TRACEPARENT].decode() if TRACEPARENT in received.fields else None
    except KeyError:
        received.dead_letter("malformed", "the entry has no field 'body'")
    except UnicodeDecodeError:
        received.dead_letter("malformed", "the entry's body or traceparent is not UTF-8")
    else:
        return RedisDelivery(received, queue, body, traceparent)
    log.warning("an entry of stream %s is no message; it went to the dead letters", received.stream)
    return None


class StreamConsumer(Consumer):
    """Reads some streams, on a thread and a connection of its own, and keeps within the prefetch.

    It waits for all streams that have room in one call. Beside them it reads a stream of its own, by which it
    is called when that changes.
    """

    def __init__(
        self, sessions: Sessions, streams: list[str], prefetch: int, callback: Callable[[Received], None]
    ) -> None:
        self.streams = list(dict.fromkeys(streams))
        self._sessions = sessions
        self._limit = prefetch
        self._callback = callback
        self._state = threading.Condition()
        self._held: Counter[str] = Counter()
        self._session: str | None = None  # the one that `_held` counts in
        self.wake = ""
        self._waiting: frozenset[str] | None = None  # the streams that a read waits for
        self._ended = False
        self._serving: threading.Thread | None = None
        self._connection: Connection = None
        self._thread = threading.Thread(target=self._run, name="liteflow-redis-reader", daemon=True)

    # ------------------------------------------------------------------------------- from any thread

    def begin(self) -> None:
        """Subscribe. `ProviderError` if the server refuses; one that is away is waited for."""
        self._sessions.add(self)
        self._thread.start()

    def limit(self, prefetch: int) -> None:
        """See `Consumer`."""
        with self._state:
            self._limit = max(0, prefetch)
            self._look()

    def cancel(self) -> None:
        """See `Consumer`."""
        with self._state:
            self._ended = True
            self._look()
        self._sessions.call()
        self._sessions.remove(self)
        with self._state:
            self._state.wait_for(lambda: self._serving in (None, threading.current_thread()))

    def join(self) -> None:
        """After `cancel`: return when the thread has ended."""
        if self._thread is threading.current_thread() or not self._thread.is_alive():
            return
        self._thread.join(JOIN)
        if self._thread.is_alive():
            self.interrupt()
        self._thread.join()

    @property
    def is_running(self) -> bool:
        """False once it is cancelled and has left its last read."""
        return self._thread.is_alive()

    def interrupt(self) -> None:
        """See `Reader`."""
        if (connection := self._connection) is not None:
            interrupt(connection)

    def settle(self, received: Received, how: Callable[[Sessions], None]) -> None:
        """The first time only."""
        with self._state:
            if received.settled:
                return
            received.settled = True
            how(self._sessions)
            if received.session == self._session:
                self._held[received.stream] -= 1
                self._look()

    def _look(self) -> None:
        """Under the lock: call the reader if it waits for other streams than it should now."""
        if self._waiting is None or self._waiting == self._with_room():
            return
        self._waiting = None
        wake = self.wake
        self._sessions.write(lambda pipe: pipe.xadd(wake, {"look": "1"}, nomkstream=True), lasting=False)

    def _with_room(self) -> frozenset[str] | None:
        if self._ended:
            return None
        return frozenset(stream for stream in self.streams if self._held[stream] < self._limit)

    # ------------------------------------------------------------------------------- on its own thread

    def _run(self) -> None:
        session: str | None = None
        while (session := self._sessions.wait(lambda: self._ended, session)) is not None:
            try:
                self._read(session)
            except RedisError as exc:
                self._sessions.fail(session, exc)
            finally:
                with self._state:
                    self._waiting = None
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.disconnect()

    def _read(self, session: str) -> None:
        with self._state:
            self.wake = self._sessions.keys.wake(session, id(self))
            self._held.clear()
            self._session = session
        client = self._sessions.server.client
        client.xgroup_create(self.wake, GROUP, id="0", mkstream=True)
        client.pexpire(self.wake, int(self._sessions.seconds * 1000))
        try:
            self._connection = self._sessions.server.connection()
            self._connection.socket_timeout = BLOCK + (self._connection.socket_timeout or 0)
            self._connection.connect()
            while self._sessions.is_current(session) and self._read_once(session):
                pass
        finally:
            with suppress(RedisError):  # it runs out by itself
                client.delete(self.wake)

    def _read_once(self, session: str) -> bool:
        with self._state:
            ready = self._with_room()
            if ready is None:
                return False
            room = min((self._limit - self._held[stream] for stream in ready), default=1)
            self._waiting = ready
        answer = self._ask(session, [self.wake, *sorted(ready)], room)
        with self._state:
            self._waiting = None
        for name, entries in answer or ():
            stream = name.decode()
            for message_id, flat in entries:
                entry = message_id.decode()
                if stream == self.wake:
                    self._sessions.acknowledge(stream, entry)
                else:
                    fields = dict(zip(flat[::2], flat[1::2], strict=True))
                    self._hand_out(Received(self, session, stream, entry, fields))
        return True

    def _ask(self, session: str, streams: list[str], count: int) -> Any:
        connection = self._connection
        if connection is None:
            raise redis.ConnectionError("the reader has no connection")
        connection.send_command(
            *("XREADGROUP", "GROUP", GROUP, session, "COUNT", count, "BLOCK", int(BLOCK * 1000)),
            *("STREAMS", *streams, *[">"] * len(streams)),
        )
        return connection.read_response()

    def _hand_out(self, received: Received) -> None:
        with self._state:
            full = self._held[received.stream] >= self._limit
            if full or self._ended or not self._sessions.is_current(received.session):
                received.settled = True
                self._sessions.give_back(received.stream, received.id, seen=False)
                return
            self._held[received.stream] += 1
            self._serving = threading.current_thread()
        try:
            self._callback(received)
        except Exception:
            # Whatever a callback raises must not end the subscription.
            log.exception("the consumer of stream %s failed; the message goes back", received.stream)
            self._sessions.after(FAILED_PAUSE, received.nack)
        finally:
            with self._state:
                self._serving = None
                self._state.notify_all()
