"""A process that takes messages of one queue and never settles them, until it is killed.

``python -m cloud_process azure|aws CONNECTION PREFIX QUEUE``; prints the body of each message that it holds.
"""

from __future__ import annotations

import sys
import threading

from cloud_providers import opened_queue


def main(kind: str, connection: str, prefix: str, queue: str) -> None:
    with opened_queue(kind, connection, prefix, visibility_timeout=2) as provider:
        provider.consume([queue], 10, lambda delivery: print(delivery.message.body, flush=True))
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
