"""W6: 100,000 instances that sleep or wait: what they cost, and how fast 10,000 of them wake.

They are stored as the engine leaves them, through the store's `create`. Idle: the CPU time of worker,
scheduler and servers in 20 s with them, minus the same before they were there. Wake rate: 10,000 are due at
the same moment; from then to the step after the sleep of the last.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from bench.flows import Sleeper, Waiter
from bench.harness import Cluster, Env, Target, Workload, cpu_seconds, log_of_steps, until
from liteflow.core import ExecutionResult, Workflow, engine
from liteflow.core.inputs import BodyEnded
from liteflow.core.models import Instance

IDLE_SECONDS = 20


def blocked(
    cluster: Cluster,
    workflow: type[Workflow],
    count: int,
    due: datetime | None = None,
    key: str | None = None,
) -> list[str]:
    """Store instances that sleep until a time, or wait for an event; returns their ids."""
    definition = workflow().definition()
    store, ids = cluster.client.persistence, list[str]()
    while len(ids) < count:
        batch = [_blocked(definition, store.now(), due, key) for _ in range(min(1000, count - len(ids)))]
        store.create(batch)
        ids += [instance.id for instance in batch]
    return ids


def _blocked(definition, now: datetime, due: datetime | None, key: str | None) -> Instance:  # type: ignore[no-untyped-def]
    instance = Instance(str(uuid.uuid4()), definition.id, definition.version, now, begun=False)
    instance.data = {"seconds": 0, "key": key or instance.id}
    results: Iterable[ExecutionResult]
    if due is not None:
        results = [ExecutionResult(sleep_for=due - now, persistence_data=True)]
    else:
        wait = ExecutionResult(event_name="go", event_key=instance.data["key"], event_since=now)
        results = [ExecutionResult.next(), wait]
    _apply(instance, engine.advance(instance, definition, now))
    for result in results:
        pointer = instance.open_pointers()[0]
        ended = BodyEnded(pointer.id, now, result=result)
        _apply(instance, engine.advance(instance, definition, now, [ended]))
    instance.revision = 0
    return instance


def _apply(instance: Instance, transition) -> None:  # type: ignore[no-untyped-def]
    assert transition is not None
    transition.apply(instance)


def run(env: Env, quick: bool) -> dict[str, float]:
    many, due_at_once, seconds = (2000, 2000, 2) if quick else (100_000, 10_000, IDLE_SECONDS)
    with log_of_steps() as log, env.cluster() as cluster:
        pids = [cluster.worker("everything").pid, cluster.scheduler().pid, *env.server_pids()]
        for workflow in ("sleeper", "waiter"):
            cluster.know(workflow)
        time.sleep(2)
        before = _idle(pids, seconds)
        far = cluster.client.persistence.now() + timedelta(days=30)
        blocked(cluster, Sleeper, many // 2, far)
        blocked(cluster, Waiter, many // 2)
        time.sleep(5)  # the servers write down what they have got
        after = _idle(pids, seconds)
        due = cluster.client.persistence.now() + timedelta(seconds=1 if quick else 6)
        waking = blocked(cluster, Sleeper, due_at_once, due)
        until(lambda: cluster.completed() >= due_at_once, 300, 0.2)
        lines = [line.split() for line in log.read_text().splitlines()]
        took = max(int(at) for _, at in lines) / 1e9 - due.timestamp()
        early = sum(int(at) / 1e9 < due.timestamp() for _, at in lines)
        twice = sum(times > 1 for times in Counter(name for name, _ in lines).values())
        assert {name for name, _ in lines} == set(waking)
    return {
        "idle, % of a core": 100 * after,
        "idle before, % of a core": 100 * before,
        "idle, extra": 100 * (after - before),
        "wake rate, 1/s": due_at_once / took,
        "early": early,
        "twice": twice,
    }


def _idle(pids: list[int], seconds: float) -> float:
    used = cpu_seconds(pids)
    time.sleep(seconds)
    return (cpu_seconds(pids) - used) / seconds


WORKLOAD = Workload(
    "W6",
    "100,000 that sleep or wait",
    "see series",
    run,
    [
        Target("idle, extra, % of a core", lambda m: m["idle, extra"], 2, 0.5, least=False),
        Target("wake rate, 1/s", lambda m: m["wake rate, 1/s"], 1000, 3000),
        Target("early", lambda m: m["early"], 0, 0, least=False),
        Target("twice", lambda m: m["twice"], 0, 0, least=False),
    ],
)
