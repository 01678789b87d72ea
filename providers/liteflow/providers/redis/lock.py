"""Redlock over one or several independent masters, with marks.

A lease is held by whoever set its token on a majority of all masters. Who finds it taken leaves a mark
on each master that refused. Why the holder can't miss it: a failed acquirer was refused by at least one
master that holds the holder's token, and marked it in the same act. The holder's release is clean only
if a majority says "yours, and unmarked" and no master that answers says "marked". With N masters, the
acquirer has asked a majority (else it raises); of these, those with the holder's token are marked. If
it was refused by fewer than all of the holder's masters, it got the lease on the others, undoes that,
and an undone part that was marked by a third is reported as `resend`. A master that was marked and
then dies takes its mark along; so after any refusal that did not reach a majority of marks the acquirer
asks to be sent again (`resend`), which costs a message and nothing else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from liteflow.core.errors import LockUnavailableError, SettingsError, UnavailableError
from liteflow.core.findings import Finding
from liteflow.core.providers import Lease, LockProvider, Taken
from liteflow.providers.redis.checking import check
from liteflow.providers.redis.master import Master
from liteflow.providers.redis.scripts import ACQUIRE, EXTEND, RELEASE

DRIFT_SHARE = 0.01
DRIFT_LEAST = 0.002
"""Clocks of servers run at slightly different speeds: a lease counts as that much shorter, in seconds."""

CHECKS: tuple[tuple[str, tuple[str | int, ...]], ...] = (
    (ACQUIRE, ("mine", 1000)),
    (ACQUIRE, ("another's", 1000)),
    (EXTEND, ("mine", 1000)),
    (RELEASE, ("mine",)),
)
"""Each way through the scripts, so that a user who may not is told when the process starts."""


class RedisLockProvider(LockProvider):
    """Leases on Redis. `url` may be several masters, in a list or comma-separated.

    `timeout` is how many seconds a master may take to answer. Other options go to redis-py.
    """

    def __init__(
        self,
        url: str | Sequence[str] = "redis://localhost:6379/0",
        prefix: str = "liteflow",
        timeout: float = 0.5,
        **options: Any,
    ) -> None:
        urls = [part.strip() for part in url.split(",")] if isinstance(url, str) else list(url)
        if not urls or not all(urls):
            raise SettingsError("no lock server is named; the URL is like redis://host:6379/0")
        self._urls = urls
        self._timeout = timeout
        self._options = options
        self._prefix = prefix
        self._masters: list[Master] = [Master(one, timeout, prefix, **options) for one in urls]
        self._majority = len(urls) // 2 + 1
        self._pool: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"RedisLockProvider({', '.join(master.name for master in self._masters)})"

    def open(self) -> None:
        """Refused users and commands raise `ProviderError`. Masters that are away are waited for in use."""
        for master in self._masters:
            try:
                master.ping()
                key = self._key(f"permitted:{secrets.token_hex(8)}")
                for script, arguments in CHECKS:
                    master.check(script, key, *arguments)
            except UnavailableError:
                continue
        if len(self._masters) > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(len(self._masters) * 4, thread_name_prefix="liteflow-redis")

    def describe(self) -> str:
        """The versions of the masters that answer."""
        versions = [master.version() for master in self._masters]
        known = ", ".join(dict.fromkeys(filter(None, versions)))
        return f"Redis {known}".rstrip() + (f", {len(versions)} masters" if len(versions) > 1 else "")

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        for master in self._masters:
            master.close()

    def check(self) -> list[Finding]:
        """See `Provider.check`."""
        return check(self._masters, self._prefix)

    # ------------------------------------------------------------------------------------------ leases

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        began = time.monotonic()
        tokens = [secrets.token_hex(16) for _ in names]
        answers = self._all(ACQUIRE, names, [*tokens, int(ttl * 1000)])
        expires = began + ttl - (ttl * DRIFT_SHARE + DRIFT_LEAST)
        valid = time.monotonic() < expires
        result: list[Lease | Taken | None] = []
        undo: list[int] = []
        for index, name in enumerate(names):
            told = [answer[index] for answer in answers]
            if valid and sum(one == -1 for one in told) >= self._majority:
                result.append(Lease(name, tokens[index], expires))
                continue
            undo.append(index)
            refusals = [one for one in told if one is not None and one != -1]
            answered = sum(one is not None for one in told)
            if answered >= self._majority and refusals:
                left = max(0.001, max(refusals) / 1000)
                result.append(Taken(left, resend=len(refusals) < self._majority))
            else:
                result.append(None)
        marked = self._undo([(names[index], tokens[index]) for index in undo])
        for index, was_marked in zip(undo, marked, strict=True):
            taken = result[index]
            if isinstance(taken, Taken) and was_marked:
                result[index] = Taken(taken.expires_in, resend=True)
        decided = [one for one in result if one is not None]
        if len(decided) < len(names):
            self.release([one for one in decided if isinstance(one, Lease)])
            answering = sum(answer[0] is not None for answer in answers) if names else 0
            away = [m.trouble for m, answer in zip(self._masters, answers, strict=True) if answer[0] is None]
            raise LockUnavailableError(
                f"{answering} of {len(self._masters)} lock servers answer; {self._majority} are needed"
                f" ({'; '.join(away)})"
            )
        return decided

    def _undo(self, held: Sequence[tuple[str, str]]) -> list[bool]:
        if not held:
            return []
        answers = self._all(RELEASE, [name for name, _ in held], [token for _, token in held])
        return [any(answer[index] == 2 for answer in answers) for index in range(len(held))]

    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        if not leases:
            return []
        began = time.monotonic()
        answers = self._ask(EXTEND, leases, int(ttl * 1000))
        held = []
        for index, lease in enumerate(leases):
            told = [answer[index] for answer in answers]
            if sum(one == 1 for one in told) >= self._majority:
                lease.expires = began + ttl - (ttl * DRIFT_SHARE + DRIFT_LEAST)
            elif sum(one == 0 for one in told) > len(told) - self._majority:
                lease.held = False  # no majority can be ours any more
            if time.monotonic() >= lease.expires:
                lease.held = False
            held.append(lease.held)
        return held

    def release(self, leases: Sequence[Lease]) -> list[bool]:
        if not leases:
            return []
        answers = self._ask(RELEASE, leases)
        clean = []
        for index, lease in enumerate(leases):
            lease.held = False
            told = [answer[index] for answer in answers]
            clean.append(2 not in told and sum(one == 1 for one in told) >= self._majority)
        return clean

    # ----------------------------------------------------------------------------------------- servers

    def _key(self, name: str) -> str:
        return f"{self._prefix}:lease:{name}"

    def _ask(self, script: str, leases: Sequence[Lease], *more: int) -> list[list[int | None]]:
        return self._all(script, [one.name for one in leases], [*(one.token for one in leases), *more])

    def _all(
        self, script: str, names: Sequence[str], arguments: Sequence[str | int]
    ) -> list[list[int | None]]:
        """The answers of each master, asked at the same time."""
        keys = [self._key(name) for name in names]
        ask: Callable[[Master], list[int | None]] = lambda master: master.run(script, keys, arguments)  # noqa: E731
        pool = self._pool
        if pool is None:
            return [ask(master) for master in self._masters]
        return list(pool.map(ask, self._masters))
