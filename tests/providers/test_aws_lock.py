"""The lock provider for AWS, on moto's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import boto3
import pytest

from liteflow.core.providers import Lease, LockProvider, Taken
from liteflow.core.server_clock import ServerClock
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


def test_who_is_turned_away_hears_when_the_lease_is_given_away(aws_endpoint: str, prefix: str) -> None:
    """By who knows the server's time least well that is later than its end: else all ask again in vain."""

    class Clock(ServerClock):
        uncertainty = timedelta(seconds=5)

        def now(self) -> datetime:
            return super().now() + timedelta(seconds=9)

    with opened(aws_endpoint, prefix) as holder, opened(aws_endpoint, prefix) as other:
        assert isinstance(holder.acquire(["name"], 10)[0], Lease)
        other._measured().__class__ = Clock
        (taken,) = other.acquire(["name"], 30)
        assert isinstance(taken, Taken)
        assert 3 < taken.expires_in < 9  # 6, as exactly as the two know the time
