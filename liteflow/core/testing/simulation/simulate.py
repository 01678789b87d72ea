"""Histories from seeds: one, or many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from liteflow.core.registry import WorkflowRegistry
from liteflow.core.testing.simulation.cluster import ALL_FAULTS, SMALL_CLUSTER, Cluster, Simulation
from liteflow.core.testing.simulation.faults import Fault, Faults
from liteflow.core.testing.simulation.history import History
from liteflow.core.testing.simulation.producer import Producer, Scenario
from liteflow.core.testing.simulation.watch import Broken
from liteflow.core.workflow import Workflow

Checks = Callable[[History], object]
"""Looks at a history that has ended well; an `AssertionError` is a broken promise of the workflow's own."""


def registry_of(workflows: Iterable[Workflow | type[Workflow]]) -> WorkflowRegistry:
    """The definitions of workflows, built once for many histories."""
    registry = WorkflowRegistry()
    for workflow in workflows:
        registry.register_workflow(workflow)
    return registry


def start_each(registry: WorkflowRegistry) -> Scenario:
    """Starts every workflow once, with no data."""

    def scenario(producer: Producer) -> None:
        for definition in registry.get_all():
            producer.start(definition.id, version=definition.version)

    return scenario


def simulate(
    workflows: Iterable[Workflow | type[Workflow]] | WorkflowRegistry,
    *scenarios: Scenario,
    seed: object,
    faults: Faults = ALL_FAULTS,
    cluster: Cluster = SMALL_CLUSTER,
    check: Checks | None = None,
    verbose: bool = False,
) -> History:
    """Run workflows on a simulated cluster, with what goes wrong drawn from `seed`; returns the history.

    Each of the `scenarios` is carried out by a producer of its own; without one every workflow is started
    once. The same arguments give the same history, whatever the machine. `check` looks at what came out. With
    `verbose` the moves contain what LiteFlow logs. Nothing is raised for a broken promise: see
    `History.broken` and `History.check`.
    """
    registry = workflows if isinstance(workflows, WorkflowRegistry) else registry_of(workflows)
    chosen = scenarios or (start_each(registry),)
    history = Simulation(registry, chosen, seed, faults, cluster, verbose).run()
    if check is not None and not history.broken:
        try:
            check(history)
        except AssertionError as exc:
            how = str(exc) or "an assertion does not hold"
            history = replace(history, broken=[Broken("the check", how, history.seconds)])
    return history


@dataclass
class Explored:
    """What many histories have in them: how many they are, of how many calls and runs, with which faults."""

    histories: int = 0
    calls: int = 0
    runs: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)

    def add(self, history: History) -> None:
        """One more."""
        self.histories += 1
        self.calls += len(history.moves)
        self.runs += len(history.runs)
        self.faults.update(history.faults)


def explore(
    workflows: Iterable[Workflow | type[Workflow]] | WorkflowRegistry,
    *scenarios: Scenario,
    seeds: Iterable[int],
    faults: Faults = ALL_FAULTS,
    cluster: Cluster = SMALL_CLUSTER,
    check: Checks | None = None,
) -> Explored:
    """`simulate` for many seeds. Raises `PromiseBroken`, with seed and trace, for the first bad one."""
    registry = workflows if isinstance(workflows, WorkflowRegistry) else registry_of(workflows)
    explored = Explored()
    for seed in seeds:
        history = simulate(registry, *scenarios, seed=seed, faults=faults, cluster=cluster, check=check)
        history.check()
        explored.add(history)
    return explored
