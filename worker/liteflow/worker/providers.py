"""The command that lists the installed providers, and tries a URL."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from liteflow.core.errors import LiteFlowError
from liteflow.worker.checking import check, kinds_of
from liteflow.worker.discovery import KINDS, Entry, entries
from liteflow.worker.options import option, plain_errors
from liteflow.worker.wiring import DEFAULT_PREFIX


@click.command()
@click.argument("url", required=False)
@option("--prefix", DEFAULT_PREFIX, "Prefix of tables, collections, queues and keys.")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only providers of this kind.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def providers(url: str | None, prefix: str, kind: str | None, as_json: bool) -> None:
    """List the installed providers and what they need, or try the server at URL.

    With a URL: connect as a worker does, which makes tables, indexes and queues that are missing, read and
    write a little, and say which server it is. Exit 1, with a line for each, if something is wrong.
    """
    if url is None:
        _show([one for each in ([kind] if kind else KINDS) for one in entries(each).values()], as_json)
        return
    with plain_errors():
        found = [one for one in kinds_of(url) if kind in (None, one.kind)]
        if not found:
            raise click.ClickException(f"there is no {kind} provider for this URL")
    with _quiet():
        results = [_try(entry, url, prefix) for entry in found]
    if as_json:
        click.echo(json.dumps({"items": results}, indent=2))
    else:
        for result in results:
            line = f"{result['kind']} {result['scheme']}://: {result['error'] or result['server']}"
            click.echo(line if result["ok"] else f"Error: {line}", err=not result["ok"])
    if not all(result["ok"] for result in results):
        raise SystemExit(1)


@contextmanager
def _quiet() -> Iterator[None]:
    """What providers log while they try is said once, at the end."""
    logger = logging.getLogger("liteflow")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _try(entry: Entry, url: str, prefix: str) -> dict[str, object]:
    result: dict[str, object] = {"kind": entry.kind, "scheme": entry.scheme, "server": None, "error": None}
    try:
        result["server"] = check(entry, url, prefix)
    except LiteFlowError as exc:
        result["error"] = " ".join(str(exc).split())
    except ValueError:
        # A driver's: its words may repeat the URL, and with it a password.
        result["error"] = "the URL is not valid"
    return {**result, "ok": result["error"] is None}


def _show(found: Sequence[Entry], as_json: bool) -> None:
    if as_json:
        items = [
            {
                "kind": one.kind,
                "scheme": one.scheme,
                "provider": one.point.value.partition(" ")[0],
                "package": one.package,
                "needs": one.needs(),
                "installed": not one.missing(),
            }
            for one in found
        ]
        click.echo(json.dumps({"items": items}, indent=2))
        return
    for one in found:
        needs = ", ".join(f"{name} {installed}" for name, installed in one.needs().items() if installed)
        state = f"pip install '{one.package}'" if one.missing() else needs or "installed"
        click.echo(f"{one.kind:<12} {one.scheme + '://':<16} {one.package:<26} {state}".rstrip())
