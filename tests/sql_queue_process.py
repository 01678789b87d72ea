"""A process that takes messages and keeps them: ``python -m sql_queue_process URL PREFIX QUEUE TTL``.

It writes the body of each, and acknowledges none.
"""

from __future__ import annotations

import sys
import threading

from liteflow.core.providers import Delivery
from liteflow.providers.sql import SqlQueueProvider


def main(url: str, prefix: str, queue: str, ttl: str) -> None:
    provider = SqlQueueProvider(url, prefix=prefix, session_ttl=float(ttl))
    provider.open()

    def take(delivery: Delivery) -> None:
        print(delivery.message.body, flush=True)

    provider.consume([queue], 3, take)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
