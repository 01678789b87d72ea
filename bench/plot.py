"""Results as a picture: a bar for each series, with a line from the least to the most."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.harness import Workload
from bench.peers import TITLES
from bench.report import Runs, figure, medians, series

OURS, OTHERS = "#2a6fb0", "#b0b0b0"


def plot(path: Path, results: Mapping[Workload, Runs]) -> None:
    """Write an SVG with a panel for each workload."""
    shown = {workload: _shown(workload, runs) for workload, runs in results.items()}
    rows = [len(names) + 1.5 for names in shown.values()]
    canvas = Figure(figsize=(9, 0.27 * sum(rows) + 0.3 * len(rows)), layout="constrained")
    panels = canvas.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]
    for panel, (workload, names) in zip(panels, shown.items(), strict=True):
        _panel(panel, workload, names, results[workload])
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "liteflow"}):  # small, and the same again
        canvas.savefig(path, metadata={"Date": None})


def _shown(workload: Workload, runs: Runs) -> list[str]:
    return [name for name in series(runs) if not workload.plotted or name in workload.plotted]


def _panel(panel: Axes, workload: Workload, names: list[str], runs: Runs) -> None:
    middle, values = medians(runs), series(runs)
    colors = [OTHERS if name.startswith(("hand-written", "raw calls", *TITLES)) else OURS for name in names]
    panel.barh(names, [middle[name] for name in names], color=colors)
    for place, name in enumerate(names):
        panel.plot([min(values[name]), max(values[name])], [place, place], color="black", linewidth=1)
        panel.annotate(f" {figure(middle[name])}", (max(values[name]), place), va="center", fontsize=7)
    panel.invert_yaxis()
    panel.set_title(f"{workload.name}: {workload.title} ({workload.unit})", fontsize=9, loc="left")
    panel.tick_params(labelsize=7)
    panel.margins(x=0.12)
