"""A graph as Mermaid text, which GitHub, GitLab and many editors draw."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from liteflow.worker.labels import wrapped
from liteflow.worker.picture import COLOURS, Arrow, Box, Graph, Group, Mark, Shape

_FORMS = {
    Shape.STEP: '["{}"]',
    Shape.CHOICE: '{{"{}"}}',
    Shape.LOOP: '{{{{"{}"}}}}',
    Shape.WAIT: '(["{}"])',
    Shape.CHILD: '[["{}"]]',
    Shape.END: '(("{}"))',
    Shape.START: '(("{}"))',
    Shape.JOIN: '(("{}"))',
}


def mermaid(graph: Graph) -> str:
    """A flowchart. Any text of the graph's is safe in it."""
    lines = ["---", f"title: {_title(graph)}", "---"]
    lines.append("flowchart TD")
    lines += [f"    {line}" for line in _items(graph.items)]
    lines += [f"    {_arrow(arrow)}" for arrow in graph.arrows]
    if graph.marked:
        lines += [f"    {line}" for line in _legend()]
    lines += [f"    {line}" for line in _classes(list(_boxes(graph.items)))]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text for the inside of a quoted label: what might mean something to Mermaid or HTML as a code."""
    # Formulas and icons are looked for after codes are read: a space of no width tells them apart.
    text = re.sub(r"\$(?=\$)|fa[a-z]?:(?=fa-)", "\\g<0>\u200b", text)
    coded = re.sub(r"[^\w .,:/+=()!?*-]", lambda match: f"#{ord(match[0])};", text)
    # Mermaid spoils codes in what looks like the definition of a style.
    return re.sub(r"(?i)style|classdef", lambda m: f"#{ord(m[0][0])};{m[0][1:]}", coded)


def _title(graph: Graph) -> str:
    """As a YAML string. Codes mean nothing there, and angle brackets would be taken for HTML."""
    title = " ".join(wrapped(" - ".join(text for text in (graph.title, graph.subtitle) if text), 200))
    return json.dumps(title.translate({ord("<"): "‹", ord(">"): "›"}), ensure_ascii=False)


def _items(items: Iterable[Box | Group]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Box):
            yield f"{item.key}{_FORMS[item.shape].format(_label(item))}"
        else:
            yield f'subgraph {item.key}["{escape(item.title)}"]'
            yield from (f"    {line}" for line in _items(item.items))
            yield "end"


def _label(box: Box) -> str:
    lines = [escape(line) for line in wrapped(box.name) if box.name]
    lines += [f"<small>{escape(text)}</small>" for text in (box.kind, box.note) if text]
    return "<br/>".join(lines) or " "


def _arrow(arrow: Arrow) -> str:
    line = "-.->" if arrow.dotted else "-->"
    label = f'|"{escape(arrow.label)}"|' if arrow.label else ""
    return f"{arrow.source} {line}{label} {arrow.target}"


def _legend() -> Iterator[str]:
    yield 'subgraph legend["legend"]'
    yield "    direction LR"
    yield from (f'    legend_{mark.value}["{mark.value}"]:::{mark.value}' for mark in Mark)
    yield "end"


def _boxes(items: Iterable[Box | Group]) -> Iterator[Box]:
    for item in items:
        if isinstance(item, Box):
            yield item
        else:
            yield from _boxes(item.items)


def _classes(boxes: list[Box]) -> Iterator[str]:
    yield "classDef point fill:#495057,stroke:#495057"
    yield "classDef undo stroke-dasharray:4 3"
    for mark, (fill, border) in COLOURS.items():
        yield f"classDef {mark.value} fill:{fill},stroke:{border},color:#212529"
    members = {
        "point": [box.key for box in boxes if box.shape in (Shape.START, Shape.JOIN)],
        "undo": [box.key for box in boxes if box.undoes],
        **{mark.value: [box.key for box in boxes if box.mark is mark] for mark in Mark},
    }
    yield from (f"class {','.join(keys)} {name}" for name, keys in members.items() if keys)
