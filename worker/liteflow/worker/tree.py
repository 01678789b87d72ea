"""The activations of an instance as a tree: containers with what ran in them, branch after branch."""

from __future__ import annotations

from collections.abc import Iterable

from liteflow.core.views import ExecutionPointer


def in_tree_order(pointers: Iterable[ExecutionPointer]) -> list[ExecutionPointer]:
    """Each container is followed by all in it, each step by what came after it in its own branch.

    So branches that ran side by side are not mixed. `pointers` are in order of creation; depth is the
    length of a scope.
    """
    known = {pointer.id: pointer for pointer in pointers}
    inside: dict[str | None, list[ExecutionPointer]] = {}
    after: dict[str, list[ExecutionPointer]] = {}
    for pointer in known.values():
        before = known.get(pointer.predecessor_id or "")
        if before is not None and before.scope == pointer.scope:
            after.setdefault(before.id, []).append(pointer)
        else:
            container = pointer.scope[-1] if pointer.scope else None
            inside.setdefault(container if container in known else None, []).append(pointer)
    ordered: list[ExecutionPointer] = []
    todo = inside.pop(None, [])[::-1]
    while todo:
        pointer = todo.pop()
        ordered.append(pointer)
        todo += after.pop(pointer.id, [])[::-1] + inside.pop(pointer.id, [])[::-1]
    return ordered
