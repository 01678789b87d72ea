"""The one connection of a provider, and the thread that serves it and connects again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from pika import URLParameters
from pika.exceptions import AMQPError

from liteflow.core.errors import ProviderError, QueueUnavailableError, UnavailableError
from liteflow.core.retry import backoff
from liteflow.providers.rabbitmq.channels import ChannelUser
from liteflow.providers.rabbitmq.driver import Driver, address, connect, describe, into

log = logging.getLogger("liteflow.rabbitmq")

CLOSE_TIMEOUT = 3.0
"""Seconds that the server gets for a farewell. It takes none while it blocks publishers."""

MAX_PAUSE = 2.0
"""Seconds at most between two attempts to connect: what a restarted server costs beside its own start."""

SETUP_TIMEOUT = 30.0
"""Seconds for the declarations on a new connection."""

T = TypeVar("T")


class Connection:
    """Keeps a connection to one of the nodes, from `open` to `close`, in a thread of its own.

    All use of channels happens on that thread: `call` and `run` bring work there from any other.
    """

    def __init__(self, nodes: Sequence[URLParameters]) -> None:
        self._nodes = list(nodes)
        self.always: list[ChannelUser] = []  # a connection is ready when these are attached
        self._users: dict[ChannelUser, asyncio.Task[None] | None] = {}
        self._spawned: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._mail: deque[Callable[[], None]] = deque()
        self._woken = False
        self._came_up: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._trouble = ""
        self.driver: Driver | None = None
        self.node: URLParameters = self._nodes[0]
        self.blocked: str | None = None  # why the server takes no messages now

    # ------------------------------------------------------------------------------- from any thread

    def open(self, timeout: float) -> None:
        """Connect. Returns when everything is set up; raises `ProviderError` and is closed otherwise."""
        started: threading.Event | None
        with self._lock:
            if self._thread is None:
                self._came_up = concurrent.futures.Future()
                started = event = threading.Event()
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._serve(event)), name="liteflow-rabbitmq", daemon=True
                )
                self._thread.start()
            else:
                started = None
        if started is not None:
            started.wait()
        try:
            self._came_up.result(timeout)
        except concurrent.futures.TimeoutError:
            self.close()
            raise QueueUnavailableError(
                f"{self._trouble or 'no connection'} (tried for {timeout:g} s)"
            ) from None
        except ProviderError:
            self.close()
            raise

    def close(self) -> None:
        """Give up the connection and end the thread. What was sent to it before is still done."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        self.call(self._stop)
        if thread is not threading.current_thread():
            thread.join()

    def is_current_thread(self) -> bool:
        """True within a callback."""
        return threading.current_thread() is self._thread

    def call(self, function: Callable[[], None]) -> bool:
        """Run a function on the connection's thread, soon and in order. False if there is none."""
        with self._lock:
            if self._loop is None:
                return False
            self._mail.append(function)
            if not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._run_mail)
            return True

    def run(self, function: Callable[[Driver], Coroutine[Any, Any, T]], timeout: float) -> T:
        """Run a coroutine function on the connection's thread, and return its result."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        async def execute() -> None:
            try:
                future.set_result(await function(self.require()))
            except asyncio.CancelledError:
                future.set_exception(self.lost_error())
            except Exception as exc:
                future.set_exception(exc)

        if not self.call(lambda: self.spawn(execute())):
            raise self.closed_error()
        return self.wait(future, timeout)

    def wait(self, future: concurrent.futures.Future[T], timeout: float) -> T:
        """Wait for what the connection's thread does. Driver's errors come out as ours."""
        if self.is_current_thread():
            raise ProviderError("a callback of the queue provider must not wait for the queue provider")
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            why = f" ({self.blocked})" if self.blocked else ""
            raise QueueUnavailableError(
                f"RabbitMQ at {address(self.node)} did not answer within {timeout:g} s{why}"
            ) from None
        except AMQPError as exc:
            raise QueueUnavailableError(f"RabbitMQ at {address(self.node)}: {describe(exc)}") from exc

    @staticmethod
    def closed_error() -> QueueUnavailableError:
        """What to raise when the provider is not open."""
        return QueueUnavailableError("the queue provider is not open")

    # -------------------------------------------------------------------- on the connection's thread

    def lost_error(self) -> QueueUnavailableError:
        """What to raise when there is no connection now."""
        return QueueUnavailableError(self._trouble or f"no connection to RabbitMQ at {address(self.node)}")

    def require(self) -> Driver:
        """The connection; `QueueUnavailableError` if there is none now."""
        if self.driver is None:
            raise self.lost_error()
        return self.driver

    def add(self, user: ChannelUser) -> None:
        """Give a user its channel, now and after each reconnection."""
        self._users[user] = None
        if self.driver is not None:
            self._start(user, self.driver)

    def remove(self, user: ChannelUser) -> None:
        """The user needs no channel any more."""
        task = self._users.pop(user, None)
        if task is not None:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the others; it is cancelled when the thread ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run a function after a while, unless the thread has ended by then."""
        asyncio.get_running_loop().call_later(seconds, function)

    # ------------------------------------------------------------------------------------- internals

    def _run_mail(self) -> None:
        with self._lock:
            self._woken = False
            mail, self._mail = self._mail, deque()
        for function in mail:
            try:
                function()
            except Exception:
                log.exception("an action on the RabbitMQ connection failed")

    def _stop(self) -> None:
        if self._main is not None:
            self._main.cancel()

    async def _serve(self, started: threading.Event) -> None:
        self._main = asyncio.current_task()
        with self._lock:
            self._loop = asyncio.get_running_loop()
        started.set()
        try:
            await self._keep_connected()
        except asyncio.CancelledError:
            pass
        finally:
            with self._lock:
                self._loop = None
            self._run_mail()
            await asyncio.gather(*self._spawned)
            self._users.clear()
            if not self._came_up.done():
                self._came_up.set_exception(self.closed_error())

    async def _keep_connected(self) -> None:
        pauses = backoff(limit=MAX_PAUSE)
        lost_at: float | None = None
        while True:
            for node in self._nodes:
                self.node = node
                try:
                    driver = await connect(node)
                except UnavailableError as exc:
                    self._failed(exc, lost_at)
                    continue
                except ProviderError as exc:
                    self._refused(exc, lost_at)
                    continue
                if await self._use(driver, lost_at):
                    pauses = backoff(limit=MAX_PAUSE)
                    lost_at = time.monotonic()
                break
            await asyncio.sleep(next(pauses))

    def _failed(self, error: ProviderError, lost_at: float | None) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.log(logging.WARNING if lost_at is None else logging.INFO, "%s; trying again", error)

    def _refused(self, error: ProviderError, lost_at: float | None) -> None:
        """Trying again does not cure it. The caller of `open` learns it; after that, somebody may mend it."""
        if self._came_up.done():
            self._failed(error, lost_at)
        elif self.node is self._nodes[-1]:
            self._came_up.set_exception(error)

    async def _use(self, driver: Driver, lost_at: float | None) -> bool:
        """Serve the users on a connection until it is lost. False if it never got ready."""
        lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        driver.add_on_close_callback(into(lost))
        if driver.is_closed:  # then nobody is called back
            lost.set_result(QueueUnavailableError("it was lost before it was used"))
        driver.add_on_connection_blocked_callback(lambda _, frame: self._block(frame.method.reason))
        driver.add_on_connection_unblocked_callback(lambda _, frame: self._block(None))
        ready = False
        try:
            self.driver = driver
            for user in dict.fromkeys([*self.always, *self._users]):
                self._start(user, driver)
            ready = await self._until_ready(lost)
            if ready:
                self._up(lost_at)
                await asyncio.wait({lost})
                why = describe(lost.result())
                self._trouble = f"the connection to RabbitMQ at {address(self.node)} was lost: {why}"
                log.warning("%s; connecting again", self._trouble)
        finally:
            self.driver = None
            self.blocked = None
            tasks = [task for task in self._users.values() if task is not None] + list(self._spawned)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._part(driver, lost)
        return ready

    async def _until_ready(self, lost: asyncio.Future[Exception]) -> bool:
        tried = asyncio.get_running_loop().create_task(self._all_tried())
        either: set[asyncio.Future[Any]] = {tried, lost}
        await asyncio.wait(either, timeout=SETUP_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        errors = [user.error for user in self.always if user.error is not None]
        if tried.done() and not errors:
            return True
        tried.cancel()
        for error in errors:
            if isinstance(error, ProviderError) and not isinstance(error, UnavailableError):
                self._refused(error, None)
        reason = describe(lost.result() if lost.done() else errors[0] if errors else "not ready in time")
        self._failed(QueueUnavailableError(f"RabbitMQ at {address(self.node)} can't be used: {reason}"), None)
        return False

    async def _all_tried(self) -> None:
        for user in list(self._users):
            await user.tried.wait()

    def _start(self, user: ChannelUser, driver: Driver) -> None:
        async def keep() -> None:
            try:
                await user.keep(driver)
            except Exception:
                log.exception("%s stopped working", user.what)
            self._users.pop(user, None)

        user.prepare()
        self._users[user] = asyncio.get_running_loop().create_task(keep())

    def _up(self, lost_at: float | None) -> None:
        self._trouble = ""
        where = address(self.node)
        if lost_at is None:
            log.info("connected to RabbitMQ at %s", where)
        else:
            log.warning("connected to RabbitMQ at %s again, after %.1f s", where, time.monotonic() - lost_at)
        if not self._came_up.done():
            self._came_up.set_result(None)

    def _block(self, reason: str | None) -> None:
        if reason is not None:
            self.blocked = f"it has blocked publishers: {reason}"
            log.warning("RabbitMQ at %s has blocked publishers: %s", address(self.node), reason)
        elif self.blocked:
            self.blocked = None
            log.warning("RabbitMQ at %s takes messages again", address(self.node))

    async def _part(self, driver: Driver, lost: asyncio.Future[Exception]) -> None:
        if driver.is_open:
            driver.close()
        await asyncio.wait({lost}, timeout=CLOSE_TIMEOUT)
        if not lost.done():
            driver._terminate_stream(QueueUnavailableError("closed without a farewell"))
            await asyncio.wait({lost}, timeout=CLOSE_TIMEOUT)
