"""From URLs to a host on the providers that they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from liteflow.core.errors import SettingsError
from liteflow.core.host import WorkflowHost
from liteflow.core.providers import LockProvider, PersistenceProvider, QueueProvider
from liteflow.core.settings import Settings
from liteflow.worker.discovery import entries, make, scheme_of

DEFAULT_STORE = "mongodb://localhost:27017/liteflow"
DEV_STORE = "sqlite:///liteflow.db"
DEFAULT_QUEUE = "amqp://guest:guest@localhost:5672/"
DEFAULT_LOCK = "redis://localhost:6379/0"
DEFAULT_PREFIX = "liteflow"


@dataclass(frozen=True)
class Servers:
    """Where a process finds its store, queue and lock, and the prefix of all names there.

    Where queue or lock are not named (empty), the store is both if it can be, as a SQL database can.
    `management` is where the queue server can be asked about itself, if that is elsewhere.
    """

    store: str = DEFAULT_STORE
    queue: str = ""
    lock: str = ""
    prefix: str = DEFAULT_PREFIX
    management: str | None = None

    def __repr__(self) -> str:
        """Without the URLs: they may hold passwords."""
        return f"Servers(prefix={self.prefix!r})"

    def host(self, settings: Settings, *, scheduler: bool = True) -> WorkflowHost:
        """A host on these servers; nothing is connected yet."""
        persistence = _provider("persistence", "--store", self.store, self.prefix)
        more = {} if self.management is None else {"management": self.management}
        queue = self._beside_store("queue", self.queue, DEFAULT_QUEUE, **more)
        lock = self._beside_store("lock", self.lock, DEFAULT_LOCK)
        assert isinstance(persistence, PersistenceProvider)
        assert isinstance(queue, QueueProvider)
        assert isinstance(lock, LockProvider)
        return WorkflowHost(persistence, queue, lock, settings, scheduler=scheduler)

    def _beside_store(self, kind: str, url: str, default: str, **more: str) -> Any:
        if not url and scheme_of(self.store) in entries(kind):
            return _provider(kind, "--store", self.store, self.prefix, **more)
        return _provider(kind, f"--{kind}", url or default, self.prefix, **more)


def _provider(kind: str, option: str, url: str, prefix: str, **more: str) -> Any:
    try:
        return make(kind, url, prefix, **more)
    except TypeError as exc:
        if not more:
            raise
        raise SettingsError(f"{scheme_of(url)}:// takes no --{' --'.join(more)}") from exc
    except SettingsError as exc:
        raise SettingsError(f"{option}: {exc}") from exc
