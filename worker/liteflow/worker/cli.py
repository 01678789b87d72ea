"""The command line: each command parses, builds, calls."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from liteflow.core import codec
from liteflow.core._version import __version__
from liteflow.core.errors import LiteFlowError
from liteflow.core.host import WorkflowHost
from liteflow.core.models import WorkflowStatus
from liteflow.core.settings import Settings
from liteflow.worker.process import healthy
from liteflow.worker.scheduler import run_scheduler
from liteflow.worker.show import instance_json, instance_text, summary_json, summary_lines
from liteflow.worker.wiring import DEFAULT_LOCK, DEFAULT_PREFIX, DEFAULT_QUEUE, DEFAULT_STORE, Servers
from liteflow.worker.worker import run_worker

F = TypeVar("F", bound=Callable[..., Any])


def _option(name: str, default: Any, text: str, **more: Any) -> Callable[[F], F]:
    variable = "LITEFLOW_" + name.removeprefix("--").replace("-", "_").upper()
    help_text = f"{text}  [env: {variable}; default: {default}]"
    return click.option(name, envvar=variable, default=default, help=help_text, **more)


def _server_options(command: F) -> F:
    for option in (
        _option("--prefix", DEFAULT_PREFIX, "Prefix of exchanges, queues, collections and lock keys."),
        _option("--lock", DEFAULT_LOCK, "URL of the lock server; several Redlock masters: comma-separated."),
        _option("--queue", DEFAULT_QUEUE, "URL of the queue server."),
        _option("--store", DEFAULT_STORE, "URL of the store; the path names the database."),
    ):
        command = option(command)

    @wraps(command)
    def with_servers(*args: Any, store: str, queue: str, lock: str, prefix: str, **kwargs: Any) -> Any:
        return command(*args, servers=Servers(store, queue, lock, prefix), **kwargs)

    return with_servers  # type: ignore[return-value]


def _process_options(command: F) -> F:
    for option in (
        click.option(
            "--log-level",
            envvar="LITEFLOW_LOG_LEVEL",
            default="info",
            type=click.Choice(["debug", "info", "warning", "error"]),
            help="How much to log.  [env: LITEFLOW_LOG_LEVEL; default: info]",
        ),
        _option("--shutdown-timeout", 30.0, "Seconds that SIGTERM gives to running steps.", type=float),
        _option("--poll-interval", 5.0, "Seconds between sweeps for what got lost.", type=float),
        _option(
            "--lease-ttl", 10.0, "Seconds that a lease lives; renewed three times in that time.", type=float
        ),
    ):
        command = option(command)
    return command


@contextmanager
def _plain_errors() -> Any:
    """Errors that are the caller's to mend end the command with a sentence, not with a traceback."""
    try:
        yield
    except LiteFlowError as exc:
        raise click.ClickException(str(exc)) from exc
    except TimeoutError as exc:
        raise click.ClickException(str(exc)) from exc


@contextmanager
def _client(servers: Servers) -> Any:
    with _plain_errors():
        host = servers.host(Settings())
        try:
            yield host.open()
        finally:
            host.stop()


