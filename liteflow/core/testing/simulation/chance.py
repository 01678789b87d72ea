"""What is random in a process, from a seed."""

from __future__ import annotations

import logging
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random


@contextmanager
def seeded(seed: object) -> Iterator[None]:
    """Have `random` and `uuid.uuid4` give what the seed says, the latter to this thread only."""
    chance, mine = Random(f"chance:{seed}"), threading.get_ident()
    state, real = random.getstate(), uuid.uuid4

    def drawn() -> uuid.UUID:
        if threading.get_ident() != mine:
            return real()
        return uuid.UUID(int=chance.getrandbits(128), version=4)

    random.seed(chance.getrandbits(64))
    uuid.uuid4 = drawn
    try:
        yield
    finally:
        uuid.uuid4 = real
        random.setstate(state)


class _Heard(logging.Handler):
    def __init__(self, told: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._told = told
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._told(record)


@contextmanager
def heard(told: Callable[[logging.LogRecord], None], level: int) -> Iterator[None]:
    """Hand what LiteFlow logs in this thread to `told`, from a level on, and nobody else."""
    logger, handler = logging.getLogger("liteflow"), _Heard(told)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before[0], before[1]
        logger.setLevel(before[0])
