"""Broadcasts of both clouds beyond the contract: blobs that fill up, queues that dead processes leave."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cloud_providers import opened_queue, session
from servers import wait_for

from liteflow.core.testing.queue import Inbox, until
from liteflow.providers.aws.access import Access
from liteflow.providers.aws.broadcasting import ABANDONED_AFTER, SEEN, SnsChannel
from liteflow.providers.azure.account import Account
from liteflow.providers.azure.broadcasting import BlobChannel

FULL = 60_000


@pytest.fixture
def channels(azure: str, prefix: str) -> Iterator[list[BlobChannel]]:
    """Three on the same blobs, which hold a dozen texts each."""
    made = [BlobChannel(Account(azure), prefix, FULL) for _ in range(3)]
    for channel in made:
        channel.open()
    yield made
    for channel in made:
        channel.close()


def heard(channel: BlobChannel, count: int) -> list[str]:
    texts: list[str] = []

    def enough() -> bool:
        texts.extend(channel.hear())
        return len(texts) >= count

    until(enough)
    return texts


def test_a_full_blob_is_followed_by_another_and_removed(channels: list[BlobChannel]) -> None:
    """By two who write in turns; whoever listens hears everything, in order."""
    one, two, listens = channels
    listens.join()
    said = []
    for number in range(60):
        said.append(f"{number} " + "x" * 5_000)
        (one if number % 3 else two).say(said[-1])
        if number % 5 == 4:
            assert heard(listens, 5) == said[-5:]
    names = [blob.name for blob in listens._container().list_blobs()]
    assert len(names) <= 2
    assert int(max(names)) >= 4


def test_who_was_left_far_behind_hears_on(channels: list[BlobChannel]) -> None:
    """Its blob is gone; some was missed, but what comes from now on is heard."""
    says, _, listens = channels
    says.say("first")
    listens.join()
    for number in range(60):
        says.say(f"{number} " + "x" * 5_000)
    until(lambda: any(text.startswith("59 ") for text in listens.hear()))
    says.say("now")
    assert heard(listens, 1) == ["now"]


def test_who_joins_hears_nothing_old(channels: list[BlobChannel]) -> None:
    says, _, listens = channels
    says.say("old")
    listens.join()
    assert listens.hear() == []
    says.say("new")
    assert heard(listens, 1) == ["new"]


def test_blobs_that_were_deleted_are_begun_anew(channels: list[BlobChannel]) -> None:
    says, _, listens = channels
    listens.join()
    says.say("the first")
    assert heard(listens, 1) == ["the first"]
    for blob in says._container().list_blobs():
        says._container().delete_blob(blob.name)
    says.say("2")
    assert heard(listens, 1) == ["2"]


@pytest.mark.parametrize("kind", ["azure", "aws"])
def test_a_burst_of_broadcasts_arrives_in_order(
    kind: str, azure: str, aws_endpoint: str, prefix: str
) -> None:
    """They share few requests; one that is too large for any gets lost alone."""
    connection = azure if kind == "azure" else aws_endpoint
    inbox = Inbox()
    with opened_queue(kind, connection, prefix) as says, opened_queue(kind, connection, prefix) as listens:
        listens.subscribe("topic", inbox)
        bodies = [f"{number} ä" + "x" * 1_000 for number in range(300)]
        says.notify("topic", "x" * 500_000)
        for body in bodies:
            says.notify("topic", body)
        inbox.wait(300)
        inbox.stays(300)
        assert sorted(inbox.bodies()) == sorted(bodies)
        if kind == "azure":  # SNS promises no order
            assert inbox.bodies() == bodies


@pytest.mark.parametrize("kind", ["azure", "aws"])
def test_what_was_said_before_closing_is_still_sent(
    kind: str, azure: str, aws_endpoint: str, prefix: str
) -> None:
    connection = azure if kind == "azure" else aws_endpoint
    inbox = Inbox()
    with opened_queue(kind, connection, prefix) as listens:
        listens.subscribe("topic", inbox)
        with opened_queue(kind, connection, prefix) as says:
            says.notify("topic", "last words")
        inbox.wait(1)


# --------------------------------------------------------------------------------------------------- AWS


def queues_of(channel: SnsChannel) -> set[str]:
    pages = channel._sns.list_subscriptions_by_topic(TopicArn=channel._topic_arn())
    return {one["Endpoint"].rpartition(":")[2] for one in pages["Subscriptions"]}


def test_queues_of_the_dead_are_removed_by_who_joins(aws_endpoint: str, prefix: str) -> None:
    access = Access(f"sqs://eu-west-1?endpoint={aws_endpoint}", "sqs", session())
    dead, hangs, joins = (SnsChannel(access, prefix, 0) for _ in range(3))
    for channel in (dead, hangs, joins):
        channel.open()
    dead.join()
    hangs.join()
    before = queues_of(joins)
    assert len(before) == 2
    assert dead._queue is not None
    long_ago = str(int(time.time() - ABANDONED_AFTER - 60))
    dead._sqs.tag_queue(QueueUrl=dead._queue, Tags={SEEN: long_ago})
    joins.join()
    after = queues_of(joins)
    assert len(before & after) == 1
    assert len(after) == 2
    joins.leave()
    assert queues_of(joins) == before & after
    for channel in (dead, hangs, joins):
        channel.close()


def test_what_a_lost_answer_has_taken_is_heard_after_all(aws_endpoint: str, prefix: str) -> None:
    """Within the deadline of `until`, which is shorter than the 30 seconds that SQS hides messages for."""
    access = Access(f"sqs://eu-west-1?endpoint={aws_endpoint}", "sqs", session())
    channel = SnsChannel(access, prefix, 0)
    channel.open()
    channel.join()
    channel.say("hello")
    answer = channel._sqs.receive_message(QueueUrl=channel._queue)
    assert [one["Body"] for one in answer["Messages"]] == ["hello"]
    until(lambda: channel.hear() == ["hello"])
    channel.leave()
    channel.close()


def test_a_closed_provider_leaves_no_queue_for_broadcasts(aws_endpoint: str, prefix: str) -> None:
    access = Access(f"sqs://eu-west-1?endpoint={aws_endpoint}", "sqs", session())
    looks = SnsChannel(access, prefix, 0)
    looks.open()
    with opened_queue("aws", aws_endpoint, prefix) as provider:
        provider.subscribe("topic", Inbox())
        wait_for("it has a queue", lambda: len(queues_of(looks)) == 1)
    assert queues_of(looks) == set()
    looks.close()