@click.group()
@click.version_option(__version__, prog_name="liteflow")
def main() -> None:
    """Durable workflows: run workers and schedulers, start workflows, look at them."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def _log_as(level: str) -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )
    logging.getLogger("liteflow").setLevel(level.upper())


@main.command()
@click.argument("targets", nargs=-1, required=True, metavar="MODULE[:NAME]...")
@_option("--concurrency", 16, "Slots: steps that run at a time in this process.", type=int)
@_process_options
@_server_options
def worker(
    targets: tuple[str, ...],
    servers: Servers,
    log_level: str,
    concurrency: int,
    lease_ttl: float,
    poll_interval: float,
    shutdown_timeout: float,
) -> None:
    """Run the workflows of MODULE, and serve the commands that come over AMQP.

    MODULE stands for all Workflow classes that it defines; NAME in it may be a workflow, a list of
    them, or a function that takes the host. SIGTERM drains: running steps end, the rest goes back.
    """
    _log_as(log_level)
    with _plain_errors():
        settings = Settings(
            concurrency=concurrency,
            lease_ttl=lease_ttl,
            poll_interval=poll_interval,
            shutdown_timeout=shutdown_timeout,
        )
        run_worker(servers, settings, targets)


@main.command()
@_process_options
@_server_options
def scheduler(
    servers: Servers, log_level: str, lease_ttl: float, poll_interval: float, shutdown_timeout: float
) -> None:
    """Wake sleeping workflows, and those whose wake-up got lost. Run two: one leads."""
    _log_as(log_level)
    with _plain_errors():
        settings = Settings(
            lease_ttl=lease_ttl, poll_interval=poll_interval, shutdown_timeout=shutdown_timeout
        )
        run_scheduler(servers, settings)


def _json_value(text: str | None, name: str) -> Any:
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


@main.command()
@click.argument("workflow")
@click.option("--version", "version", type=click.IntRange(1), help="Version; the highest known if left out.")
@click.option("--data", help="The data as a JSON object, @FILE, or - for standard input.")
@click.option("--reference", help="A reference of yours, by which to find it again.")
@click.option("--key", help="Idempotency key: the same key gives the same instance.")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait so long for its end; exit 1 if it fails.")
@_server_options
def start(
    workflow: str,
    servers: Servers,
    version: int | None,
    data: str | None,
    reference: str | None,
    key: str | None,
    wait: float | None,
) -> None:
    """Start a WORKFLOW, by its id, and print the id of the instance."""
    value = _json_value(data, "--data")
    if value is not None and not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--data")
    with _client(servers) as host:
        plain = codec.from_json(value or {}, "data")
        assert isinstance(plain, dict)
        full_key = None if key is None else f"{workflow}:{key}"
        instance_id = host.start_encoded(workflow, version, plain, reference=reference, key=full_key)
        click.echo(instance_id)
        if wait is not None:
            instance = host.wait_for_workflow(instance_id, wait)
            click.echo(instance.status.name, err=True)
            if instance.status is not WorkflowStatus.COMPLETE:
                raise click.ClickException(instance.reason or f"the workflow is {instance.status.name}")


@main.command()
@click.argument("name")
@click.argument("key")
@click.option("--data", help="The event's data as JSON, @FILE, or - for standard input.")
@click.option("--time", "time", help="Its time, like 2026-01-01T00:00:00Z; now if left out.")
@_server_options
def publish(name: str, key: str, servers: Servers, data: str | None, time: str | None) -> None:
    """Publish the event NAME with KEY to all workflows that wait for it, and print its id."""
    value = _json_value(data, "--data")
    when = None
    if time is not None:
        try:
            when = datetime.fromisoformat(time.replace("Z", "+00:00"))
        except ValueError as exc:
            raise click.BadParameter("must be like 2026-01-01T00:00:00Z", param_hint="--time") from exc
        if when.tzinfo is None:
            raise click.BadParameter("has no time zone; end it with Z for UTC", param_hint="--time")
    with _client(servers) as host:
        click.echo(host.publish_encoded(name, key, codec.from_json(value, "data"), time=when))


@main.command()
@click.argument("instance_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@_server_options
def show(instance_id: str, servers: Servers, as_json: bool) -> None:
    """Print the instance ID: status, why it is not moving, steps, data, last error."""
    with _client(servers) as host:
        view = host.get_workflow(instance_id)
        if as_json:
            click.echo(json.dumps(instance_json(view), indent=2))
        else:
            click.echo(instance_text(view, host.get_errors(instance_id), host.persistence.now()))


@main.command("list")
@click.option("--status", type=click.Choice([s.name for s in WorkflowStatus], case_sensitive=False))
@click.option("--workflow", help="Only instances of this workflow id.")
@click.option("--reference", help="Only instances with this reference.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--cursor", help="Go on where the page before ended.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document: items, and the next cursor.")
@_server_options
def list_command(
    servers: Servers,
    status: str | None,
    workflow: str | None,
    reference: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List instances, newest first."""
    with _client(servers) as host:
        page = _page(host, status, workflow, reference, limit, cursor)
        if as_json:
            document = {"items": [summary_json(item) for item in page.items], "next": page.next}
            click.echo(json.dumps(document, indent=2))
            return
        for line in summary_lines(page.items):
            click.echo(line)
        if page.next is not None:
            click.echo(f"more: --cursor {page.next}", err=True)


def _page(
    host: WorkflowHost,
    status: str | None,
    workflow: str | None,
    reference: str | None,
    limit: int,
    cursor: str | None,
) -> Any:
    return host.list_workflows(
        status=None if status is None else WorkflowStatus[status.upper()],
        workflow=workflow,
        reference=reference,
        limit=limit,
        cursor=cursor,
    )


@main.command()
@click.option("--within", type=float, default=15.0, show_default=True, help="Seconds.")
def health(within: float) -> None:
    """Exit 0 if the worker or scheduler in this container was well in the last seconds."""
    if not healthy(within):
        raise click.ClickException("no sign of life")
