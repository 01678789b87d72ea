"""Commands that look: one instance, and lists of them."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from liteflow.core.models import WorkflowStatus
from liteflow.core.providers import ListFilter
from liteflow.worker.examination import look
from liteflow.worker.options import client, server_options
from liteflow.worker.show import (
    definition_lines,
    instance_json,
    instance_text,
    summary_json,
    summary_lines,
)
from liteflow.worker.wiring import Servers


@click.command()
@click.argument("instance_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@server_options
def show(instance_id: str, servers: Servers, as_json: bool) -> None:
    """Print the instance ID: status, why it is not moving, steps, data, last error."""
    with client(servers) as host:
        view = host.get_workflow(instance_id)
        if as_json:
            click.echo(json.dumps(instance_json(view), indent=2))
        else:
            click.echo(instance_text(view, host.get_errors(instance_id), host.persistence.now()))


@click.command("list")
@click.option("--status", type=click.Choice([s.name for s in WorkflowStatus], case_sensitive=False))
@click.option("--workflow", help="Only instances of this workflow id.")
@click.option("--reference", help="Only instances with this reference.")
@click.option("--parked", is_flag=True, help="Only parked instances: nobody could go on with them.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--cursor", help="Go on where the page before ended.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document: items, and the next cursor.")
@server_options
def list_workflows(
    servers: Servers,
    status: str | None,
    workflow: str | None,
    reference: str | None,
    parked: bool,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List instances, newest first."""
    with client(servers) as host:
        page = host.persistence.list(
            ListFilter(
                status=None if status is None else WorkflowStatus[status.upper()],
                workflow=workflow,
                reference=reference,
                parked=True if parked else None,
                limit=limit,
                cursor=cursor,
            )
        )
        if as_json:
            document = {"items": [summary_json(item) for item in page.items], "next": page.next}
            click.echo(json.dumps(document, indent=2))
            return
        for line in summary_lines(page.items):
            click.echo(line)
        if page.next is not None:
            click.echo(f"more: --cursor {page.next}", err=True)


@click.command("definitions")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@server_options
def list_definitions(servers: Servers, as_json: bool) -> None:
    """List the definitions that workers have recorded: who runs them, and how many instances are open."""
    with client(servers) as host:
        known = look(host, with_queues=False).definitions
        if as_json:
            items = [{**asdict(one), "waits_for_worker": one.waits_for_worker} for one in known]
            click.echo(json.dumps({"items": items}, indent=2))
            return
        for line in definition_lines(known):
            click.echo(line)
