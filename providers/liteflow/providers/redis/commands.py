"""Commands over a stream: from its entries to a handler, and back as an answer or to the dead letters.

An entry of ``<prefix>:commands`` has the fields ``command`` (``workflow.start``, ...) and ``body`` (JSON),
and may have ``message_id``, ``reply_to``, ``correlation_id``, ``content_type`` and ``traceparent``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from liteflow.core.commands import Answer, Command, Refusal
from liteflow.core.errors import UnavailableError
from liteflow.core.providers import Consumer
from liteflow.core.retry import backoff
from liteflow.providers.redis.consuming import Received, StreamConsumer
from liteflow.providers.redis.session import Sessions
from liteflow.providers.redis.streams import BODY, TRACEPARENT, Keys

log = logging.getLogger("liteflow.redis")

MAX_REASON = 1000
"""Characters of a refusal's reason."""

ANSWERS_KEPT = 3600
"""Seconds after the last answer in a stream for answers, after which nobody is taken to read it."""


class CommandConsumer(Consumer):
    """Hands commands to the handler, each on one of `concurrency` threads."""

    def __init__(
        self,
        sessions: Sessions,
        keys: Keys,
        handler: Callable[[Command], Answer | Refusal],
        concurrency: int,
    ) -> None:
        self.consumer = StreamConsumer(sessions, [keys.commands], concurrency * 2, self._take)
        self._sessions = sessions
        self._keys = keys
        self._handler = handler
        self._pauses = backoff()
        self._ending = False  # nothing more is begun
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="liteflow-command")

    def limit(self, prefetch: int) -> None:
        """See `Consumer`."""
        self.consumer.limit(prefetch)

    def cancel(self) -> None:
        """Take no more, and return when the handlers have ended. What was not begun goes back."""
        self._ending = True
        self.consumer.cancel()
        self._pool.shutdown()

    def abandon(self) -> None:
        """The provider is closed: don't wait for handlers that still run."""
        self._ending = True
        self._pool.shutdown(wait=False)

    def _take(self, received: Received) -> None:
        self._pool.submit(self._serve, received)

    # ------------------------------------------------------------------------------- on their threads

    def _serve(self, received: Received) -> None:
        if self._ending:
            received.nack()
            return
        try:
            outcome = self._handler(command_of(received))
        except UnavailableError as exc:
            log.warning("a command waits: %s", exc)
            self._give_back(received)
        except Exception:
            # A defect of ours must not end this thread, nor lose the command.
            log.exception("a command met a defect")
            if received.redelivered:
                self._refuse(received, Refusal("internal", "the log of the worker says why"))
            else:
                self._give_back(received)
        else:
            self._pauses = backoff()
            if isinstance(outcome, Answer):
                self._reply(received, outcome.body)
                received.ack()
            else:
                self._refuse(received, outcome)

    def _give_back(self, received: Received) -> None:
        self._sessions.after(next(self._pauses), received.nack)

    def _refuse(self, received: Received, refusal: Refusal) -> None:
        reason = refusal.reason[:MAX_REASON]
        received.dead_letter(refusal.code, reason)
        self._reply(received, {"error": refusal.code, "reason": reason})

    def _reply(self, received: Received, body: Mapping[str, Any]) -> None:
        to = _text(received, b"reply_to")
        if not to:
            return
        if not to.startswith(self._keys.replies):
            # Whoever may write commands could else write to any key, in our name.
            log.warning("a command gets no answer: its reply_to does not begin with %s", self._keys.replies)
            return
        answer: dict[Any, Any] = {"body": json.dumps(body)}
        if (correlation_id := received.fields.get(b"correlation_id")) is not None:
            answer["correlation_id"] = correlation_id

        def write(pipe: Any) -> None:
            pipe.xadd(to, answer)
            pipe.expire(to, ANSWERS_KEPT)

        self._sessions.write(write)


def command_of(received: Received) -> Command:
    """The command as it came; what is missing is empty."""
    traceparent = _text(received, TRACEPARENT)
    return Command(
        routing_key=_text(received, b"command") or "",
        body=received.fields.get(BODY, b""),
        message_id=_text(received, b"message_id"),
        reply_to=_text(received, b"reply_to"),
        correlation_id=_text(received, b"correlation_id"),
        content_type=_text(received, b"content_type"),
        headers={} if traceparent is None else {"traceparent": traceparent},
        redelivered=received.redelivered,
        transport="redis",
    )


def _text(received: Received, name: bytes) -> str | None:
    value = received.fields.get(name)
    return None if value is None else value.decode("utf-8", "replace")
