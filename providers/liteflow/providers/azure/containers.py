"""Blob containers, made when they are first needed."""

from __future__ import annotations

import logging

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import ContainerClient
from liteflow.providers.azure.account import code_of

log = logging.getLogger("liteflow.azure")


def create_container(container: ContainerClient) -> None:
    """Create it, unless it is there. Raises Azure's errors."""
    try:
        container.create_container()
    except ResourceExistsError as exc:
        if code_of(exc) == "ContainerBeingDeleted":
            raise
        log.debug("container %s is there already", container.container_name)
