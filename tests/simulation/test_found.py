"""What the simulation has found, each with what it takes to find it again."""

from __future__ import annotations

import pytest

from liteflow.core import Settings, Workflow, WorkflowBuilder
from liteflow.core.testing.simulation import Cluster, Fault, Faults, explore
from liteflow.core.testing.simulation.workloads import WORKLOADS, history_of

CALM = Faults(kinds=())


class TwoSteps(Workflow):
    id = "two-steps"

    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None).id("first").then(lambda context: None).id("second")


def test_a_slow_store_does_not_use_up_the_time_slice() -> None:
    """Who had leased and loaded for longer than a slice left before anything ran, and so did the next one."""
    cluster = Cluster(settings=Settings(time_slice=0.0))
    explore([TwoSteps], seeds=range(10), faults=CALM, cluster=cluster)


def test_a_suspect_that_was_counted_is_run_before_it_is_given_away() -> None:
    """It was counted and given away, again and again, until it was poison that nobody had died of."""
    cluster = Cluster(settings=Settings(time_slice=0.0))
    faults = Faults(kinds=(Fault.LOST_REPLY,), most=2)
    explore([TwoSteps], seeds=range(100), faults=faults, cluster=cluster)


@pytest.mark.parametrize("name", ["events", "burst", "branches", "activities", "children"])
def test_an_event_reaches_those_whose_clock_is_behind(name: str) -> None:
    """Who was woken for an event of another one's now found it to be of the future, and nobody came again."""
    workload = next(one for one in WORKLOADS if one.name == name)
    explore(
        workload.workflows, *workload.scenarios,
        seeds=range(60), faults=CALM, cluster=Cluster(skew=0.05), check=workload.check,
    )  # fmt: skip


def test_a_terminated_workflow_begins_no_body_that_waited_for_a_slot() -> None:
    """It was ready when it was handed to the slots, and was begun after the end of its instance."""
    workload = next(one for one in WORKLOADS if one.name == "control")
    cluster = Cluster(settings=Settings(concurrency=1))
    explore(workload.workflows, *workload.scenarios, seeds=range(400), faults=CALM, cluster=cluster)


def test_who_has_lost_its_lease_may_run_what_was_due_when_it_loaded() -> None:
    """Somebody else had run it meanwhile, and let it sleep anew; the timer of that is none of this run's."""
    history_of(11097).check()
