"""The queue provider for AWS, on moto's server: the contract, deaths, outages, and what SQS adds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from liteflow.core.providers import QueueProvider
from liteflow.core.testing.queue import QueueContract
from liteflow.providers.aws import SqsQueueProvider

SESSION = boto3.Session(aws_access_key_id="AKIATEST", aws_secret_access_key="s3cret-word")


@contextmanager
def opened(endpoint: str, prefix: str, **options: Any) -> Iterator[SqsQueueProvider]:
    options = {"session": SESSION, "wait_time": 1, **options}
    provider = SqsQueueProvider(f"sqs://eu-west-1?endpoint={endpoint}", prefix, **options)
    provider.open()
    try:
        yield provider
    finally:
        provider.close()


class TestContract(QueueContract):
    @pytest.fixture
    def provider(self, aws_endpoint: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(aws_endpoint, prefix) as provider:
            yield provider

    @pytest.fixture
    def second(self, aws_endpoint: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(aws_endpoint, prefix) as provider:
            yield provider

    @pytest.fixture
    def elsewhere(self, aws_endpoint: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(aws_endpoint, prefix + "x") as provider:
            yield provider
