"""Commands that hand something in: start a workflow, publish an event."""

from __future__ import annotations

import click

from liteflow.core import codec
from liteflow.core.models import WorkflowStatus
from liteflow.worker.options import client, json_value, server_options
from liteflow.worker.times import parse_time
from liteflow.worker.wiring import Servers


@click.command()
@click.argument("workflow")
@click.option("--version", "version", type=click.IntRange(1), help="Version; the highest known if left out.")
@click.option("--data", help="The data as a JSON object, @FILE, or - for standard input.")
@click.option("--reference", help="A reference of yours, by which to find it again.")
@click.option("--key", help="Idempotency key: the same key gives the same instance.")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait so long for its end; exit 1 if it fails.")
@server_options
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
    value = json_value(data, "--data")
    if value is not None and not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--data")
    with client(servers) as host:
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


@click.command()
@click.argument("name")
@click.argument("key")
@click.option("--data", help="The event's data as JSON, @FILE, or - for standard input.")
@click.option("--time", "time", help="Its time, like 2026-01-01T00:00:00Z; now if left out.")
@server_options
def publish(name: str, key: str, servers: Servers, data: str | None, time: str | None) -> None:
    """Publish the event NAME with KEY to all workflows that wait for it, and print its id."""
    value = json_value(data, "--data")
    when = None
    if time is not None:
        try:
            when = parse_time(time)
        except ValueError as exc:
            raise click.BadParameter(str(exc), param_hint="--time") from exc
    with client(servers) as host:
        click.echo(host.publish_encoded(name, key, codec.from_json(value, "data"), time=when))
