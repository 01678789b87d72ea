"""Queues on SQS and leases on DynamoDB."""

from liteflow.providers.aws.lock import DynamoLockProvider
from liteflow.providers.aws.queue import SqsQueueProvider

__all__ = ["DynamoLockProvider", "SqsQueueProvider"]
