"""The command line: the group, and the commands that are processes. Each parses, builds, calls."""

from __future__ import annotations

import logging
from functools import partial

import click

from liteflow.core._version import __version__
from liteflow.core.settings import Settings
from liteflow.worker import control, doctor, drawing, looking, providers, submitting
from liteflow.worker.options import option, plain_errors, process_options, server_options
from liteflow.worker.process import healthy
from liteflow.worker.scheduler import run_scheduler
from liteflow.worker.wiring import DEV_STORE, Servers
from liteflow.worker.worker import run_worker


@click.group()
@click.version_option(__version__, prog_name="liteflow")
def main() -> None:
    """Durable workflows: run workers and schedulers, start workflows, look at them, steer them."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


for command in (
    submitting.start,
    submitting.publish,
    looking.show,
    looking.list_workflows,
    looking.list_definitions,
    doctor.doctor,
    control.suspend,
    control.resume,
    control.terminate,
    control.purge,
    control.retire,
    drawing.graph,
    providers.providers,
):
    main.add_command(command)


def _log_as(level: str) -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )
    logging.getLogger("liteflow").setLevel(level.upper())


@main.command()
@click.argument("targets", nargs=-1, required=True, metavar="MODULE[:NAME]...")
@option("--concurrency", 16, "Slots: steps that run at a time in this process.", type=int)
@process_options
@server_options
def worker(
    targets: tuple[str, ...],
    servers: Servers,
    log_level: str,
    concurrency: int,
    lease_ttl: float,
    poll_interval: float,
    shutdown_timeout: float,
) -> None:
    """Run the workflows of MODULE, and serve the commands that come over the queue.

    MODULE stands for all Workflow classes that it defines; NAME in it may be a workflow, a list of
    them, or a function that takes the host. SIGTERM drains: running steps end, the rest goes back.
    """
    _log_as(log_level)
    with plain_errors():
        settings = Settings(
            concurrency=concurrency,
            lease_ttl=lease_ttl,
            poll_interval=poll_interval,
            shutdown_timeout=shutdown_timeout,
        )
        run_worker(servers, settings, targets)


@main.command()
@click.argument("targets", nargs=-1, required=True, metavar="MODULE[:NAME]...")
@option("--concurrency", 16, "Slots: steps that run at a time in this process.", type=int)
@process_options
@partial(server_options, store=DEV_STORE)
def dev(
    targets: tuple[str, ...],
    servers: Servers,
    log_level: str,
    concurrency: int,
    lease_ttl: float,
    poll_interval: float,
    shutdown_timeout: float,
) -> None:
    """Run the workflows of MODULE with nothing else: worker and scheduler in one process, over a file.

    The file, in the current directory, is store, queue and lock at once: `liteflow start`, `show` and the
    others reach it with --store sqlite:///liteflow.db, from another terminal. Ctrl-C ends it, and the next
    start goes on where it was.
    """
    _log_as(log_level)
    with plain_errors():
        settings = Settings(
            concurrency=concurrency,
            lease_ttl=lease_ttl,
            poll_interval=poll_interval,
            shutdown_timeout=shutdown_timeout,
        )
        run_worker(servers, settings, targets, scheduler=True)


@main.command()
@process_options
@server_options
def scheduler(
    servers: Servers, log_level: str, lease_ttl: float, poll_interval: float, shutdown_timeout: float
) -> None:
    """Wake sleeping workflows, and those whose wake-up got lost. Run two: one leads."""
    _log_as(log_level)
    with plain_errors():
        settings = Settings(
            lease_ttl=lease_ttl, poll_interval=poll_interval, shutdown_timeout=shutdown_timeout
        )
        run_scheduler(servers, settings)


@main.command()
@click.option("--within", type=float, default=15.0, show_default=True, help="Seconds.")
def health(within: float) -> None:
    """Exit 0 if the worker or scheduler in this container was well in the last seconds."""
    if not healthy(within):
        raise click.ClickException("no sign of life")
