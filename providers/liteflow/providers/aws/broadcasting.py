"""Broadcasts through SNS: a topic for the prefix, and for each process a queue that subscribes to it.

A process that ends removes its queue. One that dies leaves it; each queue says in a tag when it was last
listened to, and who joins removes those that were not for a day.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from liteflow.core.errors import QueueUnavailableError
from liteflow.core.polled_broadcast import BroadcastChannel
from liteflow.core.wire import plain_name
from liteflow.providers.aws.access import READ_TIMEOUT, Access, code_of, is_missing

log = logging.getLogger("liteflow.aws")

KEPT = 60
"""Seconds that a broadcast waits for a process that hangs: the shortest time that SQS offers."""

HIDDEN = 3
"""Seconds until a broadcast is heard after all that a request took whose answer never came.

SQS goes on with a request whose connection is lost, and hides for this long what it would have answered.
"""

SEEN = "liteflow-seen"
"""The tag that says when a queue was last listened to, in seconds since 1970."""

SEEN_EVERY = 3600.0
ABANDONED_AFTER = 24 * 3600.0


class SnsChannel(BroadcastChannel):
    """The broadcasts of one prefix."""

    largest = 200 * 1024

    def __init__(self, access: Access, prefix: str, wait: int) -> None:
        self._access = access
        self._prefix = prefix
        self._wait = wait
        self._topic_name = plain_name(prefix, "broadcast", 80)
        self._sqs: Any = None
        self._sns: Any = None
        self._topic: str | None = None
        self._queue: str | None = None  # its URL
        self._subscription: str | None = None
        self._seen_at = 0.0

    def open(self) -> None:
        """Make clients; nothing is asked yet."""
        if self._sqs is None:
            self._sqs = self._access.client("sqs", read_timeout=READ_TIMEOUT + self._wait)
            self._sns = self._access.client("sns")

    def close(self) -> None:
        """Give back the connections."""
        sqs, self._sqs = self._sqs, None
        sns, self._sns = self._sns, None
        for client in (sqs, sns):
            if client is not None:
                client.close()

    def say(self, text: str) -> None:
        self._require()
        with self._access.errors(QueueUnavailableError):
            try:
                self._sns.publish(TopicArn=self._topic_arn(), Message=text)
            except ClientError as exc:
                if not is_missing(exc):
                    raise
                self._topic = None
                self._sns.publish(TopicArn=self._topic_arn(), Message=text)

    def join(self) -> None:
        self._require()
        self._topic = self._queue = None  # whatever there was may be gone
        with self._access.errors(QueueUnavailableError):
            topic = self._topic_arn()
            name = plain_name(self._prefix, f"listener-{uuid.uuid4().hex[:12]}", 80)
            made = self._sqs.create_queue(
                QueueName=name,
                Attributes={"MessageRetentionPeriod": str(KEPT), "VisibilityTimeout": str(HIDDEN)},
                tags={SEEN: str(int(time.time()))},
            )
            url = str(made["QueueUrl"])
            arn = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
            arn = str(arn["Attributes"]["QueueArn"])
            self._sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": _policy(arn, topic)})
            made = self._sns.subscribe(
                TopicArn=topic,
                Protocol="sqs",
                Endpoint=arn,
                Attributes={"RawMessageDelivery": "true"},
                ReturnSubscriptionArn=True,
            )
            self._subscription = str(made["SubscriptionArn"])
        self._queue, self._seen_at = url, time.monotonic()
        self._remove_abandoned(topic)

    def hear(self) -> list[str]:
        self._require()
        if self._queue is None:
            self.join()
        with self._access.errors(QueueUnavailableError):
            try:
                answer = self._sqs.receive_message(
                    QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=self._wait
                )
                messages = answer.get("Messages", [])
                if messages:
                    entries = [
                        {"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]}
                        for n, one in enumerate(messages)
                    ]
                    self._sqs.delete_message_batch(QueueUrl=self._queue, Entries=entries)
                self._still_there()
            except ClientError as exc:
                if not is_missing(exc):
                    raise
                self._queue = None
                return []
        return [str(one["Body"]) for one in messages]

    def leave(self) -> None:
        url, self._queue = self._queue, None
        subscription, self._subscription = self._subscription, None
        with self._access.errors(QueueUnavailableError):
            if subscription is not None:
                self._sns.unsubscribe(SubscriptionArn=subscription)
            if url is not None:
                self._sqs.delete_queue(QueueUrl=url)

    def _require(self) -> None:
        if self._sqs is None:
            raise QueueUnavailableError("the queue provider is not open")

    def _topic_arn(self) -> str:
        if self._topic is None:
            self._topic = str(self._sns.create_topic(Name=self._topic_name)["TopicArn"])
        return self._topic

    def _still_there(self) -> None:
        now = time.monotonic()
        if now - self._seen_at >= SEEN_EVERY:
            self._sqs.tag_queue(QueueUrl=self._queue, Tags={SEEN: str(int(time.time()))})
            self._seen_at = now

    def _remove_abandoned(self, topic: str) -> None:
        """What processes that died have left. Without the permissions for it, somebody else has to."""
        try:
            pages = self._sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
            for one in [one for page in pages for one in page["Subscriptions"]]:
                if one["Protocol"] == "sqs" and self._is_abandoned(str(one["Endpoint"])):
                    self._sns.unsubscribe(SubscriptionArn=one["SubscriptionArn"])
        except (ClientError, BotoCoreError) as exc:
            what = code_of(exc) if isinstance(exc, ClientError) else type(exc).__name__
            log.info("queues that dead processes may have left for broadcasts are not removed: %s", what)

    def _is_abandoned(self, arn: str) -> bool:
        """True if nobody has listened for a day; then the queue is deleted. True if there is none."""
        try:
            url = self._sqs.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
            tags = self._sqs.list_queue_tags(QueueUrl=url).get("Tags", {})
            if SEEN not in tags or time.time() - int(tags[SEEN]) < ABANDONED_AFTER:
                return False
            self._sqs.delete_queue(QueueUrl=url)
        except ClientError as exc:
            if not is_missing(exc):
                raise
        return True


def _policy(queue: str, topic: str) -> str:
    """Lets the topic, and nothing else of SNS, send to the queue."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": queue,
                    "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
                }
            ],
        }
    )
