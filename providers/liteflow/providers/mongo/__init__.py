"""Workflows stored in MongoDB."""

from liteflow.providers.mongo.persistence import MongoPersistenceProvider

__all__ = ["MongoPersistenceProvider"]
