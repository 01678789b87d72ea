"""Broadcasts through append blobs: who says something appends a line, who listens reads on from where it was.

There is one blob at a time. When it is full the next one is begun, and the one before the last is deleted. A
server-side condition on the size decides when it is full, so that all agree on it.
"""

from __future__ import annotations

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient
from liteflow.core.errors import QueueUnavailableError
from liteflow.core.polled_broadcast import BroadcastChannel
from liteflow.core.wire import plain_name
from liteflow.providers.azure.account import Account, code_of
from liteflow.providers.azure.containers import create_container

FULL = 2 * 1024 * 1024
"""Bytes of a blob. With at least some 60 for a line it stays below the 50,000 blocks that Azure allows."""

LARGEST = 48 * 1024
NOTHING_NEW = 416

CHECK_EVERY = 20
"""After so many looks that found nothing new it is checked that the blob is still the one that was read."""


class BlobChannel(BroadcastChannel):
    """The broadcasts of one prefix."""

    largest = LARGEST

    def __init__(self, account: Account, prefix: str, full: int = FULL) -> None:
        self._account = account
        self._container_name = plain_name(prefix, "broadcast")
        self._full = full
        self._service: BlobServiceClient | None = None
        self._said: int | None = None  # number of the blob that is written to
        self._heard = 0  # number of the blob that is read
        self._position = 0
        self._in_vain = 0  # looks since something was new

    def open(self) -> None:
        """Make a client; nothing is asked yet."""
        if self._service is None:
            self._service = self._account.blobs()

    def close(self) -> None:
        """Give back the connections."""
        service, self._service = self._service, None
        if service is not None:
            service.close()

    def say(self, text: str) -> None:
        with self._account.errors(QueueUnavailableError):
            while True:
                if self._said is None:
                    self._said = self._newest()
                try:
                    self._blob(self._said).append_block(f"{text}\n".encode(), maxsize_condition=self._full)
                    return
                except ResourceNotFoundError:
                    self._said = None
                except HttpResponseError as exc:
                    if code_of(exc) != "MaxBlobSizeConditionNotMet":
                        raise
                    self._said += 1
                    self._begin(self._said)

    def join(self) -> None:
        with self._account.errors(QueueUnavailableError):
            self._heard = self._newest()
            self._position = self._blob(self._heard).get_blob_properties().size

    def hear(self) -> list[str]:
        with self._account.errors(QueueUnavailableError):
            try:
                text = self._read(self._heard, self._position)
                # Nobody adds more than a last short line to a blob that is nearly full.
                if not text and self._position > self._full - LARGEST:
                    text = self._read(self._heard + 1, 0)
                    self._heard, self._position = self._heard + 1, 0
                self._in_vain = 0 if text else self._in_vain + 1
                if self._in_vain >= CHECK_EVERY:
                    self._check_position()
            except ResourceNotFoundError:
                if not self._there(self._heard):  # others have gone on by two blobs, or it was deleted
                    self._heard, self._position = self._newest(), 0
                return []
        self._position += len(text)
        return text.decode("ascii", "replace").splitlines()

    def _check_position(self) -> None:
        """A blob that was deleted and made anew is shorter; to read on would find nothing for long."""
        self._in_vain = 0
        if self._blob(self._heard).get_blob_properties().size < self._position:
            self._position = 0

    def leave(self) -> None:
        """Nothing here knows who listens."""

    def _read(self, number: int, position: int) -> bytes:
        try:
            return self._blob(number).download_blob(offset=position, length=self._full).readall()
        except HttpResponseError as exc:
            if exc.status_code != NOTHING_NEW:
                raise
            return b""

    def _newest(self) -> int:
        """The number of the newest blob, which is made if there is none."""
        container = self._container()
        try:
            numbers = [int(name) for name in container.list_blob_names() if name.isdecimal()]
        except ResourceNotFoundError:
            create_container(container)
            numbers = []
        newest = max(numbers, default=1)
        if not numbers:
            self._begin(newest)
        return newest

    def _begin(self, number: int) -> None:
        try:
            self._blob(number).create_append_blob(match_condition=MatchConditions.IfMissing)
        except (ResourceExistsError, ResourceModifiedError):
            return
        if number > 2:
            try:
                self._blob(number - 2).delete_blob()
            except ResourceNotFoundError:
                return

    def _there(self, number: int) -> bool:
        return bool(self._blob(number).exists())

    def _blob(self, number: int) -> BlobClient:
        return self._container().get_blob_client(f"{number:012d}")

    def _container(self) -> ContainerClient:
        if self._service is None:
            raise QueueUnavailableError("the queue provider is not open")
        return self._service.get_container_client(self._container_name)
