"""The queue provider for Amazon SQS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import boto3

from liteflow.core.errors import SettingsError
from liteflow.core.polled_broadcast import PolledBroadcast
from liteflow.core.polled_queue import PolledQueues
from liteflow.core.providers import Consumer, Delivery, Message, QueueProvider
from liteflow.providers.aws.access import Access
from liteflow.providers.aws.broadcasting import SnsChannel
from liteflow.providers.aws.messages import SqsQueues

LONGEST_VISIBILITY = 12 * 3600
LONGEST_WAIT = 20

PAUSES = (0.05, 1.0)
"""Seconds between two looks into an empty queue, where the server does not wait by itself."""


class SqsQueueProvider(QueueProvider):
    """Durable queues on SQS, broadcasts over SNS.

    `url` is ``sqs://REGION``, with ``?endpoint=`` and ``?profile=`` if need be; see `Access`. Credentials
    come from where boto3 looks for them, or with `session`. `prefix` begins the names of queues and of the
    topic. A message in hand is hidden from others for `visibility_timeout` whole seconds, again and again
    while it is held; if its holder dies it comes back after that. A request waits up to `wait_time` whole
    seconds (0 to 20) for a first message; so long may `close` take.
    """

    def __init__(
        self,
        url: str = "sqs://",
        prefix: str = "liteflow",
        *,
        session: boto3.Session | None = None,
        visibility_timeout: int = 30,
        wait_time: int = 4,
    ) -> None:
        for name, value, least, most in (
            ("visibility_timeout", visibility_timeout, 1, LONGEST_VISIBILITY),
            ("wait_time", wait_time, 0, LONGEST_WAIT),
        ):
            if not isinstance(value, int) or not least <= value <= most:
                raise SettingsError(f"{name} must be whole seconds from {least} to {most}, not {value!r}")
        self._access = Access(url, "sqs", session)
        self._server = SqsQueues(self._access, prefix, visibility_timeout, wait_time)
        self._channel = SnsChannel(self._access, prefix, wait_time)
        pauses = PAUSES if wait_time == 0 else (0.0, 0.0)
        self._queues = PolledQueues(self._server, pauses)
        self._broadcast = PolledBroadcast(self._channel, pauses)

    def __repr__(self) -> str:
        return f"SqsQueueProvider({self._access!r})"

    def open(self) -> None:
        """Raises `ProviderError` if AWS refuses us. If it is away, that is waited for in use."""
        self._server.open()
        self._channel.open()
        self._queues.open()
        self._broadcast.open()

    def close(self) -> None:
        """Give back messages that are held, the queue for broadcasts, connections and threads."""
        self._broadcast.close()
        self._queues.close()
        self._channel.close()
        self._server.close()

    def send(self, messages: Sequence[Message]) -> None:
        """Returns when all are stored. After a `QueueUnavailableError` some of them may have been, too.

        `ProviderError` for a message that is larger than 256 KiB.
        """
        self._queues.require()
        if messages:
            self._server.send(messages)
            self._queues.look(list({message.queue for message in messages}))

    def consume(self, queues: Sequence[str], prefetch: int, callback: Callable[[Delivery], None]) -> Consumer:
        """Hand messages to `callback`, on a thread for each queue, one at a time."""
        return self._queues.consume(queues, prefetch, callback)

    def depth(self, queue: str) -> int:
        """Messages that are ready in a queue, about."""
        return self._server.depth(queue)

    def notify(self, topic: str, body: str = "") -> None:
        """Broadcast: in this process at once, in others as fast as SNS delivers."""
        self._broadcast.notify(topic, body)

    def subscribe(self, topic: str, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with each broadcast on the topic, on a thread of this provider."""
        self._queues.require()
        return self._broadcast.subscribe(topic, callback)
