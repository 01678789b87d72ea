"""When a body counts as a long one."""

from __future__ import annotations

from liteflow.core import (
    LocalLockProvider,
    MemoryPersistenceProvider,
    Settings,
    SingleNodeQueueProvider,
    Workflow,
    WorkflowBuilder,
    engine,
)
from liteflow.core.activation import Activation
from liteflow.core.bodies import Job
from liteflow.core.hooks import Hooks
from liteflow.core.inputs import BodyClaimed
from liteflow.core.models import Instance
from liteflow.core.registry import WorkflowRegistry
from liteflow.core.runner import Runner


class OneStep(Workflow):
    def build(self, builder: WorkflowBuilder) -> None:
        builder.start_with(lambda context: None)


def test_a_look_that_is_late_itself_makes_no_body_a_long_one_but_the_next_one_does() -> None:
    """Who looks late had no turn, and so perhaps neither had the body."""
    store, time = MemoryPersistenceProvider(), [0.0]
    runner = Runner(
        WorkflowRegistry(), store, SingleNodeQueueProvider(), LocalLockProvider(), Settings(long_step=0.05),
        hooks=Hooks(), send_outbox=lambda instance, definition, items: None,
    )  # fmt: skip
    runner._clock = lambda: time[0]
    definition = OneStep().definition()
    begun = engine.advance(Instance("i", definition.id, 1, store.now(), begun=False), definition, store.now())
    assert begun is not None and begun.after is not None
    job = Job(begun.after, definition, definition.first, begun.after.pointers["1"], began=0.0)
    act = Activation("i", busy={"1": job})
    runner._young.append((0.05, act, job))

    time[0] = 0.2
    runner._check_young()
    assert job.claim is None and not act.inputs
    time[0] = 0.25
    runner._check_young()
    assert [type(happened) for happened in act.inputs] == [BodyClaimed]
    runner._slots.close()
    runner._calls.close()
