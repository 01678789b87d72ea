"""`liteflow doctor`: is all well, and if not, what is to be done?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import click

from liteflow.core.errors import ProviderError
from liteflow.core.findings import Finding, Severity, problem
from liteflow.core.host import WorkflowHost
from liteflow.core.settings import Settings
from liteflow.worker.examination import Cluster, examine, look
from liteflow.worker.options import plain_errors, server_options
from liteflow.worker.show import time_json
from liteflow.worker.wiring import Servers

_MARKS = {Severity.OK: "ok", Severity.WARNING: "warning", Severity.PROBLEM: "PROBLEM"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--quiet", is_flag=True, help="Nothing about what is well.")
@click.option(
    "--management",
    envvar="LITEFLOW_MANAGEMENT",
    help="URL of RabbitMQ's management plugin, like http://guest:guest@localhost:15672, for unacknowledged"
    " messages and time-outs of consumers.  [env: LITEFLOW_MANAGEMENT]",
)
@server_options
def doctor(servers: Servers, as_json: bool, quiet: bool, management: str | None) -> None:
    """Check the servers and what waits for whom, and say what to do.

    Exits with 0 if all is well, 1 if there are warnings, 2 if there are problems.
    """
    with plain_errors():
        host = replace(servers, management=management).host(Settings())
    findings, cluster = diagnose(host)
    worst = max(finding.severity for finding in findings)
    if as_json:
        click.echo(json.dumps(report(findings, cluster), indent=2))
    else:
        for line in lines([one for one in findings if one.severity or not quiet]):
            click.echo(line)
    sys.exit(int(worst))


def diagnose(host: WorkflowHost) -> tuple[list[Finding], Cluster | None]:
    """Everything that can be found out, and the cluster as it was seen if the store answers."""
    findings, answers = [], {}
    for area, provider in (("store", host.persistence), ("queue", host.queue), ("lock", host.lock)):
        found = provider.check()
        findings += found
        answers[area] = not any(finding.severity is Severity.PROBLEM for finding in found)
    if not answers["store"]:
        return findings, None
    try:
        host.persistence.open()
        if answers["queue"]:
            host.queue.open()
        cluster = look(host, with_queues=answers["queue"])
    except ProviderError as exc:
        return [*findings, problem("cluster", f"it could not be looked at: {exc}", "mend that first")], None
    finally:
        host.queue.close()
        host.persistence.close()
    return [*findings, *examine(cluster)], cluster


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """For people: a line for each finding, and one with what to do about it."""
    for finding in findings:
        yield f"{_MARKS[finding.severity]:8} {finding.area}: {finding.message}"
        if finding.advice:
            yield f"{'':8}   -> {finding.advice}"


def report(findings: Sequence[Finding], cluster: Cluster | None) -> dict[str, Any]:
    """For programs: the findings, and the numbers behind them if the store answers."""
    document: dict[str, Any] = {
        "status": max(finding.severity for finding in findings).name,
        "findings": [{**asdict(finding), "severity": finding.severity.name} for finding in findings],
    }
    if cluster is not None:
        document |= {
            "processes": [
                {
                    **asdict(process),
                    "started": time_json(process.started),
                    "seen": time_json(process.seen),
                    "until": time_json(process.until),
                    "alive": process.until > cluster.now,
                }
                for process in cluster.processes
            ],
            "definitions": [
                {**asdict(one), "waits_for_worker": one.waits_for_worker} for one in cluster.definitions
            ],
            "parked": [{**asdict(one), "since": time_json(one.since)} for one in cluster.survey.parked],
            "overdue": [{**asdict(one), "oldest": time_json(one.oldest)} for one in cluster.survey.overdue],
            "queues": [asdict(state) for state in cluster.queues],
            "dead_letters": None if cluster.dead is None else asdict(cluster.dead),
        }
    return document
