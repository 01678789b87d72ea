"""From URLs to providers. The scheme names the backend, through entry points that anyone can add to."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from liteflow.core.errors import SettingsError
from liteflow.core.host import WorkflowHost
from liteflow.core.providers import LockProvider, PersistenceProvider, QueueProvider
from liteflow.core.settings import Settings

DEFAULT_STORE = "mongodb://localhost:27017/liteflow"
DEV_STORE = "sqlite:///liteflow.db"
DEFAULT_QUEUE = "amqp://guest:guest@localhost:5672/"
DEFAULT_LOCK = "redis://localhost:6379/0"
DEFAULT_PREFIX = "liteflow"


@dataclass(frozen=True)
class Servers:
    """Where a process finds its store, queue and lock, and the prefix of all names there.

    Where queue or lock are not named (empty), the store is both if it can be, as a SQL database can.
    """

    store: str = DEFAULT_STORE
    queue: str = ""
    lock: str = ""
    prefix: str = DEFAULT_PREFIX

    def __repr__(self) -> str:
        """Without the URLs: they may hold passwords."""
        return f"Servers(prefix={self.prefix!r})"

    def host(self, settings: Settings, *, scheduler: bool = True) -> WorkflowHost:
        """A host on these servers; nothing is connected yet."""
        persistence = _provider("persistence", "--store", self.store, self.prefix)
        queue = self._beside_store("queue", self.queue, DEFAULT_QUEUE)
        lock = self._beside_store("lock", self.lock, DEFAULT_LOCK)
        assert isinstance(persistence, PersistenceProvider)
        assert isinstance(queue, QueueProvider)
        assert isinstance(lock, LockProvider)
        return WorkflowHost(persistence, queue, lock, settings, scheduler=scheduler)

    def _beside_store(self, kind: str, url: str, default: str) -> Any:
        if url:
            return _provider(kind, f"--{kind}", url, self.prefix)
        if _scheme(self.store) in _entries(kind):
            return _provider(kind, "--store", self.store, self.prefix)
        return _provider(kind, f"--{kind}", default, self.prefix)


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _entries(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"liteflow.{kind}")}


def _provider(kind: str, option: str, url: str, prefix: str) -> Any:
    scheme, found = _scheme(url), _entries(kind)
    if scheme not in found:
        known = ", ".join(f"{name}://" for name in sorted(found)) or "none installed"
        raise SettingsError(f"{option}: no {kind} provider for {scheme}:// (known: {known})")
    entry = found[scheme]
    try:
        factory = entry.load()
    except ImportError as exc:
        extra = entry.module.rpartition(".")[2]
        raise SettingsError(
            f"{option}: the driver for {scheme}:// is not installed; pip install 'liteflow.core[{extra}]'"
        ) from exc
    try:
        return factory(url, prefix=prefix)
    except ValueError as exc:
        raise SettingsError(f"{option}: the URL is not valid") from exc
