"""Commands that steer: suspend, resume and terminate an instance, purge what has ended, retire versions."""

from __future__ import annotations

from datetime import datetime, timedelta

import click

from liteflow.core.models import WorkflowStatus
from liteflow.core.presence import alive
from liteflow.worker.options import F, age, client, server_options
from liteflow.worker.wiring import Servers

ENDED = [status.name for status in WorkflowStatus if status.ended]


def _control_options(command: F) -> F:
    command = click.option("--reason", default="", help="Why; shown with the instance.")(command)
    return click.argument("instance_id", metavar="ID")(server_options(command))


@click.command()
@_control_options
def suspend(instance_id: str, servers: Servers, reason: str) -> None:
    """Have the instance ID stop after the steps that run now, until it is resumed."""
    _ask("suspend", instance_id, servers, reason)


@click.command()
@_control_options
def resume(instance_id: str, servers: Servers, reason: str) -> None:
    """Have the suspended instance ID go on; a step that failed runs again."""
    _ask("resume", instance_id, servers, reason)


@click.command()
@_control_options
def terminate(instance_id: str, servers: Servers, reason: str) -> None:
    """End the instance ID for good."""
    _ask("terminate", instance_id, servers, reason)


def _ask(kind: str, instance_id: str, servers: Servers, reason: str) -> None:
    with client(servers) as host:
        if not host.request(instance_id, kind, reason, by="cli"):
            status = host.get_workflow(instance_id).status.name
            raise click.ClickException(f"can't {kind} {instance_id}: it has ended, as {status}")
        click.echo(f"{kind} of {instance_id} is stored; it takes effect with the next commit")


@click.command()
@click.option("--status", required=True, type=click.Choice(ENDED, case_sensitive=False))
@click.option("--older-than", required=True, type=age, metavar="AGE", help="Like 90s, 15m, 12h or 30d.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
def purge(servers: Servers, status: str, older_than: timedelta, yes: bool) -> None:
    """Delete the instances that ended, as STATUS, longer than AGE ago, with all that is theirs."""
    with client(servers) as host:
        before = host.persistence.now() - older_than
        if not yes:
            click.confirm(_question(status, servers.prefix, before), abort=True, err=True)
        count = host.purge_workflows(WorkflowStatus[status.upper()], before)
        click.echo(f"{count} purged")


def _question(status: str, prefix: str, before: datetime) -> str:
    when = before.strftime("%Y-%m-%d %H:%M:%S")
    return f"Delete all {status} workflows of {prefix!r} that ended before {when} UTC?"


@click.command()
@click.argument("workflow")
@click.argument("version", type=int)
@server_options
def retire(servers: Servers, workflow: str, version: int) -> None:
    """Accept no more starts of VERSION of WORKFLOW, which no worker has any more.

    Starts without a version get the highest that is left. Instances that exist are not touched: they go on
    when a worker that has the version comes, which also makes it known again.
    """
    with client(servers) as host:
        for process in alive(host.persistence):
            if any((one.id, one.version) == (workflow, version) for one in process.definitions):
                raise click.ClickException(
                    f"process {process.pid} on {process.machine} runs {workflow} version {version};"
                    " end the workers that have it first"
                )
        if not host.persistence.forget_definition(workflow, version):
            raise click.ClickException(f"{workflow} version {version} is not recorded")
        click.echo(f"{workflow} version {version} is retired")
