"""From URLs to providers. The scheme names the backend, through entry points that anyone can add to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from liteflow.core.errors import SettingsError
from liteflow.core.host import WorkflowHost
from liteflow.core.providers import LockProvider, PersistenceProvider, QueueProvider
from liteflow.core.settings import Settings

DEFAULT_STORE = "mongodb://localhost:27017/liteflow"
DEFAULT_QUEUE = "amqp://guest:guest@localhost:5672/"
DEFAULT_LOCK = "redis://localhost:6379/0"
DEFAULT_PREFIX = "liteflow"

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


@dataclass(frozen=True)
class Servers:
    """Where a process finds its store, queue and lock, and the prefix of all names there.

    `management` is where the queue server can be asked about itself, if that is elsewhere.
    """

    store: str = DEFAULT_STORE
    queue: str = DEFAULT_QUEUE
    lock: str = DEFAULT_LOCK
    prefix: str = DEFAULT_PREFIX
    management: str | None = None

    def __repr__(self) -> str:
        """Without the URLs: they may hold passwords."""
        return f"Servers(prefix={self.prefix!r})"

    def host(self, settings: Settings, *, scheduler: bool = True) -> WorkflowHost:
        """A host on these servers; nothing is connected yet."""
        persistence = _provider("persistence", "--store", self.store, self.prefix)
        more = {} if self.management is None else {"management": self.management}
        queue = _provider("queue", "--queue", self.queue, self.prefix, **more)
        lock = _provider("lock", "--lock", self.lock, self.prefix)
        assert isinstance(persistence, PersistenceProvider)
        assert isinstance(queue, QueueProvider)
        assert isinstance(lock, LockProvider)
        return WorkflowHost(persistence, queue, lock, settings, scheduler=scheduler)


def _provider(kind: str, option: str, url: str, prefix: str, **more: str) -> Any:
    scheme, separator, _ = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme := scheme.lower()):
        # What stands there is not repeated: it may be a password in the wrong place.
        raise SettingsError(f"{option}: that is no URL; it begins with a scheme and ://")
    group = f"liteflow.{kind}"
    found = {entry.name: entry for entry in entry_points(group=group)}
    if scheme not in found:
        known = ", ".join(f"{name}://" for name in sorted(found)) or "none installed"
        # What is no scheme may be a connection string, with a password in it: it is not repeated.
        what = f"{scheme}://" if re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) else "a URL without a scheme"
        raise SettingsError(f"{option}: no {kind} provider for {what} (known: {known})")
    entry = found[scheme]
    try:
        factory = entry.load()
    except ImportError as exc:
        extra = entry.module.rpartition(".")[2]
        raise SettingsError(
            f"{option}: the driver for {scheme}:// is not installed; pip install 'liteflow.core[{extra}]'"
        ) from exc
    try:
        return factory(url, prefix=prefix, **more)
    except TypeError as exc:
        if not more:
            raise
        raise SettingsError(f"{scheme}:// takes no --{' --'.join(more)}") from exc
    except ValueError as exc:
        raise SettingsError(f"{option}: the URL is not valid") from exc
