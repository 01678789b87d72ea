"""What producers do with small workflows, and what has to be true when they have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from liteflow.core.models import PointerStatus, WorkflowStatus
from liteflow.core.testing.simulation.cluster import Cluster, Gateway
from liteflow.core.testing.simulation.flows import (
    Asks,
    Branches,
    Burst,
    Chain,
    Child,
    Each,
    FromNowOn,
    Parent,
    Rounds,
    Sleeps,
    Trip,
    Waits,
)
from liteflow.core.testing.simulation.history import History
from liteflow.core.testing.simulation.producer import Producer, Scenario
from liteflow.core.testing.simulation.simulate import registry_of, simulate
from liteflow.core.views import WorkflowInstance
from liteflow.core.workflow import Workflow


@dataclass(frozen=True)
class Workload:
    """Workflows, who does what with them, and what has to be true of a history when it has ended."""

    name: str
    workflows: tuple[type[Workflow], ...]
    scenarios: tuple[Scenario, ...]
    check: Callable[[History], object] = lambda history: None


def _only(history: History) -> WorkflowInstance:
    (instance,) = history.instances.values()
    return instance


def _just_start(*workflow_ids: str) -> Scenario:
    def scenario(producer: Producer) -> None:
        for workflow_id in workflow_ids:
            producer.start(workflow_id)

    return scenario


def _counts(history: History, expected: dict[str, int]) -> None:
    for instance in history.instances.values():
        found = instance.data.count
        wanted = expected[instance.workflow_definition_id]
        assert found == wanted, f"{instance.id} has counted {found} steps instead of {wanted}"


def _steps_in_order(history: History) -> None:
    for instance in history.instances.values():
        done = [p.step_id for p in instance.execution_pointers]
        assert done == ["1", "2", "3", "4", "5"], f"{instance.id} went {done}"
    _counts(history, {"chain": 5})


def _four_rounds(history: History) -> None:
    _counts(history, {"rounds": 4})


def _same_key(producer: Producer) -> None:
    """Two producers do this with the same keys."""
    producer.start("chain", key="a")
    producer.sleep(producer.random.random() * 0.05)
    producer.start("chain", key="b")
    producer.start("chain", key="a")


def _one_for_each_key(history: History) -> None:
    assert len(history.instances) == 2, f"two keys have started {len(history.instances)} instances"
    _steps_in_order(history)


def _events(producer: Producer) -> None:
    """The events come before, while and after the instance begins to wait."""
    wait = producer.random.choice([0.0, 0.005, 0.05, 1.0, 40.0])
    first = producer.random.random() < 0.3
    if first:
        producer.publish("go", "k", "first")
    producer.start("waits", {"key": "k"})
    producer.sleep(producer.random.random() * wait)
    if not first:
        producer.publish("go", "k", "first")
    producer.sleep(producer.random.random() * wait)
    producer.publish("more", "k", "second", delay=producer.random.choice([None, None, 0.5]))


def _both_events(history: History) -> None:
    data = _only(history).data
    assert (data.first, data.second) == ("first", "second"), f"it got {data.first!r}, then {data.second!r}"


def _burst(producer: Producer) -> None:
    if producer.random.random() < 0.5:
        producer.start("burst")
    for number in range(4):
        producer.publish("burst", "k", number)
        producer.sleep(producer.random.random() * producer.random.choice([0.0, 0.02, 0.3]))
    producer.start("burst")


def _all_of_the_burst(history: History) -> None:
    for instance in history.instances.values():
        got = instance.data.got
        assert sorted(got) == [0, 1, 2, 3], f"{instance.id} got {got}"


def _tick(producer: Producer) -> None:
    producer.start("from-now-on")
    producer.sleep(producer.random.random() * 4)
    producer.publish("tick", "k")


def _branches(producer: Producer) -> None:
    producer.start("branches")
    producer.sleep(producer.random.random() * producer.random.choice([0.01, 0.5]))
    producer.publish("branch", "r")


def _once_each(*step_ids: str) -> Callable[[History], None]:
    """Of each of these steps one activation has ended in each instance."""

    def check(history: History) -> None:
        for instance in history.instances.values():
            pointers = instance.execution_pointers
            done = [p.step_id for p in pointers if p.status is PointerStatus.COMPLETE]
            for step_id in step_ids:
                times = done.count(step_id)
                assert times == 1, f"{instance.id} has ended {step_id} {times} times"

    return check


def _control(producer: Producer) -> None:
    """Suspends, resumes, and perhaps terminates, while the instance is at it."""
    workflow = producer.random.choice(["chain", "sleeps", "branches"])
    instance_id = producer.start(workflow, expect=[WorkflowStatus.COMPLETE, WorkflowStatus.TERMINATED])
    producer.sleep(producer.random.random() * producer.random.choice([0.01, 0.1, 2.0]))
    producer.suspend(instance_id)
    producer.sleep(producer.random.random() * producer.random.choice([0.01, 1.0]))
    if workflow == "branches":
        producer.publish("branch", "r")
    last = producer.random.random()
    if last < 0.8:
        producer.resume(instance_id)
    if last < 0.2 or last >= 0.8:
        producer.sleep(producer.random.random() * 0.1)
        producer.terminate(instance_id)


def _work(producer: Producer) -> None:
    producer.start("asks")
    producer.sleep(producer.random.random())
    producer.work("approve", lambda parameters: parameters + 1)


def _answered(history: History) -> None:
    assert _only(history).data.answer == 21


WORKLOADS = [
    Workload("chains", (Chain,), (_just_start("chain", "chain", "chain"),), _steps_in_order),
    Workload("keys", (Chain,), (_same_key, _same_key), _one_for_each_key),
    Workload("rounds", (Rounds,), (_just_start("rounds", "rounds"),), _four_rounds),
    Workload("each", (Each,), (_just_start("each"),), _once_each("end")),
    Workload("branches", (Branches,), (_branches,), _once_each("a", "a2", "b", "b2", "c", "c2", "end")),
    Workload("events", (Waits,), (_events,), _both_events),
    Workload("burst", (Burst,), (_burst,), _all_of_the_burst),
    Workload("ticks", (FromNowOn,), (_tick,), _once_each("end")),
    Workload("timers", (Sleeps,), (_just_start("sleeps"),), _once_each("again", "second", "later", "end")),
    Workload("sagas", (Trip,), (_just_start("trip"),), _once_each("end")),
    Workload("control", (Chain, Sleeps, Branches), (_control,)),
    Workload("activities", (Asks,), (_work,), _answered),
    Workload("children", (Parent, Child), (_just_start("parent"),), _once_each()),
]
"""What the project simulates its own histories with."""

_REGISTRIES = {workload.name: registry_of(workload.workflows) for workload in WORKLOADS}


def history_of(
    seed: int, workload: Workload | None = None, *, gateway: Gateway | None = None, verbose: bool = False
) -> History:
    """One of the project's own histories. The seed chooses the cluster, and the workload if none is given."""
    chosen = workload or WORKLOADS[seed % len(WORKLOADS)]
    cluster = Cluster(2 + (seed % 5 == 0), 1 + (seed % 4 == 0), gateway=gateway)
    return simulate(
        _REGISTRIES[chosen.name], *chosen.scenarios,
        seed=seed, cluster=cluster, check=chosen.check, verbose=verbose,
    )  # fmt: skip
