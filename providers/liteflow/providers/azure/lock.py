"""Leases on Azure: a blob for each, leased while it is held and deleted with its lease.

Marks. Azure can't refuse a lease and leave a mark in one act, so a mark is a blob of its own, and the order
makes up for it: who is refused writes the mark and then tries once more; the holder deletes its blob, and
then the mark. If the second try is refused too, the holder's look for the mark is still to come, and finds
it. Somebody else may delete the mark in between; then it is theirs to look again, since their release is
the unclean one. A mark that outlives its holder makes a later release unclean, which costs a look.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from azure.core import MatchConditions
from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobLeaseClient, BlobServiceClient, ContainerClient
from liteflow.core.errors import LiteFlowError, LockUnavailableError, SettingsError
from liteflow.core.providers import Lease, LockProvider, Taken
from liteflow.core.wire import plain_name
from liteflow.providers.azure.account import Account, code_of
from liteflow.providers.azure.containers import create_container

log = logging.getLogger("liteflow.azure")

SHORTEST, LONGEST = 15, 60
"""Seconds that a lease on a blob may last, says Azure."""

DRIFT_SHARE = 0.01
DRIFT_LEAST = 0.002
"""The server's clock may run a little faster than ours: a lease counts as that much shorter."""

THREADS = 16
"""The server takes one lease in a request, so that many are asked for side by side."""

TURNS = 6
"""So often a blob may come and go under our hands until we ask to be sent again instead."""

REFUSED = {"LeaseAlreadyPresent", "LeaseIsBreakingAndCannotBeAcquired", "LeaseIsBrokenAndCannotBeRenewed"}
LOST = {
    "LeaseIdMismatchWithLeaseOperation",
    "LeaseIdMismatchWithBlobOperation",
    "LeaseNotPresentWithLeaseOperation",
    "LeaseNotPresentWithBlobOperation",
    "LeaseLost",
    "LeaseIdMissing",
    "ConditionNotMet",
    *REFUSED,
}

T = TypeVar("T")
R = TypeVar("R")


