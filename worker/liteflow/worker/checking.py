"""Trying out a provider on its server: what a worker will do there, small and without traces."""

from __future__ import annotations

import inspect
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from liteflow.core.errors import LockUnavailableError, ProviderError, QueueUnavailableError, SettingsError
from liteflow.core.models import Activity
from liteflow.core.providers import (
    EVENTS_QUEUE,
    Lease,
    ListFilter,
    LockProvider,
    PersistenceProvider,
    Provider,
    QueueProvider,
)
from liteflow.worker.discovery import KINDS, Entry, entries, scheme_of

PATIENCE = 5.0
"""Seconds for a server to answer."""

NAME = "liteflow-providers-check"
"""Of what is written to see that writing works."""


def kinds_of(url: str) -> list[Entry]:
    """The providers for a URL, of whatever kind. `SettingsError` if there is none."""
    scheme = scheme_of(url)
    found = [known[scheme] for known in map(entries, KINDS) if scheme in known]
    if not found:
        known = sorted({name for kind in KINDS for name in entries(kind)})
        raise SettingsError(
            f"no provider for {scheme}:// is installed; known are {', '.join(f'{n}://' for n in known)}"
        )
    return found


def check(entry: Entry, url: str, prefix: str) -> str:
    """Open the provider, use it, and say what it is connected to. Raises an error of one line."""
    factory = entry.load()
    provider = factory(url, prefix=prefix, **_patience(factory))
    try:
        provider.open()
        if isinstance(provider, PersistenceProvider):
            _store(provider)
        elif isinstance(provider, QueueProvider):
            _queue(provider)
        elif isinstance(provider, LockProvider):
            _lock(provider)
        else:
            raise SettingsError(f"{entry.point.value} makes no provider: {type(provider).__name__}")
        return provider.describe() or type(provider).__name__
    finally:
        provider.close()


def _patience(factory: Callable[..., Provider]) -> dict[str, Any]:
    """Who waits at a terminal waits for less long than a process that starts beside its servers."""
    takes = inspect.signature(factory).parameters
    return {"open_timeout": PATIENCE} if "open_timeout" in takes else {}


def _store(store: PersistenceProvider) -> None:
    store.list(ListFilter(limit=1))
    unique = f"{NAME}-{uuid.uuid4().hex}"
    store.offer_activities([Activity(unique, NAME, None, store.now(), unique)])
    token = uuid.uuid4().hex
    try:
        store.take_activity(NAME, NAME, token, store.now(), store.now() + timedelta(seconds=PATIENCE))
    finally:
        store.withdraw_activities([unique])


def _queue(queue: QueueProvider) -> None:
    queue.depth(EVENTS_QUEUE)
    heard = threading.Event()
    unsubscribe = queue.subscribe(NAME, lambda _: heard.set())
    queue.notify(NAME)
    came = heard.wait(PATIENCE)
    unsubscribe()
    if not came:
        raise QueueUnavailableError("a broadcast did not come back: may the user publish and subscribe?")


def _lock(lock: LockProvider) -> None:
    got = lock.acquire([f"{NAME}-{uuid.uuid4().hex}"], PATIENCE)[0]
    if not isinstance(got, Lease):
        raise LockUnavailableError("a lease that nobody has was refused")
    if not lock.release([got])[0]:
        raise ProviderError("a lease was got but could not be given back: may the user read and delete keys?")
