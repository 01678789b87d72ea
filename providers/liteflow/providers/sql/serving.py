"""The thread of a queue provider: settles, claims, hands out, hears broadcasts, keeps its session alive.

One transaction for what there is to settle, to claim and to broadcast, and the callbacks outside of it. All
that this thread stores need not reach the disk before it goes on: what a crash of the server's machine undoes
of it is a message that is delivered once more.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from liteflow.core.errors import ProviderError, QueueUnavailableError
from liteflow.providers.sql.consuming import Holdings, SqlConsumer
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.errors import mapped
from liteflow.providers.sql.listening import Listening
from liteflow.providers.sql.messages import Claimed, Messages, Settled
from liteflow.providers.sql.polling import Polling
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.sessions import Sessions, new_session
from liteflow.providers.sql.signals import Bell, Broadcast, Signals
from liteflow.providers.sql.subscribing import Subscriptions

log = logging.getLogger("liteflow.sql")

SWEEP = 5.0
"""Seconds after which all queues are looked into, whatever was heard: a claim may have passed over messages
that somebody else had locked and did not take."""

DEAD_LOOK = 1.0
"""Seconds between two looks for dead sessions, where a death is seen at once."""

SHORTEST_BACKOFF, LONGEST_BACKOFF = 0.05, 2.0
"""Seconds between two tries while the database is away."""

Claims = list[tuple[SqlConsumer, str, list[Claimed]]]


@dataclass(frozen=True, slots=True)
class Backend:
    """The database as the thread uses it, and who is told there."""

    database: Database
    messages: Messages
    sessions: Sessions
    signals: Signals

    @classmethod
    def of(cls, database: Database, tables: Tables, prefix: str, ttl: float, bell: Bell) -> Backend:
        """For a database whose tables are there."""
        messages = Messages(tables.messages)
        signals: Signals
        if database.name == "postgresql":
            signals = Listening(database, prefix, bell)
        else:
            signals = Polling(database, tables.broadcasts, messages)
        return cls(database, messages, Sessions(database, tables.sessions, messages, ttl), signals)


class Server:
    """Serves the consumers and subscribers of one provider while it is open."""

    def __init__(
        self, backend: Backend, holdings: Holdings, subscriptions: Subscriptions, ttl: float, bell: Bell
    ) -> None:
        self._backend = backend
        self._holdings = holdings
        self._subscriptions = subscriptions
        self._ttl = ttl
        self._bell = bell
        self._session: int | None = None
        self._renew_at = self._bury_at = self._sweep_at = 0.0
        self._closing = False
        self._away = False
        self.heard = threading.Event()
        """Set while broadcasts reach this process."""
        self._thread = threading.Thread(target=self._serve, name="liteflow-sql-queue", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def is_current_thread(self) -> bool:
        """True within a callback."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Store what was settled, give back the rest, and end."""
        self._closing = True
        self._bell.ring()
        if not self.is_current_thread():
            self._thread.join()

    # ------------------------------------------------------------------------------------- the thread

    def _serve(self) -> None:
        backoff = SHORTEST_BACKOFF
        while not self._closing:
            try:
                with mapped(QueueUnavailableError):
                    self._round()
                if self._away:
                    self._away = False
                    log.info("the SQL queue answers again")
                backoff = SHORTEST_BACKOFF
            except Exception as exc:
                # Whatever it is, a process whose queue has ended silently would do nothing for ever.
                if not isinstance(exc, ProviderError):
                    log.exception("the SQL queue failed; going on")
                elif not self._away:
                    log.warning("the SQL queue does not answer: %s", exc)
                self._away = True
                self._hear_nothing()
                self._pause(random.uniform(0.5, 1) * backoff)
                backoff = min(LONGEST_BACKOFF, 2 * backoff)
        self._give_back()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._closing and (left := until - time.monotonic()) > 0:
            self._bell.wait(left)

    def _hear_nothing(self) -> None:
        self.heard.clear()
        try:
            with mapped():
                self._backend.signals.close()
        except ProviderError as exc:
            log.debug("closing a broken connection: %s", exc)
        self._renew_at = 0.0  # what showed that this session lives may have gone with it

    def _round(self) -> None:
        holdings, signals = self._holdings, self._backend.signals
        if not (holdings.active or self._subscriptions.active or self._session is not None):
            self._bell.wait(60.0)
            return
        if not signals.started:
            signals.start()
            if self._session is not None:
                signals.hold(self._session)
            holdings.look_into(holdings.queues())
        self.heard.set()
        if holdings.active or self._session is not None:
            self._live()
        wait = 0.0 if self._exchange() else max(0.0, self._next_duty() - time.monotonic())
        news = signals.wait(self._bell, wait, holdings.queues())
        if news.queues:
            holdings.look_into(news.queues)
        for broadcast in news.broadcasts:
            self._subscriptions.heard(broadcast)

    def _next_duty(self) -> float:
        duties = [self._holdings.next_failed()]
        if self._session is not None:
            duties += [self._renew_at, self._bury_at, self._sweep_at]
        return min((at for at in duties if at is not None), default=time.monotonic() + 60.0)

    # ------------------------------------------------------------------------------------ the session

    def _live(self) -> None:
        """Begin a session or keep it alive, and see to those that are dead."""
        now, sessions = time.monotonic(), self._backend.sessions
        if self._session is not None and now >= self._renew_at and not sessions.renew(self._session):
            log.warning("this process was silent for too long; what it had from the SQL queue is others' now")
            self._session = None
            self._holdings.lose_all()
        if self._session is None:
            session = new_session()
            self._backend.signals.hold(session)
            sessions.begin(session)
            self._session = session
            self._bury_at = 0.0
        if now >= self._renew_at:
            self._renew_at = now + self._ttl / 3
        if now >= self._bury_at:
            seen_at_once = self._backend.database.name == "postgresql"
            self._bury_at = now + (DEAD_LOOK if seen_at_once else self._ttl / 3) * random.uniform(0.8, 1.2)
            count, queues = sessions.bury()
            if count:
                log.warning("%d messages of processes that died are delivered again", count)
            if queues:
                self._tell(queues)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            self._holdings.look_into(self._holdings.queues())

    def _tell(self, queues: set[str]) -> None:
        backend = self._backend
        backend.database.write(lambda connection: backend.signals.sent(connection, queues))
        self._holdings.look_into(queues)

    # ------------------------------------------------------------------------------------ the messages

    def _exchange(self) -> bool:
        """Store what was settled, send what is to be told, claim what there is room for. Was anything got?"""
        settled, leaving = self._holdings.settled(), self._subscriptions.leaving()
        # A consumer that came a moment ago has no session yet.
        wanted = self._holdings.wanted() if self._session is not None else []
        if not (settled or leaving or wanted):
            return False
        try:
            if wanted and not (settled or leaving):
                # Nothing is written yet: a look before that costs less where it finds nothing.
                ready = self._backend.database.read(
                    lambda connection: self._backend.messages.ready(
                        connection, list(dict.fromkeys(queue for _, queue, _ in wanted))
                    )
                )
                wanted = [one for one in wanted if one[1] in ready]
                if not wanted:
                    return False
            claims = self._backend.database.write(self._stored(settled, leaving, wanted))
        except BaseException:
            self._holdings.not_stored(settled)
            self._holdings.look_into({queue for _, queue, _ in wanted})
            raise
        self._holdings.look_into(settled.queues)
        for (_, queue, most), (_, _, claimed) in zip(wanted, claims, strict=True):
            if len(claimed) == most:
                self._holdings.look_into({queue})
        for consumer, queue, claimed in claims:
            self._holdings.hand_out(consumer, queue, claimed)
        return any(claimed for _, _, claimed in claims)

    def _stored(
        self,
        settled: Settled,
        leaving: list[Broadcast],
        wanted: list[tuple[SqlConsumer, str, int]],
    ) -> Callable[[Connection], Claims]:
        messages, signals, session = self._backend.messages, self._backend.signals, self._session

        def act(connection: Connection) -> Claims:
            claims: Claims = []
            if session is not None:
                messages.settle(connection, session, settled)
                claims = [
                    (consumer, queue, messages.claim(connection, queue, session, most))
                    for consumer, queue, most in wanted
                ]
            if settled.queues:
                signals.sent(connection, settled.queues)
            if leaving:
                signals.broadcast(connection, leaving)
            return claims

        return act

    def _give_back(self) -> None:
        """The last act. If it fails, others find this session dead after a while."""
        try:
            with mapped(QueueUnavailableError):
                settled, leaving = self._holdings.settled(), self._subscriptions.leaving()
                if settled or leaving:
                    self._backend.database.write(self._stored(settled, leaving, []))
                if self._session is not None:
                    self._backend.sessions.end(self._session)
        except ProviderError as exc:
            log.warning("the SQL queue could not be told of the end: %s", exc)
        self._hear_nothing()
