"""The lock provider for AWS, on moto's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest

from liteflow.core.providers import LockProvider
from liteflow.core.testing.lock import LockContract
from liteflow.providers.aws import DynamoLockProvider

SESSION = boto3.Session(aws_access_key_id="AKIATEST", aws_secret_access_key="s3cret-word")


@contextmanager
def opened(endpoint: str, prefix: str) -> Iterator[DynamoLockProvider]:
    provider = DynamoLockProvider(f"dynamodb://eu-west-1?endpoint={endpoint}", prefix, session=SESSION)
    provider.open()
    try:
        yield provider
    finally:
        provider.close()


class TestContract(LockContract):
    @pytest.fixture
    def provider(self, aws_endpoint: str, prefix: str) -> Iterator[LockProvider]:
        with opened(aws_endpoint, prefix) as provider:
            yield provider

    @pytest.fixture
    def second(self, aws_endpoint: str, prefix: str) -> Iterator[LockProvider]:
        with opened(aws_endpoint, prefix) as provider:
            yield provider
