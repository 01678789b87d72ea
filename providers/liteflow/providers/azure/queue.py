"""The queue provider for Azure Storage Queues."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from azure.core.credentials import TokenCredential
from liteflow.core.errors import SettingsError
from liteflow.core.polled_broadcast import PolledBroadcast
from liteflow.core.polled_queue import PolledQueues
from liteflow.core.providers import Consumer, Delivery, Message, QueueProvider
from liteflow.providers.azure.account import Account
from liteflow.providers.azure.broadcasting import BlobChannel
from liteflow.providers.azure.messages import StorageQueues

FIRST_PAUSE = 0.05
"""Seconds until a queue that was empty is asked again; doubles up to `poll_interval` while it stays empty."""

LONGEST_VISIBILITY = 7 * 24 * 3600


class AzureQueueProvider(QueueProvider):
    """Durable queues and broadcasts on a storage account.

    `connection` is a connection string or ``azure://ACCOUNT``; see `Account`. `credential` is one of
    azure-identity's, or another one with ``get_token``. `prefix` begins the names of queues and containers.
    A message in hand is hidden from others for `visibility_timeout` whole seconds, again and again while it
    is held; if its holder dies it comes back after that. An empty queue is asked at least every
    `poll_interval` seconds, broadcasts at least every `broadcast_interval`.
    """

    def __init__(
        self,
        connection: str,
        prefix: str = "liteflow",
        *,
        credential: TokenCredential | None = None,
        visibility_timeout: int = 30,
        poll_interval: float = 1.0,
        broadcast_interval: float = 0.5,
    ) -> None:
        if not isinstance(visibility_timeout, int) or not 1 <= visibility_timeout <= LONGEST_VISIBILITY:
            raise SettingsError(
                f"visibility_timeout must be whole seconds from 1 to {LONGEST_VISIBILITY}, not"
                f" {visibility_timeout!r}"
            )
        for name, value in (("poll_interval", poll_interval), ("broadcast_interval", broadcast_interval)):
            if value <= 0:
                raise SettingsError(f"{name} must be seconds above 0, not {value!r}")
        self._account = Account(connection, credential)
        self._server = StorageQueues(self._account, prefix, visibility_timeout)
        self._channel = BlobChannel(self._account, prefix)
        self._queues = PolledQueues(self._server, (min(FIRST_PAUSE, poll_interval), poll_interval))
        self._broadcast = PolledBroadcast(
            self._channel, (min(FIRST_PAUSE, broadcast_interval), broadcast_interval)
        )

    def __repr__(self) -> str:
        return f"AzureQueueProvider({self._account.name})"

    def open(self) -> None:
        """Raises `ProviderError` if the account refuses us. One that is away is waited for in use."""
        self._server.open()
        self._channel.open()
        self._queues.open()
        self._broadcast.open()

    def close(self) -> None:
        """Give back messages that are held, connections and threads."""
        self._broadcast.close()
        self._queues.close()
        self._channel.close()
        self._server.close()

    def send(self, messages: Sequence[Message]) -> None:
        """Returns when all are stored. After a `QueueUnavailableError` some of them may have been, too.

        `ProviderError` for a message that is larger than 64 KiB in base64.
        """
        self._queues.require()
        if messages:
            self._server.send(messages)
            self._queues.look(list({message.queue for message in messages}))

    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """Hand messages to `callback`, on a thread for each queue, one at a time."""
        return self._queues.consume(queues, prefetch, callback)

    def depth(self, queue: str) -> int:
        """Messages in a queue, about; those that somebody holds are counted too."""
        return self._server.depth(queue)

    def notify(self, topic: str, body: str = "") -> None:
        """Broadcast: in this process at once, in others within `broadcast_interval`."""
        self._broadcast.notify(topic, body)

    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each broadcast on the topic, on a thread of this provider."""
        self._queues.require()
        return self._broadcast.subscribe(topic, callback)