class AzureLockProvider(LockProvider):
    """Leases on a storage account; see `AzureQueueProvider` for `connection`, `prefix` and `credential`.

    A lease lasts 15 to 60 whole seconds. Who asks for a shorter one gets 15; a longer one is refused.
    """

    shortest_ttl = float(SHORTEST)
    longest_ttl = float(LONGEST)

    def __init__(
        self, connection: str, prefix: str = "liteflow", *, credential: TokenCredential | None = None
    ) -> None:
        self._account = Account(connection, credential)
        self._container_name = plain_name(prefix, "leases")
        self._service: BlobServiceClient | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"AzureLockProvider({self._account.name})"

    def open(self) -> None:
        """Raises `ProviderError` if the account refuses us. One that is away is waited for in use."""
        if self._service is None:
            self._service = self._account.blobs()
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="liteflow-azure-lock")
        try:
            with self._account.errors(LockUnavailableError):
                create_container(self._container())
        except LockUnavailableError as exc:
            log.warning("%s; it is waited for", exc)

    def close(self) -> None:
        pool, self._pool = self._pool, None
        service, self._service = self._service, None
        if pool is not None:
            pool.shutdown()
        if service is not None:
            service.close()

    # ------------------------------------------------------------------------------------------ leases

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        """See `LockProvider`. `Taken.expires_in` is a whole lease: Azure does not tell what is left."""
        duration = _duration(ttl)
        outcomes = self._each(lambda name: self._acquire(name, duration), names)
        problem = next((one for one in outcomes if isinstance(one, Exception)), None)
        decided = [one for one in outcomes if not isinstance(one, Exception)]
        if problem is not None:
            self.release([one for one in decided if isinstance(one, Lease)])
            raise problem
        return decided

    def _acquire(self, name: str, duration: int) -> Lease | Taken:
        token = str(uuid.uuid4())
        marked = False
        for _ in range(TURNS):
            lease = self._try(name, token, duration)
            if isinstance(lease, Lease):
                return lease
            if lease is False:
                if marked:
                    return Taken(float(duration))
                self._mark(name).upload_blob(b"", overwrite=True)
                marked = True
        # Others take it and give it back faster than we can tell; maybe none of them has seen our mark.
        return Taken(0.001, resend=True)

    def _try(self, name: str, token: str, duration: int) -> Lease | bool | None:
        """The lease; False if somebody has it; None if the blob was deleted before it could be leased."""
        blob = self._blob(name)
        try:
            blob.upload_blob(b"", overwrite=True, match_condition=MatchConditions.IfMissing)
        except ResourceExistsError:
            log.debug("somebody has made the blob of lease %s", name)
        except ResourceNotFoundError:
            create_container(self._container())
            return None
        except HttpResponseError as exc:
            if code_of(exc) not in LOST:
                raise
        began = time.monotonic()
        try:
            BlobLeaseClient(blob, token).acquire(duration)  # again with the same id, it is still ours
        except ResourceNotFoundError:
            return None
        except HttpResponseError as exc:
            if code_of(exc) not in REFUSED:
                raise
            return False
        return Lease(name, token, _expires(began, duration))

    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        duration = _duration(ttl)
        outcomes = self._each(lambda lease: self._renew(lease, duration), leases)
        for lease, outcome in zip(leases, outcomes, strict=True):
            if outcome is False or time.monotonic() >= lease.expires:
                lease.held = False
            if isinstance(outcome, Exception):
                log.warning("lease %s could not be renewed: %s", lease.name, outcome)
        return [lease.held for lease in leases]

    def _renew(self, lease: Lease, duration: int) -> bool:
        began = time.monotonic()
        if began >= lease.expires:
            return False
        try:
            # Azure's own "renew" can't change how long the lease lasts; to acquire it with its id does.
            BlobLeaseClient(self._blob(lease.name), lease.token).acquire(duration)
        except ResourceNotFoundError:
            return False
        except HttpResponseError as exc:
            if code_of(exc) not in LOST:
                raise
            return False
        lease.expires = _expires(began, duration)
        return True

    def release(self, leases: Sequence[Lease]) -> list[bool]:
        for lease in leases:
            lease.held = False
        outcomes = self._each(self._release, leases)
        for lease, outcome in zip(leases, outcomes, strict=True):
            if isinstance(outcome, Exception):
                log.info("lease %s could not be given back: %s", lease.name, outcome)
        return [outcome is True for outcome in outcomes]

    def _release(self, lease: Lease) -> bool:
        try:
            self._blob(lease.name).delete_blob(lease=lease.token)
        except ResourceNotFoundError:
            return False
        except HttpResponseError as exc:
            if code_of(exc) not in LOST:
                raise
            return False
        try:
            # Not tried again after a lost answer: it would find no mark where there was one.
            self._mark(lease.name).delete_blob(retry_total=0)
        except ResourceNotFoundError:
            return True
        return False

    # ------------------------------------------------------------------------------------------- blobs

    def _each(self, act: Callable[[T], R], items: Sequence[T]) -> list[R | LiteFlowError]:
        """The outcomes or errors of all, asked for side by side."""

        def one(item: T) -> R | LiteFlowError:
            try:
                return act(item)
            except AzureError as exc:
                return self._account.translated(exc, LockUnavailableError)
            except LiteFlowError as exc:
                return exc

        pool = self._pool
        if pool is None or len(items) == 1:
            return [one(item) for item in items]
        return list(pool.map(one, items))

    def _container(self) -> ContainerClient:
        if self._service is None:
            raise LockUnavailableError("the lock provider is not open")
        return self._service.get_container_client(self._container_name)

    def _blob(self, name: str) -> BlobClient:
        return self._container().get_blob_client(plain_name("lease", name))

    def _mark(self, name: str) -> BlobClient:
        return self._container().get_blob_client(plain_name("mark", name))


def _duration(ttl: float) -> int:
    if ttl > LONGEST:
        raise SettingsError(f"a lease on Azure lasts {LONGEST} s at most, not {ttl:g}; lower lease_ttl")
    return max(SHORTEST, math.ceil(ttl))


def _expires(began: float, duration: int) -> float:
    return began + duration - (duration * DRIFT_SHARE + DRIFT_LEAST)
