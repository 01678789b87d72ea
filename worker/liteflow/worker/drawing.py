"""The command that draws a workflow: loads its definition, looks up an instance, writes the picture."""

from __future__ import annotations

from pathlib import Path

import click

from liteflow.core.definition import WorkflowDefinition
from liteflow.core.host import configure_workflow_host
from liteflow.core.views import WorkflowInstance
from liteflow.worker.dot import dot
from liteflow.worker.graph import draw
from liteflow.worker.loading import load_workflows
from liteflow.worker.mermaid import mermaid
from liteflow.worker.options import client, plain_errors, server_options
from liteflow.worker.picture import Graph
from liteflow.worker.wiring import Servers


@click.command()
@click.argument("target", metavar="MODULE[:NAME]")
@click.argument("workflow")
@click.option("--version", "version", type=click.IntRange(1), help="Version; the highest if left out.")
@click.option(
    "--format", "form", type=click.Choice(["mermaid", "svg", "dot"]), default="mermaid", show_default=True
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option("--instance", metavar="ID", help="Mark where this instance is; needs the servers.")
@server_options
def graph(
    target: str,
    workflow: str,
    servers: Servers,
    version: int | None,
    form: str,
    output: Path | None,
    instance: str | None,
) -> None:
    """Draw the WORKFLOW, by its id, that MODULE defines."""
    view = None
    if instance is not None:
        view = _instance(servers, instance, workflow, version)
        version = view.version
    drawn = draw(_definition(target, workflow, version, view), view)
    text = _WRITERS[form](drawn)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as exc:
        raise click.ClickException(f"can't write {output}: {exc.strerror}") from exc


def _instance(servers: Servers, instance_id: str, workflow: str, version: int | None) -> WorkflowInstance:
    with client(servers) as host:
        view = host.get_workflow(instance_id)
    if (view.workflow_definition_id, view.version) != (workflow, version or view.version):
        what = f"{view.workflow_definition_id} version {view.version}"
        raise click.ClickException(f"{instance_id} is an instance of {what}")
    return view


def _definition(
    target: str, workflow: str, version: int | None, view: WorkflowInstance | None
) -> WorkflowDefinition:
    with plain_errors():
        host = configure_workflow_host()
        load_workflows(host, target)
    found = host.registry.find(workflow, version)
    if found is None:
        known = ", ".join(f"{d.id} version {d.version}" for d in host.registry.get_all())
        wanted = workflow if version is None else f"{workflow} version {version}"
        raise click.ClickException(f"{target} has no workflow {wanted}; it has {known or 'none'}")
    if view is not None and view.record.fingerprint not in ("", found.fingerprint):
        click.echo(f"{target} differs from what {view.id} was started with", err=True)
    return found


def _svg(graph: Graph) -> str:
    try:
        import graphviz  # type: ignore[import-untyped]
    except ImportError as exc:
        raise click.ClickException(
            "svg needs the package graphviz: pip install 'liteflow.core[graph]'"
        ) from exc
    try:
        picture: str = graphviz.Source(dot(graph)).pipe(format="svg", encoding="utf-8", quiet=True)
    except graphviz.ExecutableNotFound as exc:
        raise click.ClickException(
            "svg needs the program dot: install Graphviz, for instance with apt-get install graphviz"
        ) from exc
    except graphviz.CalledProcessError as exc:
        raise click.ClickException(f"dot has failed: {' '.join(str(exc.stderr).split())[:500]}") from exc
    return picture


_WRITERS = {"mermaid": mermaid, "dot": dot, "svg": _svg}
