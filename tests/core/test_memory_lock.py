from __future__ import annotations

import pytest

from liteflow.core import LocalLockProvider, LockProvider
from liteflow.core.testing.lock import LockContract


class TestLocalLock(LockContract):
    @pytest.fixture
    def provider(self) -> LockProvider:
        return LocalLockProvider()

    @pytest.fixture
    def second(self, provider: LockProvider) -> LockProvider:
        return provider
