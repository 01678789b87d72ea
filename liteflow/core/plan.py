"""A definition while it is being written down: drafts of steps, validated and frozen at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from liteflow.core.definition import Assignment, Step
from liteflow.core.errors import DefinitionError
from liteflow.core.retry import ErrorPolicy
from liteflow.core.values import Value

Heads = list["Draft"]
"""The first steps of a block: it fills as the block is chained."""


@dataclass(eq=False)
class Draft:
    """A step while it is being built. `next` holds drafts, and ids to attach to."""

    kind: str
    label: str
    body: Callable[[], Any]
    id: str | None = None
    name: str | None = None
    inputs: list[Assignment] = field(default_factory=list)
    outputs: list[Assignment] = field(default_factory=list)
    next: list[Draft | str] = field(default_factory=list)
    blocks: list[Heads] = field(default_factory=list)
    container: bool = False
    rerun: bool = True
    on_error: ErrorPolicy | None = None
    timeout: timedelta | None = None
    compensation: Heads = field(default_factory=list)
    cancel_when: Value | None = None
    proceed_after_cancel: bool = False


class Plan:
    """The steps of one definition, in the order in which they were written."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.drafts: list[Draft] = []
        self.on_error: ErrorPolicy | None = None
        self.loose: list[Heads] = []  # branches that nothing leads to so far

    def error(self, draft: Draft | None, problem: str) -> DefinitionError:
        """An error that names the workflow and the step."""
        where = f"{self.title}, step {draft.id or _label(draft)}" if draft else self.title
        return DefinitionError(f"{where}: {problem}")

    def finish(self, heads: Heads) -> tuple[Step, ...]:
        """Validate, give each step its id, and freeze. The first head comes first."""
        if not heads:
            raise self.error(None, "has no first step; begin with builder.start_with(...)")
        if len(heads) > 1:
            raise self.error(heads[1], "is a second first step; a workflow begins with one")
        for branch in self.loose:
            head = branch[0] if branch else None
            raise self.error(head, "begins a branch that is never used; give it to .branch(...)")
        for draft in self.drafts:
            if draft.container and not (draft.blocks and all(draft.blocks)):
                raise self.error(draft, "has an empty block; give it steps with .do(lambda b: ...)")
        ids = self._ids()
        known = set(ids.values())

        def target(draft: Draft, to: Draft | str) -> str:
            if isinstance(to, Draft):
                return ids[to]
            if to not in known:
                raise self.error(draft, f"attach: there is no step with the id {to!r}")
            return to

        def named(drafts: Iterable[Draft]) -> tuple[str, ...]:
            return tuple(ids[draft] for draft in drafts)

        ordered = sorted(self.drafts, key=lambda draft: draft is not heads[0])
        return tuple(
            Step(
                id=ids[draft],
                name=draft.name or ids[draft],
                kind=draft.kind,
                body=draft.body,
                inputs=tuple(draft.inputs),
                outputs=tuple(draft.outputs),
                next=tuple(target(draft, to) for to in draft.next),
                blocks=tuple(named(block) for block in draft.blocks),
                rerun=draft.rerun,
                on_error=draft.on_error,
                timeout=draft.timeout,
                compensation=named(draft.compensation),
                cancel_when=draft.cancel_when,
                proceed_after_cancel=draft.proceed_after_cancel,
            )
            for draft in ordered
        )

    def _ids(self) -> dict[Draft, str]:
        """Ids from labels, made unique. Only a step of the same label before it changes a step's id."""
        ids: dict[Draft, str] = {}
        used: set[str] = set()
        for draft in self.drafts:
            if draft.id is not None:
                if draft.id in used:
                    raise self.error(draft, "the id is used twice")
                used.add(draft.id)
                ids[draft] = draft.id
        for draft in self.drafts:
            if draft.id is None:
                label = _label(draft)
                candidate, number = label, 1
                while candidate in used:
                    number += 1
                    candidate = f"{label}-{number}"
                used.add(candidate)
                ids[draft] = candidate
        return ids


def _label(draft: Draft) -> str:
    """A container is named after what it contains, so that another one before it does not rename it."""
    first = draft.blocks[0][0] if draft.blocks and draft.blocks[0] else None
    return draft.label if first is None else f"{draft.label}:{first.id or _label(first)}"
