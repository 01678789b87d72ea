"""Leases for LiteFlow in files of one machine."""

from liteflow_filelock.lock import FileLockProvider

__all__ = ["FileLockProvider"]
