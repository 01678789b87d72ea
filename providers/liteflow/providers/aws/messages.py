"""Messages in SQS: each operation for many messages, as `QueueServer` wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from liteflow.core.errors import ProviderError, QueueUnavailableError
from liteflow.core.polled_queue import QueueServer, Received
from liteflow.core.providers import Message
from liteflow.core.wire import message_text, plain_name, read_message
from liteflow.providers.aws.access import READ_TIMEOUT, Access, is_missing

log = logging.getLogger("liteflow.aws")

LARGEST = 256 * 1024
"""Bytes of one message, and of one request's messages together."""

BATCH = 10
"""So many messages SQS takes or gives in one request."""

RETENTION = 14 * 24 * 3600
"""Seconds that SQS keeps a message that nobody takes, at most."""

DEAD = "dead"
"""The queue for what can't be read."""

LONGEST_NAME = 80
THREADS = 8

RETRIABLE = {"InternalError", "ServiceUnavailable", "RequestThrottled", "ThrottlingException", "OverLimit"}

T = TypeVar("T")
Entry = dict[str, Any]


class SqsQueues(QueueServer):
    """The queues of one prefix. May be opened again after it was closed."""

    def __init__(self, access: Access, prefix: str, visibility: int, wait: int) -> None:
        self._access = access
        self._prefix = prefix
        self.visibility = visibility
        self._wait = wait
        self._client: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._urls: dict[str, str] = {}

    def open(self) -> None:
        """Make a client, and see whether we are let in."""
        if self._client is None:
            self._client = self._access.client("sqs", read_timeout=READ_TIMEOUT + self._wait)
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="liteflow-sqs")
        try:
            self.depth(DEAD)
        except QueueUnavailableError as exc:
            log.warning("%s; it is waited for", exc)

    def close(self) -> None:
        """Give back connections and threads."""
        client, self._client = self._client, None
        pool, self._pool = self._pool, None
        self._urls = {}
        if pool is not None:
            pool.shutdown()
        if client is not None:
            client.close()

    # ------------------------------------------------------------------------------------------ messages

    def send(self, messages: Sequence[Message]) -> None:
        """Store them all. After an error some may have been stored."""
        batches = [
            (queue, batch)
            for queue, texts in _by_queue((one.queue, _checked(one)) for one in messages).items()
            for batch in _batches(texts)
        ]
        self._each(lambda one: self._send(*one), batches)

    def _send(self, queue: str, texts: Sequence[str]) -> None:
        entries = [{"Id": str(number), "MessageBody": text} for number, text in enumerate(texts)]
        answer = self._on(queue, lambda client, url: client.send_message_batch(QueueUrl=url, Entries=entries))
        for failed in answer.get("Failed", ()):
            if failed.get("SenderFault"):
                raise ProviderError(f"SQS refuses a message for queue {queue} ({failed['Code']})")
            raise QueueUnavailableError(f"SQS did not store a message for queue {queue} ({failed['Code']})")

    def depth(self, queue: str) -> int:
        """Messages that are ready in a queue, about: SQS counts them a little late."""
        name = "ApproximateNumberOfMessages"
        with self._access.errors(QueueUnavailableError):
            try:
                url = self._urls.get(queue) or self._find(queue)
                answer = self._require().get_queue_attributes(QueueUrl=url, AttributeNames=[name])
            except ClientError as exc:
                if not is_missing(exc):
                    raise
                return 0
        return int(answer["Attributes"][name])

    def ensure(self, queues: Sequence[str]) -> None:
        with self._access.errors(QueueUnavailableError):
            for queue in queues:
                self._url(queue)

    def receive(self, queue: str, limit: int) -> list[Received]:
        answer = self._on(
            queue,
            lambda client, url: client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(limit, BATCH),
                VisibilityTimeout=int(self.visibility),
                WaitTimeSeconds=self._wait,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            ),
        )
        received = []
        for one in answer.get("Messages", ()):
            message = read_message(queue, one["Body"])
            count = int(one.get("Attributes", {}).get("ApproximateReceiveCount", 1))
            if message is None:
                self._set_aside(queue, one)
            else:
                received.append(Received(message, count > 1, one["ReceiptHandle"], one["MessageId"]))
        return received

    def _set_aside(self, queue: str, message: Mapping[str, Any]) -> None:
        log.warning(
            "a message in queue %s is none of liteflow's; it goes to the queue %s", queue, self._name(DEAD)
        )
        self._send(DEAD, [message["Body"]])
        self.delete([Received(Message(queue, ""), True, message["ReceiptHandle"], message["MessageId"])])

    def delete(self, batch: Sequence[Received]) -> None:
        self._settle(batch, lambda client, url, entries: client.delete_message_batch(
            QueueUrl=url, Entries=entries
        ))  # fmt: skip

    def give_back(self, batch: Sequence[Received], pause: int) -> None:
        self._change_visibility(batch, pause)

    def extend(self, batch: Sequence[Received]) -> None:
        self._change_visibility(batch, int(self.visibility))

    def _change_visibility(self, batch: Sequence[Received], seconds: int) -> None:
        self._settle(batch, lambda client, url, entries: client.change_message_visibility_batch(
            QueueUrl=url, Entries=[{**entry, "VisibilityTimeout": seconds} for entry in entries]
        ))  # fmt: skip

    def _settle(self, batch: Sequence[Received], call: Callable[[Any, str, list[Entry]], Any]) -> None:
        """In requests of ten. What is not ours any more is left out; what SQS is too busy for is an error."""

        def settle(one: tuple[str, list[Entry]]) -> None:
            queue, entries = one
            answer = self._on(queue, lambda client, url: call(client, url, entries))
            for failed in answer.get("Failed", ()):
                if failed["Code"] in RETRIABLE or not failed.get("SenderFault", True):
                    raise QueueUnavailableError(f"SQS could not settle a message ({failed['Code']})")
                log.debug("a message of queue %s is not ours any more (%s)", queue, failed["Code"])

        handles = _by_queue((one.message.queue, one.handle) for one in batch)
        self._each(
            settle,
            [
                (queue, [{"Id": str(n), "ReceiptHandle": h} for n, h in enumerate(some[at : at + BATCH])])
                for queue, some in handles.items()
                for at in range(0, len(some), BATCH)
            ],
        )

    # -------------------------------------------------------------------------------------------- queues

    def _on(self, queue: str, call: Callable[[Any, str], Any]) -> Any:
        """Call with the client and the queue's URL; once more if the queue has to be created first."""
        with self._access.errors(QueueUnavailableError):
            try:
                return call(self._require(), self._url(queue))
            except ClientError as exc:
                if not is_missing(exc):
                    raise
                self._urls.pop(queue, None)
                return call(self._require(), self._url(queue))

    def _url(self, queue: str) -> str:
        url = self._urls.get(queue)
        if url is None:
            try:
                url = self._find(queue)
            except ClientError as exc:
                if not is_missing(exc):
                    raise
                attributes = {"MessageRetentionPeriod": str(RETENTION)}
                made = self._require().create_queue(QueueName=self._name(queue), Attributes=attributes)
                url = str(made["QueueUrl"])
            self._urls[queue] = url
        return url

    def _find(self, queue: str) -> str:
        return str(self._require().get_queue_url(QueueName=self._name(queue))["QueueUrl"])

    def _name(self, queue: str) -> str:
        return plain_name(self._prefix, queue, LONGEST_NAME)

    def _require(self) -> Any:
        client = self._client
        if client is None:
            raise QueueUnavailableError("the queue provider is not open")
        return client

    def _each(self, act: Callable[[T], None], items: Sequence[T]) -> None:
        """Do it for all, side by side; the first error is raised when all have been tried."""
        pool = self._pool
        if len(items) <= 1:
            for item in items:
                act(item)
            return
        if pool is None:
            raise QueueUnavailableError("the queue provider is not open")
        failed = [exc for exc in (task.exception() for task in [pool.submit(act, x) for x in items]) if exc]
        if failed:
            raise failed[0]


def _by_queue(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for queue, item in pairs:
        found.setdefault(queue, []).append(item)
    return found


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Of at most ten, and of what SQS takes at a time."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == BATCH or size + len(text) > LARGEST):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def _checked(message: Message) -> str:
    text = message_text(message)
    if len(text) > LARGEST:
        raise ProviderError(
            f"a message for queue {message.queue} has {len(text)} bytes; SQS takes {LARGEST} at most"
        )
    return text
