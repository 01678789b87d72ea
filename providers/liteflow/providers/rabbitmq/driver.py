"""pika's asyncio connection: how one is made, and how it survives what strangers put into messages."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pika import URLParameters
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed
from pika.frame import Header, decode_frame
from pika.spec import FRAME_HEADER, FRAME_HEADER_SIZE, BasicProperties

from liteflow.core.errors import ProviderError, QueueUnavailableError

ACCESS_REFUSED = 403
NOT_ALLOWED = 530


_REFUSALS = {
    ACCESS_REFUSED: "check user name and password in the URL; guest may come from its own machine only",
    NOT_ALLOWED: "the path of the URL names the virtual host: it must exist, and the user have access to it",
}
"""What to do about the codes with which a server refuses a connection."""


class UnreadableProperties(BasicProperties):
    """Stands for properties that pika can't decode; `reason` says why."""

    reason: str = ""


class Driver(AsyncioConnection):
    """A connection that lives on when a message has properties that pika can't decode.

    Without it, anybody who may publish could end the connection with one odd header (a date after the
    year 9999, a table nested too deeply), again and again, since the message would be redelivered.
    """

    _frame_buffer: bytes
    _terminate_stream: Callable[[Exception], None]

    def _read_frame(self) -> tuple[int, Any]:
        try:
            return decode_frame(self._frame_buffer)
        except Exception as exc:
            kind, channel, size = struct.unpack_from(">BHL", self._frame_buffer)
            if kind != FRAME_HEADER:
                raise
            properties = UnreadableProperties()
            properties.reason = f"{type(exc).__name__}: {exc}"
            (body_size,) = struct.unpack_from(">Q", self._frame_buffer, FRAME_HEADER_SIZE + 4)
            return FRAME_HEADER_SIZE + size + 1, Header(channel, body_size, properties)


def into(future: asyncio.Future[Any]) -> Callable[..., None]:
    """A callback for pika that makes its last argument the result of a future, unless that is cancelled."""

    def callback(*args: Any) -> None:
        if not future.done():
            future.set_result(args[-1])

    return callback


def address(node: URLParameters) -> str:
    """Host and port, for people: the URL itself holds the password."""
    return f"{node.host}:{node.port}"


async def connect(node: URLParameters) -> Driver:
    """Open a connection to one node.

    `ProviderError` if the server refuses user or virtual host, `QueueUnavailableError` for anything that
    may pass.
    """
    # pika reports each failure at several levels, with tracebacks; here it becomes one line of ours.
    driver_log = logging.getLogger("pika")
    if driver_log.level == logging.NOTSET:
        driver_log.setLevel(logging.CRITICAL)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    workflow = Driver.create_connection([node], on_done=into(done), custom_ioloop=loop)
    try:
        result = await asyncio.shield(done)
    except asyncio.CancelledError:
        done.add_done_callback(_not_wanted)
        if not done.done():
            _abort(workflow)
        raise
    if isinstance(result, Driver):
        return result
    error = _root(result)
    # The codes are in a text only: pika wraps what the server said into "probable" errors.
    for code, advice in _REFUSALS.items():
        if f"ConnectionClosedByBroker: ({code})" in repr(error):
            raise ProviderError(
                f"RabbitMQ at {address(node)} refuses the connection: {describe(error)} ({advice})"
            )
    raise QueueUnavailableError(
        f"RabbitMQ at {address(node)} can't be reached: {describe(error)}"
        " (check host and port in the URL, and that the server runs)"
    )


def _abort(workflow: Any) -> None:
    """Give up what is being made. pika leaves open what is in its handshake, and fails an assertion."""
    in_handshake = getattr(getattr(workflow, "_connector", None), "_amqp_conn", None)
    with suppress(AssertionError):
        workflow.abort()
    if in_handshake is not None and not (in_handshake.is_closing or in_handshake.is_closed):
        in_handshake.close()


def _not_wanted(done: asyncio.Future[Any]) -> None:
    """Close the connection that was made while it was being given up."""
    if isinstance(done.result(), Driver) and done.result().is_open:
        done.result().close()


def _root(error: Any) -> Any:
    if isinstance(error, AMQPConnectionWorkflowFailed) and error.exceptions:
        error = error.exceptions[-1]
    return getattr(error, "exception", error)


def describe(error: object) -> str:
    """A driver's error in a few words."""
    if isinstance(error, str):
        return error
    text = getattr(error, "reply_text", None)
    if text is None and isinstance(error, Exception) and error.args:
        text = error.args[-1]
    return str(text or type(error).__name__)
