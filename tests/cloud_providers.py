"""Providers of both clouds on their emulators: what the tests of the two share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3

from liteflow.core.providers import LockProvider, QueueProvider
from liteflow.providers.aws import DynamoLockProvider, SqsQueueProvider
from liteflow.providers.azure import AzureLockProvider, AzureQueueProvider

SECRET = "s3cret-word"


def session(secret: str = SECRET) -> boto3.Session:
    """The emulator takes any."""
    return boto3.Session(aws_access_key_id="AKIATEST", aws_secret_access_key=secret)


def queue_on(kind: str, connection: str, prefix: str, **options: Any) -> QueueProvider:
    """A provider that is not open. `connection` is Azurite's connection string or moto's endpoint."""
    if kind == "azure":
        return AzureQueueProvider(connection, prefix, **options)
    options = {"session": session(), "wait_time": 1, **options}
    return SqsQueueProvider(f"sqs://eu-west-1?endpoint={connection}", prefix, **options)


def lock_on(kind: str, connection: str, prefix: str) -> LockProvider:
    """A provider that is not open."""
    if kind == "azure":
        return AzureLockProvider(connection, prefix)
    return DynamoLockProvider(f"dynamodb://eu-west-1?endpoint={connection}", prefix, session=session())


@contextmanager
def opened_queue(kind: str, connection: str, prefix: str, **options: Any) -> Iterator[QueueProvider]:
    """An open queue provider."""
    provider = queue_on(kind, connection, prefix, **options)
    provider.open()
    try:
        yield provider
    finally:
        provider.close()


@contextmanager
def opened_lock(kind: str, connection: str, prefix: str) -> Iterator[LockProvider]:
    """An open lock provider."""
    provider = lock_on(kind, connection, prefix)
    provider.open()
    try:
        yield provider
    finally:
        provider.close()


@contextmanager
def holder(kind: str, connection: str, prefix: str, queue: str) -> Iterator[subprocess.Popen[str]]:
    """A process that takes messages and settles none; it is killed in the end, if it was not before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cloud_process", kind, connection, prefix, queue],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
