"""Draws docs/protocol.svg, one message's way between the servers: python tests/protocol/figure.py"""

from __future__ import annotations

from html import escape
from pathlib import Path

FIGURE = Path(__file__).parents[2] / "docs" / "protocol.svg"

LANES = {"queue": 90, "worker A": 270, "lease": 450, "store": 630, "worker B": 810}
ACTS = [
    ("queue", "worker A", "id"),
    ("worker A", "lease", "acquire"),
    ("worker A", "store", "load: revision, inbox, wake_at"),
    ("worker A", "store", "look into the event log"),
    ("worker A", "worker A", "body"),
    ("worker A", "store", "commit if revision and inbox are the same; wake_at: the lease's end"),
    ("queue", "worker B", "id again: an event"),
    ("worker B", "lease", "acquire: taken, leaves a mark"),
    ("worker B", "store", "lower wake_at"),
    ("worker B", "queue", "acknowledge"),
    ("worker A", "store", "look into the event log after the commit of a wait"),
    ("worker A", "store", "move wake_at, if revision, inbox and wake_at are the same"),
    ("worker A", "lease", "release: marked, so begin anew"),
    ("worker A", "lease", "... release: mine, and unmarked"),
    ("worker A", "queue", "acknowledge, last"),
]
TOP, STEP, WIDTH = 70, 34, 900


def figure() -> str:
    """The drawing, as the text of an SVG file."""
    height = TOP + STEP * len(ACTS) + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
        ' font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#234"/></marker>',
    ]
    for name, x in LANES.items():
        lines += [
            f'<rect x="{x - 55}" y="14" width="110" height="28" rx="5" fill="#e6eef5" stroke="#234"/>',
            f'<text x="{x}" y="33" text-anchor="middle" font-weight="bold">{name}</text>',
            f'<path d="M{x} 42V{height - 10}" stroke="#9ab" stroke-dasharray="3 4"/>',
        ]
    for row, (source, target, what) in enumerate(ACTS):
        lines += _act(LANES[source], LANES[target], TOP + STEP * row + 10, what)
    return "\n".join([*lines, "</svg>", ""])


def _act(x1: int, x2: int, y: int, what: str) -> list[str]:
    if x1 == x2:
        path, middle = f"M{x1} {y - 6}h34v12h-30", x1 + 60
    else:
        path, middle = f"M{x1} {y}H{x2}", (x1 + x2) // 2
    width = len(what) * 6.6
    left = min(max(middle - width / 2, 4), WIDTH - width - 4)
    return [
        f'<path d="{path}" fill="none" stroke="#234" marker-end="url(#head)"/>',
        f'<rect x="{left:.0f}" y="{y - 18}" width="{width:.0f}" height="14" fill="#fff"'
        ' fill-opacity="0.85"/>',
        f'<text x="{left + width / 2:.0f}" y="{y - 6}" text-anchor="middle">{escape(what)}</text>',
    ]


if __name__ == "__main__":
    FIGURE.write_text(figure())
