"""What a chaos run has left behind, in the form in which the promises are checked against it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chaos.faults import LEASE_TTL
from chaos.nemesis import Disturbance
from chaos.oplog import Stored

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a body. `end` is None if it was cut short, or failed. Times are of the monotonic clock."""

    run: str
    slot: str
    instance: str
    workflow: str
    pointer: str
    step: str
    attempt: int
    part: int
    begin: float
    end: float | None
    more: Line

    @property
    def activation(self) -> tuple[str, str, int, int]:
        """What should run once, if nobody dies."""
        return self.instance, self.pointer, self.attempt, self.part

    def __str__(self) -> str:
        what = f"step {self.step} (pointer {self.pointer}, attempt {self.attempt})"
        return f"{what} in {self.slot} at {self.begin:.3f}"


@dataclass(frozen=True)
class Refused:
    """A command in the queue of dead letters: its id, why it is there, and how it begins."""

    message_id: str
    error: str
    reason: str
    body: str


@dataclass
class Evidence:
    """All of it. `documents` are the instances as stored; `logs` what the log of commits tells of each.

    `wall` is what the wall clock shows when the monotonic one shows 0. `leftovers` are messages in queues
    that nobody took, by queue; `dead` the dead letters. `exits` and `noise` are sentences about
    processes that ended by themselves and about what they logged.
    """

    history: Sequence[Line]
    documents: Mapping[str, Any]
    logs: Mapping[str, Stored]
    disturbances: Sequence[Disturbance] = ()
    wall: float = 0.0
    leftovers: Mapping[str, int] = field(default_factory=dict)
    dead: Sequence[Refused] = ()
    exits: Sequence[str] = ()
    noise: Sequence[str] = ()
    errors: Sequence[str] = ()

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Every run of a body, by its name, in order of time."""
        ends = {line["run"]: line["mono"] for line in self.history if line["what"] == "end"}
        names = ("run", "slot", "instance", "workflow", "pointer", "step", "attempt", "part")
        return {
            line["run"]: Run(
                **{name: line[name] for name in names},
                begin=line["mono"],
                end=ends.get(line["run"]),
                more=line,
            )
            for line in self.history
            if line["what"] == "begin"
        }

    @cached_property
    def by_instance(self) -> dict[str, list[Run]]:
        """The runs of each instance."""
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs.values():
            found[run.instance].append(run)
        return found

    def lines(self, what: str) -> Iterable[Line]:
        """The lines of the history of one kind."""
        return (line for line in self.history if line["what"] == what)

    def mono(self, wall: float) -> float:
        """A point of the true wall clock on the monotonic one."""
        return wall - self.wall

    def counted(self, run: str) -> float | None:
        """When the result of a run was stored, by the monotonic clock; None if it never was."""
        stored = self.logs.get(self.runs[run].instance)
        wall = None if stored is None else stored.counted.get(run)
        return None if wall is None else self.mono(wall)

    # -------------------------------------------------------------------------------------------- excuses

    @cached_property
    def _gaps(self) -> list[Disturbance]:
        """When a process did not get to run: stopped, or starved by a busy machine."""
        return [
            Disturbance("gap", line["slot"], line["since"], line["until"])
            for line in self.lines("gap")
            if line["until"] - line["since"] > LEASE_TTL / 3
        ]

    def excuses(self, slots: Iterable[str], since: float, until: float) -> list[Disturbance]:
        """What, in a span of time, may have cost one of these processes its lease or its life.

        A message that comes twice is no excuse, so a broker's trouble is none. One lock server of three
        may be away; what needs an excuse is the loss of the majority.
        """
        wanted = set(slots)
        found, locks = [], []
        for one in [*self.disturbances, *self._gaps]:
            if one.skipped or one.until < since or one.since > until:
                continue
            process, _, server = one.target.partition(">")
            if (
                (process in wanted and server != "rabbit")
                or one.kind == "kill_two_redis"
                or process == "mongo"
            ):
                found.append(one)
            elif process.startswith("redis"):
                locks.append(one)
        masters = {one.target for one in locks}
        return found + (locks if len(masters) > 1 else [])
