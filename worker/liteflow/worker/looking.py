"""Commands that look: one instance, and lists of them."""

from __future__ import annotations

import json

import click

from liteflow.core.models import WorkflowStatus
from liteflow.worker.options import client, server_options
from liteflow.worker.show import instance_json, instance_text, summary_json, summary_lines
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
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--cursor", help="Go on where the page before ended.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document: items, and the next cursor.")
@server_options
def list_workflows(
    servers: Servers,
    status: str | None,
    workflow: str | None,
    reference: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List instances, newest first."""
    with client(servers) as host:
        page = host.list_workflows(
            status=None if status is None else WorkflowStatus[status.upper()],
            workflow=workflow,
            reference=reference,
            limit=limit,
            cursor=cursor,
        )
        if as_json:
            document = {"items": [summary_json(item) for item in page.items], "next": page.next}
            click.echo(json.dumps(document, indent=2))
            return
        for line in summary_lines(page.items):
            click.echo(line)
        if page.next is not None:
            click.echo(f"more: --cursor {page.next}", err=True)
