"""The queue provider for Azure, on Azurite: the contract, deaths, outages, and what Azure adds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from liteflow.core.providers import QueueProvider
from liteflow.core.testing.queue import QueueContract
from liteflow.providers.azure import AzureQueueProvider


@contextmanager
def opened(connection: str, prefix: str, **options: Any) -> Iterator[AzureQueueProvider]:
    provider = AzureQueueProvider(connection, prefix, **options)
    provider.open()
    try:
        yield provider
    finally:
        provider.close()


class TestContract(QueueContract):
    counts_held = True

    @pytest.fixture
    def provider(self, azure: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(azure, prefix) as provider:
            yield provider

    @pytest.fixture
    def second(self, azure: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(azure, prefix) as provider:
            yield provider

    @pytest.fixture
    def elsewhere(self, azure: str, prefix: str) -> Iterator[QueueProvider]:
        with opened(azure, prefix + "x") as provider:
            yield provider
