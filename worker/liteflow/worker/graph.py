"""A definition as a graph to be drawn, and where an instance is in it.

Pure. Each container is a group that holds its blocks. Arrows follow the flow: into the blocks, back to a
loop, out of a container when its blocks have ended. `mermaid.py` and `dot.py` write the graph down.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from liteflow.core.definition import END, OUTCOME, SAGA, Step, WorkflowDefinition
from liteflow.core.models import PointerStatus
from liteflow.core.primitives import Switch
from liteflow.core.views import ExecutionPointer, WorkflowInstance
from liteflow.worker.picture import Arrow, Box, Graph, Group, Mark, Shape


def draw(definition: WorkflowDefinition, instance: WorkflowInstance | None = None) -> Graph:
    """The graph of a definition, with the position of one of its instances if that is given."""
    return _Drawing(definition, instance).graph()


_SHAPES = {
    "if": Shape.CHOICE,
    "decide": Shape.CHOICE,
    OUTCOME: Shape.CHOICE,
    "while": Shape.LOOP,
    "for_each": Shape.LOOP,
    "recur": Shape.LOOP,
    "delay": Shape.WAIT,
    "schedule": Shape.WAIT,
    "wait_for": Shape.WAIT,
    "activity": Shape.WAIT,
    "child": Shape.CHILD,
    END: Shape.END,
}

_MARKS = {
    PointerStatus.PENDING: Mark.OPEN,
    PointerStatus.RUNNING: Mark.OPEN,
    PointerStatus.COMPLETE: Mark.COMPLETE,
    PointerStatus.SLEEPING: Mark.WAITING,
    PointerStatus.WAITING_FOR_EVENT: Mark.WAITING,
    PointerStatus.FAILED: Mark.FAILED,
    PointerStatus.COMPENSATED: Mark.COMPENSATED,
    PointerStatus.CANCELLED: Mark.CANCELLED,
    PointerStatus.PENDING_PREDECESSOR: Mark.WAITING,
}

START = "start"

BRANCH = "branch"
"""The kind of the containers inside a race."""

Way = tuple[str, str]
"""A way out of a step: the box that it leaves from, and its label."""


class _Drawing:
    def __init__(self, definition: WorkflowDefinition, instance: WorkflowInstance | None) -> None:
        self._definition = definition
        self._instance = instance
        self._keys = {step.id: f"s{number}" for number, step in enumerate(definition.steps, 1)}
        self._parent: dict[str, Step] = {}
        self._ends: dict[str, list[Step]] = {}
        self._ways: dict[str, list[Way]] = {}
        self._arrows: list[Arrow] = []
        self._pointers: dict[str, list[ExecutionPointer]] = {}
        for pointer in instance.execution_pointers if instance is not None else ():
            self._pointers.setdefault(pointer.step_id, []).append(pointer)
        heads = (head for step in definition.steps for head in (*_heads(step.blocks), *step.compensation))
        self._heads = set(heads)

    def graph(self) -> Graph:
        definition, instance = self._definition, self._instance
        first = definition.first.id
        items: list[Box | Group] = [Box(START, Shape.START), *self._place()]
        self._arrows.append(Arrow(START, self._keys[first]))
        for step in definition.steps:
            self._arrows_of(step)
        graph = Graph(f"{definition.id} version {definition.version}", items=items, arrows=self._arrows)
        self._add_joins(graph.items)
        if instance is not None:
            graph.marked = True
            graph.subtitle = f"{instance.id}: {instance.status.name}"
        return graph

    # ---------------------------------------------------------------------------------------- places

    def _place(self) -> list[Box | Group]:
        """Give each step its place: the outer ones first, since a step may go on with one further out."""
        top: list[Box | Group] = []
        placed: set[str] = set()
        todo: deque[tuple[Step | None, Sequence[str], list[Box | Group]]] = deque()
        todo.append((None, (self._definition.first.id,), top))
        while todo:
            container, heads, items = todo.popleft()
            members = self._chain(heads, placed)
            if container is not None:
                self._parent |= {step.id: container for step in members}
                self._ends.setdefault(container.id, []).extend(s for s in members if _is_end(s))
            undoing = [step for member in members for step in self._undoing(member, placed)]
            for step in (*members, *undoing):
                inner = self._add(step, items, undoes=step in undoing)
                todo.extend((step, block, inner) for block in step.blocks)
        return top

    def _chain(self, heads: Iterable[str], placed: set[str]) -> list[Step]:
        """The steps of a chain, in the order of the flow, but for those that have a place already."""
        chain: list[Step] = []
        todo = list(reversed([*heads]))
        while todo:
            step_id = todo.pop()
            if step_id not in placed:
                placed.add(step_id)
                step = self._definition.by_id[step_id]
                chain.append(step)
                todo.extend(reversed([to for to in step.next if to not in self._heads]))
        return chain

    def _undoing(self, step: Step, placed: set[str]) -> list[Step]:
        chain = self._chain(step.compensation, placed)
        return [found for member in chain for found in (member, *self._undoing(member, placed))]

    def _add(self, step: Step, items: list[Box | Group], *, undoes: bool) -> list[Box | Group]:
        """Add a step to a group; returns where the steps of its blocks go."""
        box = self._box(step, undoes)
        if not step.blocks:
            items.append(box)
            return items
        group = Group(f"g{self._keys[step.id]}", step.kind, [box])
        items.append(group)
        return group.items

    def _box(self, step: Step, undoes: bool) -> Box:
        mark, note = _fares(self._pointers.get(step.id, ()))
        kind = "" if step.blocks else step.kind
        shape = _SHAPES.get(step.kind, Shape.STEP)
        return Box(self._keys[step.id], shape, str(step.name), kind, mark, note, undoes)

    # ---------------------------------------------------------------------------------------- arrows

    def _arrows_of(self, step: Step) -> None:
        key = self._keys[step.id]
        for number, block in enumerate(step.blocks):
            self._arrows += [Arrow(key, self._keys[head], _block_label(step, number)) for head in block]
        if step.blocks and step.rerun:
            self._lead(self._ends_of(step), key)
        if step.next:
            for target in step.next:
                self._lead(self._ways_out(step), self._keys[target])
        for head in step.compensation:
            self._arrows.append(Arrow(key, self._keys[head], "undo", dotted=True))

    def _lead(self, ways: Iterable[Way], target: str) -> None:
        self._arrows += [Arrow(source, target, label) for source, label in ways]

    def _ways_out(self, step: Step) -> list[Way]:
        """From where what follows a step is reached: itself, or where the ends of its blocks meet."""
        if step.id not in self._ways:
            self._ways[step.id] = self._find_ways_out(step)
        return self._ways[step.id]

    def _find_ways_out(self, step: Step) -> list[Way]:
        key = self._keys[step.id]
        if not step.blocks:
            return [(key, "")]
        if step.rerun:
            return [(key, "done")]
        ways = self._ends_of(step)
        if (past := _past_blocks(step)) is not None:
            ways.append((key, past))
        if len(ways) == 1 and step.kind in (SAGA, BRANCH):
            return ways
        join = f"j{key}"
        self._lead(ways or [(key, "")], join)
        return [(join, "")]

    def _ends_of(self, step: Step) -> list[Way]:
        return [way for end in self._ends.get(step.id, ()) for way in self._ways_out(end)]

    def _add_joins(self, items: list[Box | Group]) -> None:
        """Joins belong to the groups whose ends they gather, but only those are there that are needed."""
        needed = {arrow.target for arrow in self._arrows if arrow.target.startswith("j")}
        for item in list(items):
            if isinstance(item, Group):
                self._add_joins(item.items)
                join = "j" + item.key.removeprefix("g")
                if join in needed:
                    item.items.append(Box(join, Shape.JOIN))


def _heads(blocks: Iterable[Sequence[str]]) -> list[str]:
    return [head for block in blocks for head in block]


def _is_end(step: Step) -> bool:
    """Nothing follows it in its block, so that the block has ended with it."""
    return not step.next and step.kind != END


def _block_label(step: Step, number: int) -> str:
    match step.kind:
        case "if":
            return "else" if number else "yes"
        case "while":
            return "while true"
        case "for_each":
            return "each item"
        case "recur":
            return "each round"
        case "schedule":
            return "then"
        case "wait_for" | "activity":
            return "on time-out"
        case "decide" | "when":
            switch = step.body()
            default = isinstance(switch, Switch) and switch.default == number
            return "default" if default else f"case {number + 1}"
        case _:
            return ""


def _past_blocks(step: Step) -> str | None:
    """The label of the way that leads past the blocks of a container, if there is one."""
    match step.kind:
        case "if" if len(step.blocks) == 1:
            return "no"
        case "decide" | "when":
            switch = step.body()
            return "no match" if isinstance(switch, Switch) and switch.default is None else None
        case "wait_for":
            return "event"
        case "activity":
            return "done"
        case _:
            return None


def _fares(pointers: Sequence[ExecutionPointer]) -> tuple[Mark | None, str]:
    """The mark of a step by its activations, and what became of them in words.

    What is open counts more than what has ended, and of that the latest.
    """
    if not pointers:
        return None, ""
    counts = Counter(_MARKS[pointer.status] for pointer in pointers)
    open_ones = {_MARKS[pointer.status] for pointer in pointers if pointer.active}
    mark = next((mark for mark in Mark if mark in open_ones), _MARKS[pointers[-1].status])
    if len(pointers) == 1:
        return mark, mark.value
    return mark, ", ".join(f"{counts[mark]} {mark.value}" for mark in Mark if mark in counts)
