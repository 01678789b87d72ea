"""What happened in one simulated history."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from liteflow.core.testing.simulation.faults import HARMLESS, Fault
from liteflow.core.testing.simulation.watch import Broken, Run
from liteflow.core.testing.simulation.world import SECOND
from liteflow.core.views import WorkflowInstance


class PromiseBroken(AssertionError):
    """A history in which LiteFlow, or the workflows under test, did what they must not."""


@dataclass(frozen=True, slots=True)
class Move:
    """One call of a node at its boundary, or a line of its log. `what` says what went wrong, if anything."""

    micros: int
    node: str
    call: str
    what: str

    def __str__(self) -> str:
        return f"{self.micros / SECOND:12.6f}  {self.node:14} {self.call}  {self.what}".rstrip()


@dataclass(frozen=True)
class History:
    """One history: all of it follows from `seed`, the workflows and the scenario.

    `instances` are all that were started, as they are in the end, by id. `runs` are the runs of bodies in
    order, `moves` the calls of all nodes, `faults` what went wrong. `seconds` is its length in virtual time.
    `broken` names the promises that did not hold; there are none if all is well.
    """

    seed: object
    instances: dict[str, WorkflowInstance]
    runs: Sequence[Run]
    moves: Sequence[Move]
    faults: Counter[Fault]
    seconds: float
    broken: list[Broken]

    @property
    def calm(self) -> bool:
        """True if nothing has happened that may make a step run twice."""
        return not any(fault not in HARMLESS for fault in self.faults)

    @property
    def fingerprint(self) -> str:
        """A hash of all that happened, in order: the same for the same seed, on any machine."""
        digest = hashlib.sha256()
        for move in self.moves:
            digest.update(f"{move.micros} {move.node} {move.call} {move.what}\n".encode())
        for run in self.runs:
            digest.update(f"{run.micros} {run.node.name} {run.instance_id} {run.pointer_id}\n".encode())
        for instance in self.instances.values():
            digest.update(f"{instance.id} {instance.status.name} {instance.revision}\n".encode())
        return digest.hexdigest()

    def runs_of(self, step_id: str) -> list[Run]:
        """The runs of one step, of all instances."""
        return [run for run in self.runs if run.step_id == step_id]

    def trace(self, last: int | None = None) -> str:
        """The moves as text, one a line, or the last of them."""
        return "\n".join(str(move) for move in (self.moves if last is None else self.moves[-last:]))

    def check(self) -> None:
        """Raise `PromiseBroken` if a promise was broken."""
        if self.broken:
            problems = "\n".join(str(one) for one in self.broken[:5])
            raise PromiseBroken(f"seed {self.seed}:\n{problems}\nthe last moves:\n{self.trace(40)}")
