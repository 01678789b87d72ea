"""From URLs to a host on the providers that they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from liteflow.core.errors import SettingsError
from liteflow.core.host import WorkflowHost
from liteflow.core.providers import LockProvider, PersistenceProvider, QueueProvider
from liteflow.core.settings import Settings
from liteflow.worker.discovery import make, scheme_of

DEFAULT_STORE = "mongodb://localhost:27017/liteflow"
DEFAULT_QUEUE = "amqp://guest:guest@localhost:5672/"
DEFAULT_LOCK = "redis://localhost:6379/0"
DEFAULT_PREFIX = "liteflow"


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
    try:
        return make(kind, url, prefix, **more)
    except TypeError as exc:
        if not more:
            raise
        raise SettingsError(f"{scheme_of(url)}:// takes no --{' --'.join(more)}") from exc
    except SettingsError as exc:
        raise SettingsError(f"{option}: {exc}") from exc
