"""A lock provider for the processes of one machine: a lease is a small file in a folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from liteflow.core.errors import LockUnavailableError, SettingsError
from liteflow.core.providers import Lease, LockProvider, Taken


class FileLockProvider(LockProvider):
    """Leases in the folder that the URL names, like ``filelock:///var/lib/shop``."""

    def __init__(self, url: str, prefix: str = "liteflow") -> None:
        scheme, _, path = url.partition("://")
        if scheme != "filelock" or not path.startswith("/"):
            raise SettingsError("the URL is not valid; it is like filelock:///var/lib/shop")
        self._folder = Path(path, prefix)

    def open(self) -> None:
        with self._guarded():
            pass  # so that a folder that can't be used is told now

    def close(self) -> None:
        """Leases run out by themselves."""

    def describe(self) -> str:
        return f"files in {self._folder}"

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        with self._guarded():
            return [self._acquire(name, ttl) for name in names]

    def _acquire(self, name: str, ttl: float) -> Lease | Taken:
        held = self._read(name)
        if held is not None:
            self._write(name, {**held, "marked": True})
            return Taken(held["ends"] - time.time())
        token, began = secrets.token_hex(16), time.monotonic()
        self._write(name, {"token": token, "ends": time.time() + ttl, "marked": False})
        return Lease(name, token, began + ttl)

    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        with self._guarded():
            return [self._renew(lease, ttl) for lease in leases]

    def _renew(self, lease: Lease, ttl: float) -> bool:
        held, began = self._read(lease.name), time.monotonic()
        lease.held = held is not None and held["token"] == lease.token
        if lease.held:
            self._write(lease.name, {**held, "ends": time.time() + ttl})
            lease.expires = began + ttl
        return lease.held

    def release(self, leases: Sequence[Lease]) -> list[bool]:
        try:
            with self._guarded():
                return [self._release(lease) for lease in leases]
        except LockUnavailableError:
            return [False] * len(leases)  # the holder has somebody look

    def _release(self, lease: Lease) -> bool:
        held = self._read(lease.name)
        lease.held = False
        if held is None or held["token"] != lease.token:
            return False
        self._path(lease.name).unlink()
        return not held["marked"]

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """One process and thread at a time: what happens inside is one act for all others."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            guard = os.open(self._folder / "guard", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise LockUnavailableError(f"{self._folder} can't be used: {exc.strerror}") from exc
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield
        finally:
            os.close(guard)

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest()

    def _read(self, name: str) -> dict | None:
        try:
            held = json.loads(self._path(name).read_text())
        except FileNotFoundError:
            return None
        return held if held["ends"] > time.time() else None

    def _write(self, name: str, held: dict) -> None:
        self._path(name).write_text(json.dumps(held))
