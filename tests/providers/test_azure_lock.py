"""The lock provider for Azure, on Azurite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from liteflow.core.providers import Lease, LockProvider, Taken
from liteflow.core.testing.lock import LockContract
from liteflow.providers.azure import AzureLockProvider
from liteflow.providers.azure.lock import TURNS


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


@pytest.mark.parametrize("gone", range(TURNS + 1))
def test_a_lease_got_in_whichever_turn_is_given_to_the_caller(
    azure: str, prefix: str, monkeypatch: pytest.MonkeyPatch, gone: int
) -> None:
    """A lease that was got and not told of would keep everybody out until its end."""
    attempt = AzureLockProvider._try
    left = [gone]

    def blob_goes_first(self: AzureLockProvider, *arguments: Any) -> Lease | bool | None:
        if left[0]:
            left[0] -= 1
            return None
        return attempt(self, *arguments)

    monkeypatch.setattr(AzureLockProvider, "_try", blob_goes_first)
    with opened(azure, prefix) as provider, opened(azure, prefix) as second:
        first = provider.acquire(["a"], 15)[0]
        if gone < TURNS:
            assert isinstance(first, Lease)
        else:
            assert isinstance(first, Taken)
            assert first.resend
            assert isinstance(second.acquire(["a"], 15)[0], Lease)
