"""TCP links between processes and servers that a test can cut, refuse and stall."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

_RESET = struct.pack("ii", 1, 0)
CHUNK = 65536


class Link:
    """One port of this machine that leads to another one. Its methods may be called from any thread."""

    def __init__(self, proxy: Proxy, target: int) -> None:
        self._proxy = proxy
        self.target = target
        self.port = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        """Begin to forward; sets `port`."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        self.port = server.sockets[0].getsockname()[1]
        self._proxy.opened(server)

    def cut(self) -> None:
        """Reset all connections that there are."""
        self._proxy.call(self._cut)

    def refuse(self, yes: bool = True) -> None:
        """Reset all connections, and each new one as long as it stays so."""
        self._refuses = yes
        if yes:
            self.cut()

    def stall(self, yes: bool = True) -> None:
        """Let nothing through any more, without a sign to either side; later, all that was held."""
        self._proxy.call(self._flows.clear if yes else self._flows.set)

    def _cut(self) -> None:
        for writer in list(self._writers):
            connection = writer.get_extra_info("socket")
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = {writer}
        self._writers.add(writer)
        try:
            if self._refuses:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=CHUNK)
            writers.add(far_writer)
            self._writers.add(far_writer)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the end of this connection, or of all: nobody else is told of either
        finally:
            for one in writers:
                self._writers.discard(one)
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # one side has ended: so does the other


class Proxy:
    """All links, served by one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._serve, name="chaos-proxy", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self._loop.run_forever()

    def link(self, target: int) -> Link:
        """A new link to a port of this machine."""
        link = Link(self, target)
        self._run(link.listen())
        return link

    def opened(self, server: asyncio.Server) -> None:
        """Have a link's port closed at the end."""
        self._servers.append(server)

    def call(self, action: Callable[[], object]) -> None:
        """Do something on the proxy's thread, soon."""
        self._loop.call_soon_threadsafe(action)

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def close(self) -> None:
        """End; connections are cut."""

        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
