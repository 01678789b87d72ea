from __future__ import annotations

import pytest
from liteflow_filelock import FileLockProvider

from liteflow.core.testing.lock import LockContract


class TestFileLock(LockContract):
    @pytest.fixture
    def provider(self, tmp_path):
        return self.opened(tmp_path)

    @pytest.fixture
    def second(self, tmp_path):
        return self.opened(tmp_path)

    def opened(self, folder):
        provider = FileLockProvider(f"filelock://{folder}")
        provider.open()
        return provider
