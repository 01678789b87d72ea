"""The in-process queue provider passes the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from liteflow.core.memory_queue import SingleNodeQueueProvider
from liteflow.core.providers import QueueProvider
from liteflow.core.testing.queue import QueueContract


def _opened() -> Iterator[QueueProvider]:
    provider = SingleNodeQueueProvider()
    provider.open()
    yield provider
    provider.close()


class TestSingleNodeQueueProvider(QueueContract):
    @pytest.fixture
    def provider(self) -> Iterator[QueueProvider]:
        yield from _opened()

    @pytest.fixture
    def second(self, provider: QueueProvider) -> Iterator[QueueProvider]:
        yield provider

    @pytest.fixture
    def elsewhere(self) -> Iterator[QueueProvider]:
        yield from _opened()

    def test_is_local(self, provider: QueueProvider) -> None:
        assert not provider.shared
