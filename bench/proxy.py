"""TCP proxies on the loopback that let what the client sends wait.

    python -m bench.proxy MILLISECONDS PORT...

Prints the ports on which it listens, in the same order.
"""

from __future__ import annotations

import asyncio
import sys


class Side(asyncio.Protocol):
    """One end of a connection: what it receives goes to the other one, after a while."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self.other: Side | None = None
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        for data in self._early:
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self.other.write, data)
        else:
            self.other.write(data)

    def write(self, data: bytes) -> None:
        """Send it, or keep it until there is a connection."""
        if self.transport is None:
            self._early.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def listen(port: int, delay: float) -> asyncio.Server:
    """A proxy to this port on a free one."""
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[object]] = set()

    def accept() -> Side:
        client, server = Side(delay), Side(0.0)
        client.other, server.other = server, client
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(lambda: server, "127.0.0.1", port)
        )
        pending.add(task)
        task.add_done_callback(pending.discard)
        return client

    return await loop.create_server(accept, "127.0.0.1", 0)


async def serve(delay: float, ports: list[int]) -> None:
    """Listen for all of them until the process is ended."""
    listeners = [await listen(port, delay) for port in ports]
    print(*(listener.sockets[0].getsockname()[1] for listener in listeners), flush=True)
    await asyncio.gather(*(listener.serve_forever() for listener in listeners))


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]) / 1000, [int(port) for port in sys.argv[2:]]))
