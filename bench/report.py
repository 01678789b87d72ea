"""Results as JSON and as tables."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pika
import pymongo
import redis

from bench.harness import ROOT, Env, Figures, Target, Workload

Runs = Sequence[Figures]
"""What each run of a workload gave. A series that could not be had in one run is missing there."""


def machine(env: Env) -> dict[str, Any]:
    """Where and with what this is measured."""
    with pika.BlockingConnection(pika.URLParameters(env.amqp)) as connection:
        rabbit = connection._impl.server_properties["version"]  # type: ignore[attr-defined]
    with pymongo.MongoClient(env.mongo) as mongo, redis.Redis.from_url(env.redis) as lock:  # type: ignore[var-annotated]
        servers = {
            "mongodb": mongo.server_info()["version"],
            "rabbitmq": rabbit.decode() if isinstance(rabbit, bytes) else rabbit,
            "redis": lock.info("server")["redis_version"],
        }
    command = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    drivers = {name: version(name) for name in ("pymongo", "pika", "redis", "cattrs", "liteflow.core")}
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "revision": revision,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "load_average": os.getloadavg(),
        },
        "servers": servers,
        "clients": {"python": platform.python_version(), **drivers},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def series(runs: Runs) -> dict[str, list[float]]:
    """The values of each series, in the order of the runs."""
    found: dict[str, list[float]] = {}
    for figures in runs:
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return found


def medians(runs: Runs) -> Figures:
    """The median of each series."""
    return {name: statistics.median(values) for name, values in series(runs).items()}


def ratios(workload: Workload, runs: Runs) -> Figures:
    """The median of each series that has a reference, to that of the best one."""
    middle, found = medians(runs), Figures()
    for kind, reference in workload.references.items():
        others = [value for name, value in middle.items() if name.startswith(reference)]
        if others:
            found |= {name: value / max(others) for name, value in middle.items() if name.startswith(kind)}
    return found


def verdicts(workload: Workload, runs: Runs) -> list[dict[str, Any]]:
    """What is to be reached, of the medians; what it was, with the spread over the runs; and whether."""
    rows = []
    for target in workload.targets:
        value = target.of(medians(runs))
        each = [figure for figure in (_of_run(target, figures) for figures in runs) if figure == figure]
        rows.append(
            {
                "label": target.label,
                "value": None if math.isnan(value) else value,
                "least": min(each, default=None),
                "most": max(each, default=None),
                "target": target.bound,
                "aim": target.aim,
                "at_least": target.least,
                "reached": None if math.isnan(value) else target.reached(value),
            }
        )
    return rows


def _of_run(target: Target, figures: Figures) -> float:
    try:
        return target.of(figures)
    except KeyError:  # a series that could not be had in this run
        return math.nan


def table(workload: Workload, runs: Runs) -> str:
    """All series of a workload as Markdown."""
    to_reference = ratios(workload, runs)
    rows = []
    for name, values in series(runs).items():
        ratio = [figure(to_reference.get(name))] if to_reference else []
        spread = f"{figure(min(values))} to {figure(max(values))}"
        rows.append([name, figure(statistics.median(values)), spread, *ratio, str(len(values))])
    heads = [
        "",
        f"median, {workload.unit}",
        "least to most",
        *(["to reference"] if to_reference else []),
        "runs",
    ]
    return f"### {workload.name}: {workload.title}\n\n{_markdown(heads, rows)}"


def summary(results: Mapping[Workload, Runs]) -> str:
    """All targets as Markdown."""
    rows = []
    for workload, runs in results.items():
        for row in verdicts(workload, runs):
            sign = "≥" if row["at_least"] else "≤"
            verdict = {None: "not measured", True: "reached", False: "**not reached**"}[row["reached"]]
            rows.append(
                [
                    f"{workload.name} {row['label']}",
                    figure(row["value"]),
                    f"{figure(row['least'])} to {figure(row['most'])}",
                    f"{sign} {figure(row['target'])}",
                    f"{sign} {figure(row['aim'])}",
                    verdict,
                ]
            )
    heads = ["", "figure", "least to most", "target", "aim", ""]
    return f"### Targets\n\n{_markdown(heads, rows)}"


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table that is also readable as plain text."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in [heads, *rows]]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def figure(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(folder: Path, about: Mapping[str, Any], results: Mapping[Workload, Runs]) -> None:
    """`results.json` and `results.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        workload.name: {
            "title": workload.title,
            "unit": workload.unit,
            "runs": list(runs),
            "medians": medians(runs),
            "ratios": ratios(workload, runs),
            "targets": verdicts(workload, runs),
        }
        for workload, runs in results.items()
    }
    text = json.dumps({**about, "workloads": stored}, indent=1, allow_nan=False)
    (folder / "results.json").write_text(text + "\n")
    parts = [summary(results), *(table(workload, runs) for workload, runs in results.items()), _about(about)]
    (folder / "results.md").write_text("\n\n".join(parts) + "\n")


def _about(about: Mapping[str, Any]) -> str:
    of = about["machine"]
    lines = [
        f"{about['time']}, revision {about['revision']}, {of['cpus']} CPUs ({of['processor']}),"
        f" {of['memory_gib']} GiB, {of['system']}; load average at the start {of['load_average'][0]:.1f}."
    ]
    for kind in ("servers", "clients", "peers"):
        found = ", ".join(f"{name} {number}" for name, number in about[kind].items())
        lines.append(f"{kind.capitalize()}: {found or 'none'}.")
    return "\n".join(lines)
