"""Queues, broadcasts and commands over RabbitMQ."""

from liteflow.providers.rabbitmq.queue import RabbitMQQueueProvider

__all__ = ["RabbitMQQueueProvider"]
