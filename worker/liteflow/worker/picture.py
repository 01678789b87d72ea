"""What a drawn workflow consists of, in whichever format: boxes, groups and arrows."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Shape(enum.Enum):
    """What a box looks like."""

    STEP = "step"
    CHOICE = "choice"
    LOOP = "loop"
    WAIT = "wait"
    CHILD = "child"
    END = "end"
    START = "start"
    JOIN = "join"


class Mark(enum.Enum):
    """What a step has come to in an instance. The value is the word for it."""

    FAILED = "failed"
    OPEN = "open"
    WAITING = "waiting"
    COMPLETE = "complete"
    COMPENSATED = "compensated"
    CANCELLED = "cancelled"


COLOURS = {
    Mark.FAILED: ("#ffe3e3", "#c92a2a"),
    Mark.OPEN: ("#fff3bf", "#e67700"),
    Mark.WAITING: ("#d0ebff", "#1971c2"),
    Mark.COMPLETE: ("#d3f9d8", "#2b8a3e"),
    Mark.COMPENSATED: ("#f3d9fa", "#862e9c"),
    Mark.CANCELLED: ("#e9ecef", "#868e96"),
}
"""Fill and border of a mark."""


@dataclass(frozen=True)
class Box:
    """A step, or a point where arrows begin or meet.

    `key` is unique in the graph and a plain word. `kind` is empty where the group around it says it.
    `note` says how the instance fares, in words. `undoes`: it is part of a compensation.
    """

    key: str
    shape: Shape
    name: str = ""
    kind: str = ""
    mark: Mark | None = None
    note: str = ""
    undoes: bool = False


@dataclass
class Group:
    """A container: its own box, and what is in its blocks."""

    key: str
    title: str
    items: list[Box | Group] = field(default_factory=list)


@dataclass(frozen=True)
class Arrow:
    """From one box to another. A dotted one leads to what undoes a step."""

    source: str
    target: str
    label: str = ""
    dotted: bool = False


@dataclass
class Graph:
    """All that is to be drawn. With `marked` there are marks, and a legend is wanted."""

    title: str
    subtitle: str = ""
    items: list[Box | Group] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    marked: bool = False
