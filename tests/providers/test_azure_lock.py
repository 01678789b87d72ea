"""The lock provider for Azure, on Azurite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from liteflow.core.providers import LockProvider
from liteflow.core.testing.lock import LockContract
from liteflow.providers.azure import AzureLockProvider


@contextmanager
def opened(connection: str, prefix: str) -> Iterator[AzureLockProvider]:
    provider = AzureLockProvider(connection, prefix)
    provider.open()
    try:
        yield provider
    finally:
        provider.close()


class TestContract(LockContract):
    @pytest.fixture
    def provider(self, azure: str, prefix: str) -> Iterator[LockProvider]:
        with opened(azure, prefix) as provider:
            yield provider

    @pytest.fixture
    def second(self, azure: str, prefix: str) -> Iterator[LockProvider]:
        with opened(azure, prefix) as provider:
            yield provider
