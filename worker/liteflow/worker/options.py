"""What the commands share: options with their environment variables, a client, errors in one sentence."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from liteflow.core.errors import LiteFlowError
from liteflow.core.host import WorkflowHost
from liteflow.core.settings import Settings
from liteflow.worker.wiring import DEFAULT_LOCK, DEFAULT_PREFIX, DEFAULT_QUEUE, DEFAULT_STORE, Servers

F = TypeVar("F", bound=Callable[..., Any])


def option(name: str, default: Any, text: str, *, shown: str | None = None, **more: Any) -> Callable[[F], F]:
    """An option that the environment may give too, as ``LITEFLOW_`` and its name.

    `shown` is what the help tells of the default, if that is not the default itself.
    """
    variable = "LITEFLOW_" + name.removeprefix("--").replace("-", "_").upper()
    help_text = f"{text}  [env: {variable}; default: {default if shown is None else shown}]"
    return click.option(name, envvar=variable, default=default, help=help_text, **more)


def server_options(command: F, *, store: str = DEFAULT_STORE) -> F:
    """Options that name the servers; the command gets them as its argument `servers`."""
    for add in (
        option("--prefix", DEFAULT_PREFIX, "Prefix of exchanges, queues, collections and lock keys."),
        option(
            "--lock",
            "",
            "URL of the lock server; several Redlock masters: comma-separated.",
            shown=f"the store if it is a SQL database, else {DEFAULT_LOCK}",
        ),
        option(
            "--queue",
            "",
            "URL of the queue server.",
            shown=f"the store if it is a SQL database, else {DEFAULT_QUEUE}",
        ),
        option("--store", store, "URL of the store; the path names the database."),
    ):
        command = add(command)

    @wraps(command)
    def with_servers(*args: Any, store: str, queue: str, lock: str, prefix: str, **kwargs: Any) -> Any:
        return command(*args, servers=Servers(store, queue, lock, prefix), **kwargs)

    return with_servers  # type: ignore[return-value]


def process_options(command: F) -> F:
    """Options of worker and scheduler processes."""
    for add in (
        click.option(
            "--log-level",
            envvar="LITEFLOW_LOG_LEVEL",
            default="info",
            type=click.Choice(["debug", "info", "warning", "error"]),
            help="How much to log.  [env: LITEFLOW_LOG_LEVEL; default: info]",
        ),
        option("--shutdown-timeout", 30.0, "Seconds that SIGTERM gives to running steps.", type=float),
        option("--poll-interval", 5.0, "Seconds between sweeps for what got lost.", type=float),
        option(
            "--lease-ttl", 10.0, "Seconds that a lease lives; renewed three times in that time.", type=float
        ),
    ):
        command = add(command)
    return command


@contextmanager
def plain_errors() -> Iterator[None]:
    """Errors that are the caller's to mend end the command with a sentence, not with a traceback."""
    try:
        yield
    except (LiteFlowError, TimeoutError) as exc:
        raise click.ClickException(str(exc)) from exc


@contextmanager
def client(servers: Servers) -> Iterator[WorkflowHost]:
    """A connected host that runs nothing, for one command."""
    with plain_errors():
        host = servers.host(Settings())
        try:
            yield host.open()
        finally:
            host.stop()


def json_value(text: str | None, name: str) -> Any:
    """JSON given on the command line, or as @file, or as - for standard input."""
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except OSError as exc:
            raise click.BadParameter(f"can't read {text[1:]}: {exc.strerror}", param_hint=name) from exc
    try:
        return json.loads(text)
    except ValueError as exc:
        raise click.BadParameter(f"is not JSON: {exc}", param_hint=name) from exc


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def age(text: str) -> timedelta:
    """How long ago: a whole number and a unit, like 90s, 15m, 12h or 30d."""
    match = re.fullmatch(r"([0-9]+)([smhd])", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not like 90s, 15m, 12h or 30d")
    try:
        since = timedelta(**{_UNITS[match[2]]: int(match[1])})
        datetime.now(timezone.utc) - since
    except OverflowError:
        raise click.BadParameter(f"{text!r} is longer ago than dates go") from None
    return since
