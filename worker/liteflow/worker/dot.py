"""A graph in the language of Graphviz, whose `dot` program draws it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator

from liteflow.worker.labels import wrapped
from liteflow.worker.picture import COLOURS, Arrow, Box, Graph, Group, Mark, Shape

_SHAPES = {
    Shape.STEP: "shape=box",
    Shape.CHOICE: 'shape=diamond, margin="0.05,0.05"',
    Shape.LOOP: "shape=hexagon",
    Shape.WAIT: 'shape=box, style="rounded,filled"',
    Shape.CHILD: "shape=box, peripheries=2",
    Shape.END: "shape=doublecircle, margin=0.02",
    Shape.START: 'shape=circle, width=0.18, fixedsize=true, fillcolor="#495057"',
    Shape.JOIN: 'shape=circle, width=0.1, fixedsize=true, fillcolor="#495057"',
}

_HEAD = """\
digraph {
    graph [fontname="Helvetica", labelloc=t, nodesep=0.35, ranksep=0.4, pad=0.2]
    node [fontname="Helvetica", fontsize=11, style=filled, fillcolor=white, color="#495057"]
    edge [fontname="Helvetica", fontsize=9, color="#495057", fontcolor="#495057", arrowsize=0.7]
"""


def dot(graph: Graph) -> str:
    """A digraph. Any text of the graph's is safe in it."""
    lines = [f"graph [label=<{_title(graph)}>]"]
    lines += _items(graph.items)
    lines += [_arrow(arrow) for arrow in graph.arrows]
    return _HEAD + "".join(f"    {line}\n" for line in lines) + "}\n"


def escape(text: str) -> str:
    """Text for the inside of an HTML-like label."""
    # Twice a backslash: in any label, Graphviz replaces \N and its like.
    return html.escape(text.replace("\\", "\\\\"))


def _items(items: Iterable[Box | Group]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Box):
            yield f"{item.key} [{_SHAPES[item.shape]}, label={_label(item)}{_style(item)}]"
        else:
            yield f"subgraph cluster_{item.key} {{"
            yield (
                f'    graph [label=<<font point-size="9" color="#868e96">{escape(item.title)}</font>>,'
                ' labeljust=l, style=rounded, color="#adb5bd", margin=12]'
            )
            yield from (f"    {line}" for line in _items(item.items))
            yield "}"


def _label(box: Box) -> str:
    if not box.name:
        return '""'
    lines = [escape(line) for line in wrapped(box.name)]
    if box.kind:
        lines.append(f'<font point-size="9" color="#868e96">{escape(box.kind)}</font>')
    if box.mark is not None:
        lines.append(f'<font point-size="9" color="{COLOURS[box.mark][1]}">{escape(box.note)}</font>')
    return f"<{'<br/>'.join(lines)}>"


def _style(box: Box) -> str:
    parts = []
    if box.undoes:
        parts.append('style="filled,dashed"')
    if box.mark is not None:
        fill, border = COLOURS[box.mark]
        parts.append(f'class="{box.mark.value}", fillcolor="{fill}", color="{border}"')
    return "".join(f", {part}" for part in parts)


def _arrow(arrow: Arrow) -> str:
    more = []
    if arrow.label:
        more.append(f"label=<{escape(arrow.label)}>")
    if arrow.dotted:
        more.append("style=dotted")
    attributes = f" [{', '.join(more)}]" if more else ""
    return f"{arrow.source} -> {arrow.target}{attributes}"


def _title(graph: Graph) -> str:
    lines = [f"<b>{escape(line)}</b>" for line in wrapped(graph.title, 60)]
    lines += [escape(line) for line in wrapped(graph.subtitle, 60) if graph.subtitle]
    rows = [f'<tr><td colspan="{len(Mark)}">{"<br/>".join(lines)}</td></tr>']
    if graph.marked:
        cells = (
            f'<td bgcolor="{fill}" color="{border}" border="1"><font point-size="9">{mark.value}</font></td>'
            for mark, (fill, border) in COLOURS.items()
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<table border="0" cellspacing="4" cellpadding="3">{"".join(rows)}</table>'
