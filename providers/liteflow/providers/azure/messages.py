"""Messages in Storage Queues: each operation for many messages, as `QueueServer` wants it."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient, QueueMessage, QueueServiceClient
from liteflow.core.errors import ProviderError, QueueUnavailableError
from liteflow.core.polled_queue import QueueServer, Received
from liteflow.core.providers import Message
from liteflow.core.wire import message_text, plain_name, read_message
from liteflow.providers.azure.account import Account, code_of

log = logging.getLogger("liteflow.azure")

LARGEST = 64 * 1024
"""Bytes that a message may have on the server, after base64."""

FOREVER = -1
"""Otherwise a message that nobody takes for seven days would be deleted."""

DEAD = "dead"
"""The queue for what can't be read."""

THREADS = 8
"""The server takes one message in a request, so that many are sent and settled side by side."""

T = TypeVar("T")


class StorageQueues(QueueServer):
    """The queues of one prefix. May be opened again after it was closed."""

    def __init__(self, account: Account, prefix: str, visibility: int) -> None:
        self._account = account
        self._prefix = prefix
        self.visibility = visibility
        self._service: QueueServiceClient | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._clients: dict[str, QueueClient] = {}

    def open(self) -> None:
        """Make clients, and see whether we are let in."""
        if self._service is None:
            self._service = self._account.queues()
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="liteflow-azure-queue")
        try:
            self.depth(DEAD)
        except QueueUnavailableError as exc:
            log.warning("%s; it is waited for", exc)

    def close(self) -> None:
        """Give back connections and threads."""
        service, self._service = self._service, None
        pool, self._pool = self._pool, None
        self._clients = {}
        if pool is not None:
            pool.shutdown()
        if service is not None:
            service.close()

    # ------------------------------------------------------------------------------------------ messages

    def send(self, messages: Sequence[Message]) -> None:
        """Store them all. After an error some may have been stored."""
        texts = [(self._client(message.queue), _encoded(message)) for message in messages]
        self._each(lambda one: self._send(*one), texts)

    def _send(self, client: QueueClient, text: str) -> None:
        with self._account.errors(QueueUnavailableError):
            try:
                client.send_message(text, time_to_live=FOREVER)
            except ResourceNotFoundError:
                _create(client)
                client.send_message(text, time_to_live=FOREVER)

    def depth(self, queue: str) -> int:
        """Messages in a queue, those that somebody holds included: the server does not tell them apart."""
        with self._account.errors(QueueUnavailableError):
            try:
                return self._client(queue).get_queue_properties().approximate_message_count or 0
            except ResourceNotFoundError:
                return 0

    def ensure(self, queues: Sequence[str]) -> None:
        with self._account.errors(QueueUnavailableError):
            for queue in queues:
                _create(self._client(queue))

    def receive(self, queue: str, limit: int) -> list[Received]:
        client = self._client(queue)
        with self._account.errors(QueueUnavailableError):
            try:
                page = self._receive(client, limit)
            except ResourceNotFoundError:
                _create(client)
                page = []
        received = []
        for one in page:
            message = read_message(queue, _decoded(one.content))
            if message is None:
                self._set_aside(queue, one)
            else:
                received.append(Received(message, (one.dequeue_count or 1) > 1, one.pop_receipt, one.id))
        return received

    def _receive(self, client: QueueClient, limit: int) -> list[QueueMessage]:
        pages = client.receive_messages(messages_per_page=limit, visibility_timeout=int(self.visibility))
        return list(next(pages.by_page(), []))  # the first page alone: the next one is another request

    def _set_aside(self, queue: str, message: QueueMessage) -> None:
        log.warning(
            "a message in queue %s is none of liteflow's; it goes to the queue %s",
            queue, self._client(DEAD).queue_name,
        )  # fmt: skip
        self._send(self._client(DEAD), str(message.content))
        self.delete([Received(Message(queue, ""), True, message.pop_receipt, message.id)])

    def delete(self, batch: Sequence[Received]) -> None:
        def delete(one: Received) -> None:
            self._client(one.message.queue).delete_message(one.name, one.handle)

        self._each(lambda one: self._ours(delete, one), batch)

    def give_back(self, batch: Sequence[Received], pause: int) -> None:
        self._each(lambda one: self._ours(lambda mine: self._show_after(mine, pause), one), batch)

    def extend(self, batch: Sequence[Received]) -> None:
        seconds = int(self.visibility)
        self._each(lambda one: self._ours(lambda mine: self._show_after(mine, seconds), one), batch)

    def _show_after(self, one: Received, seconds: int) -> None:
        client = self._client(one.message.queue)
        one.handle = client.update_message(one.name, one.handle, visibility_timeout=seconds).pop_receipt

    def _ours(self, act: Callable[[Received], None], one: Received) -> None:
        with self._account.errors(QueueUnavailableError):
            try:
                act(one)
            except ResourceNotFoundError:
                log.debug("message %s is not ours any more", one.name)
            except HttpResponseError as exc:
                if code_of(exc) != "PopReceiptMismatch":
                    raise
                log.debug("message %s was handed to somebody else meanwhile", one.name)

    # ------------------------------------------------------------------------------------------- clients

    def _client(self, queue: str) -> QueueClient:
        service = self._service
        if service is None:
            raise QueueUnavailableError("the queue provider is not open")
        client = self._clients.get(queue)
        if client is None:
            client = service.get_queue_client(plain_name(self._prefix, queue))
            self._clients[queue] = client
        return client

    def _each(self, act: Callable[[T], None], items: Iterable[T]) -> None:
        """Do it for all, side by side; the first error is raised when all have been tried."""
        items = list(items)
        pool = self._pool
        if len(items) == 1:
            act(items[0])
            return
        if pool is None:
            raise QueueUnavailableError("the queue provider is not open")
        failed = [exc for exc in (task.exception() for task in [pool.submit(act, x) for x in items]) if exc]
        if failed:
            raise failed[0]


def _create(client: QueueClient) -> None:
    try:
        client.create_queue()
    except ResourceExistsError as exc:
        if code_of(exc) == "QueueBeingDeleted":
            raise
        log.debug("queue %s is there already", client.queue_name)


def _encoded(message: Message) -> str:
    text = base64.b64encode(message_text(message).encode()).decode()
    if len(text) > LARGEST:
        raise ProviderError(
            f"a message for queue {message.queue} has {len(text)} bytes; Azure takes {LARGEST} at most"
        )
    return text


def _decoded(content: object) -> str:
    try:
        return base64.b64decode(str(content), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
