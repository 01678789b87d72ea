"""What AMQP does not tell: unacknowledged messages and time-outs of consumers, from the management plugin."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from liteflow.core.errors import ProviderError, QueueUnavailableError, SettingsError
from liteflow.core.providers import QueueState

TIMEOUT = 5.0
"""Seconds for an answer."""

NOT_FOUND = 404


class Management:
    """The HTTP API of a broker at a URL like ``http://user:password@host:15672``, for one virtual host."""

    def __init__(self, url: str, virtual_host: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                "the URL of the management plugin is not valid; it is like http://user:password@host:15672"
            )
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}"}
        self.address = f"{parts.hostname}{'' if parts.port is None else f':{parts.port}'}"
        self._base = f"{parts.scheme}://{self.address}{parts.path.rstrip('/')}/api"
        self._queues = f"queues/{quote(virtual_host, safe='')}"

    def overview(self) -> dict[str, Any]:
        """What the broker says of itself. `ProviderError` if it does not answer, or refuses this user."""
        return self._get("overview") or {}

    def complete(self, state: QueueState, name: str) -> QueueState:
        """A queue's state with what is known here. `name` is the one on the server."""
        found = self._get(f"{self._queues}/{quote(name, safe='')}")
        if found is None:
            return state
        policy = found.get("effective_policy_definition") or {}
        timeout = (found.get("arguments") or {}).get("x-consumer-timeout") or policy.get("consumer-timeout")
        return replace(
            state,
            unacknowledged=found.get("messages_unacknowledged"),
            consumer_timeout=None if timeout is None else timeout / 1000,
        )

    def _get(self, path: str) -> dict[str, Any] | None:
        """A document; None if there is none."""
        try:
            with urlopen(Request(f"{self._base}/{path}", headers=self._headers), timeout=TIMEOUT) as reply:
                found: dict[str, Any] = json.load(reply)
                return found
        except HTTPError as exc:
            exc.close()
            if exc.code == NOT_FOUND:
                return None
            raise ProviderError(
                f"the management plugin at {self.address} refuses: {exc.code} {exc.reason}"
            ) from None
        except (URLError, OSError, ValueError) as exc:
            reason = getattr(exc, "reason", exc)
            raise QueueUnavailableError(
                f"the management plugin at {self.address} does not answer: {reason}"
            ) from None
