"""The public AMQP contract: what a command's bytes have to be, and what they make the host do.

Knows nothing of AMQP itself: the queue provider carries commands here and answers back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import astuple, replace
from datetime import datetime
from typing import Any

from liteflow.core import codec
from liteflow.core.commands import Answer, Command, Refusal
from liteflow.core.errors import DataError, DefinitionNotFoundError, WorkflowNotFoundError
from liteflow.core.host import WorkflowHost
from liteflow.worker.times import parse_time

log = logging.getLogger("liteflow.gateway")

MAX_BODY = 1_000_000
"""Bytes of a command's body."""

MAX_NAME = 1024
"""Characters of names, keys, references and ids in a command."""

MAX_REASON = 1000
"""Characters of a refusal's reason. It may quote what the sender wrote."""

MAX_DIGITS = 30
"""Digits of a whole number. 64 bits hold 19; more are not even read, since that takes long."""

_CONTROL = {"workflow.suspend": "suspend", "workflow.resume": "resume", "workflow.terminate": "terminate"}


class _Refused(Exception):
    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(code, reason)


class Gateway:
    """Handles commands for a host. `handle` is called from several threads."""

    def __init__(self, host: WorkflowHost, max_body: int = MAX_BODY) -> None:
        self._host = host
        self._max_body = max_body
        self._handlers: dict[str, Callable[[Command, dict[str, Any]], Answer]] = {
            "workflow.start": self._start,
            "event.publish": self._publish,
            **dict.fromkeys(_CONTROL, self._control),
        }

    def handle(self, command: Command) -> Answer | Refusal:
        """Do what a command asks for. Raises `UnavailableError` if that has to wait for a backend."""
        try:
            handler = self._handlers.get(command.routing_key)
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                raise _Refused("unknown_command", f"no command {command.routing_key!r}; known are {known}")
            return handler(command, self._body(command))
        except _Refused as exc:
            refusal = exc.refusal
        except DefinitionNotFoundError as exc:
            refusal = Refusal("unknown_workflow", str(exc))
        except WorkflowNotFoundError as exc:
            refusal = Refusal("not_found", str(exc))
        except DataError as exc:
            refusal = Refusal("bad_data", str(exc))
        refusal = replace(refusal, reason=_printable(refusal.reason))
        log.warning("command %s refused (%s): %s", _printable(command.routing_key), *astuple(refusal))
        return refusal

    # ---------------------------------------------------------------------------------------- commands

    def _start(self, command: Command, body: dict[str, Any]) -> Answer:
        workflow = _text(body, "workflow")
        version = body.get("version")
        if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
            raise _Refused("bad_field", "version must be a positive whole number")
        data = body.get("data")
        if data is not None and not isinstance(data, dict):
            raise _Refused("bad_field", "data must be an object")
        plain = codec.from_json(data or {}, "data")
        assert isinstance(plain, dict)
        reference = _text(body, "reference", required=False)
        key = _id_key(command)
        instance_id = self._host.start_encoded(
            workflow, version, plain, reference=reference, key=key, traceparent=_traceparent(command)
        )
        return Answer({"id": instance_id})

    def _publish(self, command: Command, body: dict[str, Any]) -> Answer:
        name, key = _text(body, "name"), _text(body, "key")
        event_id = self._host.publish_encoded(
            name,
            key,
            codec.from_json(body.get("data"), "data"),
            time=_time(body),
            id_key=_id_key(command),
            traceparent=_traceparent(command),
        )
        return Answer({"id": event_id})

    def _control(self, command: Command, body: dict[str, Any]) -> Answer:
        instance_id = _text(body, "id")
        accepted = self._host.request(
            instance_id,
            _CONTROL[command.routing_key],
            _text(body, "reason", required=False) or "",
            request_id=command.message_id,
            by=command.transport,
        )
        return Answer({"id": instance_id} if accepted else {"id": instance_id, "accepted": False})

    # -------------------------------------------------------------------------------------------- body

    def _body(self, command: Command) -> dict[str, Any]:
        if len(command.body) > self._max_body:
            raise _Refused("too_large", f"the body has {len(command.body)} bytes, over {self._max_body}")
        kind, _, parameters = (command.content_type or "application/json").partition(";")
        if kind.strip().lower() != "application/json":
            raise _Refused("content_type", f"content type {kind.strip()!r} is not application/json")
        charset = parameters.lower().replace(" ", "").replace('"', "")
        if charset not in ("", "charset=utf-8"):
            raise _Refused("content_type", "the charset must be utf-8")
        if (command.content_encoding or "utf-8").lower() not in ("utf-8", "utf8", "identity"):
            raise _Refused("content_type", f"content encoding {command.content_encoding!r} is not supported")
        try:
            text = command.body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise _Refused("malformed", f"the body is not UTF-8 at byte {exc.start}") from exc
        try:
            body = json.loads(
                text, parse_constant=_no_constant, parse_int=_number, object_pairs_hook=_no_duplicates
            )
            if isinstance(body, dict):
                _check_depth(body)
        except RecursionError as exc:
            raise _Refused("malformed", "the body is nested too deeply") from exc
        except ValueError as exc:
            raise _Refused("malformed", f"the body can't be read: {exc}") from exc
        if not isinstance(body, dict):
            raise _Refused("malformed", "the body must be a JSON object")
        return body


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not allowed")


def _number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a whole number has {len(digits)} digits, over {MAX_DIGITS}")
    return int(digits)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _check_depth(body: dict[str, Any]) -> None:
    """Of fields that nobody knows; the codec sees to the data."""
    level: list[Any] = [[value for name, value in body.items() if name != "data"]]
    for _ in range(codec.MAX_DEPTH + 1):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {codec.MAX_DEPTH} deep")


def _text(body: dict[str, Any], name: str, *, required: bool = True) -> Any:
    value = body.get(name)
    if value is None and not required:
        return None
    if value is None:
        raise _Refused("missing_field", f"the field {name!r} is missing")
    if not isinstance(value, str) or not value or len(value) > MAX_NAME or "\0" in value:
        raise _Refused("bad_field", f"{name} must be a string of 1 to {MAX_NAME} characters")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise _Refused("bad_field", f"{name} is not valid Unicode") from exc
    return value


def _time(body: dict[str, Any]) -> datetime | None:
    value = body.get("time")
    if value is None:
        return None
    try:
        return parse_time(value if isinstance(value, str) else "")
    except ValueError as exc:
        raise _Refused("bad_field", f"time {exc}") from exc


def _id_key(command: Command) -> str | None:
    # Some clients send an empty id where none was given; that must not make their commands one.
    return f"message:{command.message_id}" if command.message_id else None


def _printable(text: str) -> str:
    """One line, of a length for people: nobody outside writes lines or control codes into a log."""
    text = text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 4]} ..."
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)[:MAX_REASON]


def _traceparent(command: Command) -> str | None:
    value = command.headers.get("traceparent")
    return value if isinstance(value, str) and len(value) <= 128 else None
