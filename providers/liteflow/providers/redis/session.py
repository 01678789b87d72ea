"""This process's session on the server, kept fresh and begun anew after an outage, and what is written in it.

One thread writes what needs no answer: acknowledgements, what is given back, broadcasts. What comes while it
writes is written next, in one round trip.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from liteflow.core.errors import ProviderError, QueueUnavailableError, UnavailableError
from liteflow.core.retry import backoff
from liteflow.providers.redis.client import Server, answers_of
from liteflow.providers.redis.errors import is_passing
from liteflow.providers.redis.streams import (
    ACKNOWLEDGE,
    DEAD_LETTER,
    GIVE_BACK,
    GROUP,
    TAKE_FROM_THE_DEAD,
    Keys,
)
from redis.exceptions import RedisError

log = logging.getLogger("liteflow.redis")

MAX_PAUSE = 1.0
"""Seconds between attempts to come back, at most."""

STABLE = 5.0
"""Seconds after which a session counts as one that works, so that the next is begun without a pause."""

AT_ONCE = 500
"""Messages that one script acknowledges, or takes from a dead process."""

TAKE_INTERVAL = 1.0
"""Seconds between looks for messages of dead processes."""

Act = Callable[[Any], object]
"""Adds a command to a pipeline."""


class Reader(Protocol):
    """Who reads streams in the sessions of a process."""

    streams: list[str]
    wake: str  # the stream by which it is called

    def interrupt(self) -> None:
        """The session is over: leave what is waited for."""


@dataclass(slots=True)
class _Work:
    """What is to be written. Acts that have to survive an outage may be done twice without harm."""

    acks: dict[str, list[str]] = field(default_factory=dict)
    lasting: list[Act] = field(default_factory=list)
    passing: list[Act] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.acks or self.lasting or self.passing)

    def put(self, pipe: Any) -> None:
        """Add all to a pipeline; answers before the acknowledgement of what they answer."""
        for act in self.lasting:
            act(pipe)
        for stream, ids in self.acks.items():
            for first in range(0, len(ids), AT_ONCE):
                pipe.eval(ACKNOWLEDGE, 1, stream, GROUP, *ids[first : first + AT_ONCE])
        for act in self.passing:
            act(pipe)

    def before(self, later: _Work) -> _Work:
        """Both, this first. What was to pass by has passed."""
        for stream, ids in later.acks.items():
            self.acks.setdefault(stream, []).extend(ids)
        return _Work(self.acks, self.lasting + later.lasting, later.passing)


class Sessions:
    """Keeps a session as long as the provider is open. All methods may be called from any thread."""

    def __init__(self, server: Server, keys: Keys, seconds: float) -> None:
        self.server = server
        self.keys = keys
        self.seconds = seconds
        self._changed = threading.Condition()
        self._work = _Work()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._readers: list[Reader] = []
        self._known: set[str] = set()  # streams that had a group
        self._ending = self._closed = True
        self._session: str | None = None
        self._last: str | None = None  # the session before, while something may be pending under it
        self._failure: RedisError | None = None
        self._refused: ProviderError | None = None
        self._trouble = ""
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------------------------- open and close

    def open(self, seconds: float) -> None:
        """Begin, and wait until there is a session. Raises if there is none in time, or we are refused."""
        with self._changed:
            if self._thread is not None:
                return
            self._ending = self._closed = False
            self._refused = self._failure = None
            self._known.clear()
            self._thread = threading.Thread(target=self._run, name="liteflow-redis", daemon=True)
            self._thread.start()
            self._changed.wait_for(lambda: self._session or self._refused, seconds)
            session, refused, trouble = self._session, self._refused, self._trouble
        if session is None:
            self.close()
            raise refused or QueueUnavailableError(trouble or f"redis {self.server.name} does not answer")

    def close(self) -> None:
        """Write what there is, give back what is pending, and end."""
        with self._changed:
            self._ending = True
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._changed:
            self._work = _Work()
            self._later.clear()
            self._readers.clear()
        self.server.close()

    @property
    def is_open(self) -> bool:
        """False once it is being closed."""
        return not self._ending

    # ---------------------------------------------------------------------------------- what is written

    def acknowledge(self, stream: str, message_id: str) -> None:
        """Never deliver it again."""
        with self._changed:
            if not self._closed:
                self._work.acks.setdefault(stream, []).append(message_id)
                self._changed.notify_all()

    def give_back(self, stream: str, message_id: str, *, seen: bool) -> None:
        """Let anybody have it; `seen` if it was handed to somebody."""
        self.write(lambda pipe: pipe.eval(GIVE_BACK, 1, stream, GROUP, "1" if seen else "0", message_id))

    def dead_letter(self, stream: str, message_id: str, code: str, reason: str) -> None:
        """Move it to the dead letters, with the reason."""
        added = ("x-liteflow-error", code, "x-liteflow-reason", reason, "x-liteflow-queue", stream)
        dead = self.keys.dead
        self.write(lambda pipe: pipe.eval(DEAD_LETTER, 2, stream, dead, GROUP, message_id, *added))

    def write(self, act: Act, *, lasting: bool = True) -> None:
        """Write soon; after an outage, if it is lasting. Drops it if the provider is closed."""
        with self._changed:
            if self._closed or (not lasting and self._session is None):
                return
            (self._work.lasting if lasting else self._work.passing).append(act)
            self._changed.notify_all()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it later, unless the provider is closed before."""
        with self._changed:
            self._later.append((time.monotonic() + seconds, call))
            self._changed.notify_all()

    # ----------------------------------------------------------------------------------------- readers

    def add(self, reader: Reader) -> None:
        """Make the groups of its streams, now or when the server is back."""
        with self._changed:
            self._readers.append(reader)
        try:
            self._make_groups(reader.streams)
        except RedisError as exc:
            error = self.server.error(exc)
            if not isinstance(error, UnavailableError):
                self.remove(reader)
                raise error from exc
            log.warning("a consumer waits: %s", error)

    def remove(self, reader: Reader) -> None:
        """It reads no more."""
        with self._changed:
            if reader in self._readers:
                self._readers.remove(reader)

    def wait(self, ended: Callable[[], bool], other_than: str | None) -> str | None:
        """The session to read in, once there is one that is not the given one; None when the reader ends."""
        with self._changed:
            self._changed.wait_for(lambda: ended() or self._ending or self._session not in (None, other_than))
            return None if ended() or self._ending else self._session

    def call(self) -> None:
        """Have those look again who wait for a session."""
        with self._changed:
            self._changed.notify_all()

    def is_current(self, session: str) -> bool:
        """False once what was read in the session has been given back, or will be."""
        return self._session == session

    def fail(self, session: str, exc: RedisError) -> None:
        """A reader's connection broke: what was on its way may be pending for us without our knowing."""
        with self._changed:
            if self._session == session and not self._ending:
                self._failure = exc
                self._changed.notify_all()

    # -------------------------------------------------------------------------------- on its own thread

    def _run(self) -> None:
        pauses = backoff(limit=MAX_PAUSE)
        lost_at: float | None = None
        began = 0.0
        while not self._ending:
            try:
                session = self._begin(lost_at)
                lost_at, began = None, time.monotonic()
                self._keep(session)
            except RedisError as exc:
                error = self.server.error(exc)
                lost_at = self._report(error, lost_at)
            except ProviderError as exc:
                lost_at = self._report(exc, lost_at)
            with self._changed:
                if self._session is not None and time.monotonic() - began > STABLE:
                    pauses = backoff(limit=MAX_PAUSE)
                self._session = self._failure = None
                self._changed.notify_all()
                readers = list(self._readers)
            for reader in readers:
                reader.interrupt()
            with self._changed:
                if not self._ending:
                    self._changed.wait_for(lambda: self._ending, next(pauses))
        with self._changed:
            self._closed = True
        try:
            self._flush()
            self._give_all_back()
        except RedisError as exc:
            # What is pending is taken by others once the session has run out.
            log.info("redis %s is away while its provider closes: %s", self.server.name, type(exc).__name__)

    def _report(self, error: ProviderError, lost_at: float | None) -> float:
        with self._changed:
            first = str(error) != self._trouble
            self._trouble = str(error)
            if not isinstance(error, UnavailableError):
                self._refused = error
            self._changed.notify_all()
        if first and not self._ending:
            log.warning("%s; trying again", error)
        return time.monotonic() if lost_at is None else lost_at

    def _begin(self, lost_at: float | None) -> str:
        """A new session. All that was pending under the one before is given back first."""
        self.server.check()
        self._flush()
        self._give_all_back()
        session = uuid.uuid4().hex
        self._fresh(session, begin=True)
        streams = {stream for reader in list(self._readers) for stream in reader.streams}
        known = set(self._known)
        gone = self._make_groups(streams) & known
        if gone:
            log.warning(
                "redis %s has lost %d of %d queues, with what was in them; they are made anew, and the"
                " scheduler sends again what is overdue",
                self.server.name, len(gone), len(streams),
            )  # fmt: skip
        if lost_at is not None:
            log.warning("redis %s is back, after %.1f s", self.server.name, time.monotonic() - lost_at)
        with self._changed:
            self._trouble = ""
            self._refused = None
            self._session = self._last = session
            self._changed.notify_all()
        return session

    def _keep(self, session: str) -> None:
        beat = self.seconds / 4
        fresh_until, look_at = time.monotonic() + beat, 0.0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._ending or self._work or self._failure,
                    max(0.0, min([fresh_until, look_at, *(at for at, _ in self._later)]) - time.monotonic()),
                )
                if self._failure is not None:
                    raise self._failure
                now = time.monotonic()
                due = [call for at, call in self._later if at <= now]
                self._later = [one for one in self._later if one[0] > now]
            for call in due:
                call()
            self._flush()
            if self._ending:
                return
            if now >= fresh_until:
                self._fresh(session, begin=False)
                fresh_until = now + beat
            if now >= look_at:
                self._take_from_the_dead({s for reader in list(self._readers) for s in reader.streams})
                look_at = now + TAKE_INTERVAL

    def _flush(self) -> None:
        with self._changed:
            work, self._work = self._work, _Work()
        if not work:
            return
        try:
            with self.server.client.pipeline(transaction=False) as pipe:
                work.put(pipe)
                answers = pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, RedisError) and is_passing(answer):
                    raise answer
        except RedisError:
            # Some of it may be done. It may be done again.
            with self._changed:
                self._work = work.before(self._work)
            raise
        for answer in answers:
            if isinstance(answer, RedisError):
                log.warning("redis %s refuses a command: %s", self.server.name, str(answer)[:200])

    def _fresh(self, session: str, *, begin: bool) -> None:
        key, milliseconds = self.keys.sessions + session, int(self.seconds * 1000)
        if begin:
            self.server.client.set(key, "1", px=milliseconds)
            return
        with self.server.client.pipeline(transaction=False) as pipe:
            pipe.pexpire(key, milliseconds)
            for reader in list(self._readers):
                pipe.pexpire(reader.wake, milliseconds)
            if not answers_of(pipe)[0]:
                raise QueueUnavailableError(
                    f"redis {self.server.name} has forgotten this process, which stood still for too long, or"
                    " data was lost"
                )

    def _make_groups(self, streams: Iterable[str]) -> set[str]:
        """Make the groups that are missing, and return those."""
        wanted = list(streams)
        if not wanted:
            return set()
        with self.server.client.pipeline(transaction=False) as pipe:
            for stream in wanted:
                # From the first message on: it may have been sent before anybody read here.
                pipe.xgroup_create(stream, GROUP, id="0", mkstream=True)
            answers = pipe.execute(raise_on_error=False)
        made = set()
        for stream, answer in zip(wanted, answers, strict=True):
            if not isinstance(answer, RedisError):
                made.add(stream)
            elif not str(answer).startswith("BUSYGROUP"):
                raise answer
        self._known |= set(wanted)
        return made

    def _give_all_back(self) -> None:
        last = self._last
        if last is None:
            return
        self.server.client.delete(self.keys.sessions + last)
        self._take_from_the_dead(self._known, quiet=True)
        self._last = None

    def _take_from_the_dead(self, streams: Iterable[str], *, quiet: bool = False) -> None:
        todo, turn = list(streams), 0 if quiet else int(TAKE_INTERVAL * 900)
        while todo:
            with self.server.client.pipeline(transaction=False) as pipe:
                for stream in todo:
                    keys = stream, self.keys.turn(stream)
                    pipe.eval(TAKE_FROM_THE_DEAD, 2, *keys, GROUP, self.keys.sessions, AT_ONCE, turn)
                answers = answers_of(pipe)
            moved = sum(answer[0] for answer in answers)
            if moved and not quiet:
                log.warning("%d messages of processes that died are delivered again", moved)
            todo, turn = [stream for stream, answer in zip(todo, answers, strict=True) if answer[1]], 0
