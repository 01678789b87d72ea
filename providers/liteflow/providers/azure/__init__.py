"""Queues and leases on an Azure Storage account."""

from liteflow.providers.azure.lock import AzureLockProvider
from liteflow.providers.azure.queue import AzureQueueProvider

__all__ = ["AzureLockProvider", "AzureQueueProvider"]
