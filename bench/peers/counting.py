"""How the task queues tell of their chains: they keep no record, so a chain's steps count in Redis."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pika
import redis

from bench.harness import Env, rate
from bench.peers.environment import DIES_WITH_PARENT, PeerError
from bench.processes import kill, spawn

PREAMBLE = (
    DIES_WITH_PARENT
    + """
import os, redis
QUEUE, AMQP = os.environ["BENCH_QUEUE"], os.environ["BENCH_AMQP"]
counters = redis.Redis.from_url(os.environ["BENCH_REDIS"])

def made(number):
    if number == 0:
        counters.set(f"{QUEUE}:moved", 1)
    elif number == 9:
        counters.incr(f"{QUEUE}:ended")

"""
)
"""What an app begins with: ``made(number)`` is to be called by step 0 to 9 of a chain."""


@dataclass
class Chains:
    """An app on a queue of its own."""

    env: Env
    folder: Path
    queue: str = field(default_factory=lambda: f"peer{uuid.uuid4().hex[:8]}")

    @property
    def environment(self) -> dict[str, str]:
        return {"BENCH_QUEUE": self.queue, "BENCH_AMQP": self.env.amqp, "BENCH_REDIS": self.env.redis}

    def drain(self, submit: Sequence[str], work: Sequence[str], number: int, count: int) -> float:
        """Chains a second of processes of the command `work`, which start after `submit` has ended."""
        log = self.folder / "log"
        running = [spawn(submit, folder=self.folder, environment=self.environment, log=log)]
        counters = redis.Redis.from_url(self.env.redis)
        try:
            if running[0].wait(300) != 0:
                raise PeerError(f"it can't submit: {log.read_text(errors='replace')[-1000:]}")
            running += [
                spawn(work, folder=self.folder, environment=self.environment, log=log) for _ in range(number)
            ]
            return rate(
                lambda: bool(counters.exists(f"{self.queue}:moved")),
                lambda: int(counters.get(f"{self.queue}:ended") or 0),
                count,
            )
        except TimeoutError as exc:
            raise PeerError(f"{exc}: {log.read_text(errors='replace')[-1000:]}") from exc
        finally:
            kill(running)
            counters.delete(f"{self.queue}:moved", f"{self.queue}:ended")
            counters.close()
            with pika.BlockingConnection(pika.URLParameters(self.env.amqp)) as connection:
                for suffix in ("", ".DQ", ".XQ"):
                    connection.channel().queue_delete(self.queue + suffix)


@contextmanager
def chains(env: Env, source: str) -> Iterator[Chains]:
    """An app of this source, as the module `app`."""
    with TemporaryDirectory(prefix="liteflow-bench-peer-") as folder:
        (Path(folder) / "app.py").write_text(PREAMBLE + source)
        yield Chains(env, Path(folder))
