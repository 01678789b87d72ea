"""Results as JSON, as a table, and as a plot."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.harness import ROOT, Env, Workload

Runs = dict[str, list[float]]
"""The values of each series, one for each run."""


def machine(env: Env) -> dict[str, Any]:
    """Where and with what this was measured."""
    import pika
    import pymongo
    import redis

    connection = pika.BlockingConnection(pika.URLParameters(env.amqp))
    rabbit = connection._impl.server_properties["version"]  # type: ignore[attr-defined]
    connection.close()
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "revision": revision.stdout.strip(),
        "machine": {
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "load": os.getloadavg(),
        },
        "versions": {
            "python": platform.python_version(),
            "mongodb": pymongo.MongoClient(env.mongo).server_info()["version"],
            "rabbitmq": rabbit.decode() if isinstance(rabbit, bytes) else rabbit,
            "redis": redis.Redis.from_url(env.redis).info("server")["redis_version"],
            **{name: _version(name) for name in ("pymongo", "pika", "redis", "cattrs")},
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def medians(runs: Runs) -> dict[str, float]:
    """The median of each series."""
    return {name: statistics.median(values) for name, values in runs.items() if values}


def table(workload: Workload, runs: Runs) -> str:
    """Series and targets as Markdown."""
    lines = [
        f"### {workload.name}: {workload.title}",
        "",
        f"| | median, {workload.unit} | least to most | runs |",
        "|---|---|---|---|",
    ]
    for name, values in runs.items():
        spread = f"{_figure(min(values))} to {_figure(max(values))}"
        lines.append(f"| {name} | {_figure(statistics.median(values))} | {spread} | {len(values)} |")
    rows = targets(workload, runs)
    if rows:
        lines += ["", "| | figure | target | aim | |", "|---|---|---|---|---|"]
        for row in rows:
            sign = "≥" if row["least"] else "≤"
            lines.append(
                f"| {row['label']} | {_figure(row['value'])} | {sign} {_figure(row['target'])}"
                f" | {_figure(row['aim'])} | {row['verdict']} |"
            )
    return "\n".join(lines)


def targets(workload: Workload, runs: Runs) -> list[dict[str, Any]]:
    """What is to be reached, and whether it was."""
    rows = []
    for target in workload.targets:
        value = target.of(medians(runs))
        verdict = "reached" if target.reached(value) else "**not reached**"
        if math.isnan(value):
            verdict = "not measured"
        rows.append(
            {
                "label": target.label, "value": value, "target": target.bound, "aim": target.aim,
                "least": target.least, "verdict": verdict,
            }
        )  # fmt: skip
    return rows


def _figure(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(
    folder: Path, about: dict[str, Any], workloads: Sequence[Workload], results: dict[str, Runs]
) -> None:
    """`results.json`, `results.md` and, where matplotlib is, `results.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        workload.name: {
            "title": workload.title,
            "unit": workload.unit,
            "runs": results[workload.name],
            "medians": medians(results[workload.name]),
            "targets": [
                {key: None if value != value else value for key, value in row.items()}
                for row in targets(workload, results[workload.name])
            ],
        }
        for workload in workloads
    }
    (folder / "results.json").write_text(json.dumps({**about, "workloads": stored}, indent=1) + "\n")
    text = "\n\n".join(table(workload, results[workload.name]) for workload in workloads)
    (folder / "results.md").write_text(text + "\n")
    _plot(folder / "results.svg", workloads, results)


def _plot(path: Path, workloads: Sequence[Workload], results: dict[str, Runs]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is missing (pip install 'liteflow.core[bench]')", file=sys.stderr)
        return
    figure = Figure(figsize=(9, 0.6 + sum(0.32 * len(results[w.name]) + 0.9 for w in workloads)))
    heights = [len(results[w.name]) + 1 for w in workloads]
    axes = figure.subplots(len(workloads), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, workload in zip(axes, workloads, strict=True):
        runs = results[workload.name]
        names, middle = list(runs), medians(runs)
        colors = ["#2a6fb0" if name.startswith(("LiteFlow", *_OURS)) else "#b0b0b0" for name in names]
        if len({name.split(",")[0] for name in names}) == len(names):
            colors = ["#2a6fb0"] * len(names)
        axis.barh(names, [middle[name] for name in names], color=colors)
        for place, name in enumerate(names):
            axis.plot([min(runs[name]), max(runs[name])], [place, place], color="black", linewidth=1)
            axis.annotate(f" {_figure(middle[name])}", (max(runs[name]), place), va="center", fontsize=7)
        axis.invert_yaxis()
        axis.set_title(f"{workload.name}: {workload.title} ({workload.unit})", fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        axis.margins(x=0.12)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


_OURS = ("0 ms", "1 ms", "5 ms", "AMQP", "host", "idle", "wake", "loop", "each")
