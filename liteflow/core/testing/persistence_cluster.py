"""The contract of what concerns the cluster as a whole: processes, and counts over all instances."""

from __future__ import annotations

from dataclasses import replace

from liteflow.core.models import DefinitionRecord, Parked, WorkflowStatus
from liteflow.core.providers import PersistenceProvider, WakeMove
from liteflow.core.survey import OpenCount, OverdueCount, ParkedCount, ProcessRecord, Survey
from liteflow.core.testing.samples import T0, TICK, after, created, exact, step, until


def _process(process_id: str, seconds: float = 0) -> ProcessRecord:
    definitions = (DefinitionRecord("order", 1, "x"), DefinitionRecord("order", 2, "y"))
    return ProcessRecord(
        *(process_id, "node-1", 4711, "0.1.0", T0, after(seconds), after(seconds + 15)),
        definitions=definitions,
        clock_offset=-0.25,
    )


class ProcessContract:
    """The last heartbeat of each process is kept, until somebody deletes it."""

    def test_a_heartbeat_comes_back_exactly(self, provider: PersistenceProvider) -> None:
        one, two = _process("a"), replace(_process("b"), definitions=(), schedules=True, leads=True)
        assert provider.processes() == []
        provider.beat(two)
        provider.beat(one)
        assert exact(provider.processes()) == exact([one, two])

    def test_the_last_heartbeat_counts(self, provider: PersistenceProvider) -> None:
        for beat in (replace(_process("a"), leads=True), _process("b"), _process("a", 5)):
            provider.beat(beat)
        assert provider.processes() == [_process("a", 5), _process("b")]

    def test_processes_are_forgotten(self, provider: PersistenceProvider) -> None:
        for process_id in "abc":
            provider.beat(_process(process_id))
        provider.forget_processes(["a", "c", "unknown"])
        provider.forget_processes([])
        assert provider.processes() == [_process("b")]


class SurveyContract:
    """Counts by definition, of what is open, parked and overdue."""

    def test_there_is_nothing_to_count(self, provider: PersistenceProvider) -> None:
        assert provider.survey(after(1000)) == Survey([], [], [])

    def test_open_ones_are_counted_by_definition_and_status(self, provider: PersistenceProvider) -> None:
        for version, status in ((1, 0), (1, 0), (1, 1), (2, 0), (2, 2), (2, 3), (10, 1)):
            created(provider, version=version, status=WorkflowStatus(status))
        created(provider, workflow_definition_id="bill", version=3)
        runnable, suspended = WorkflowStatus.RUNNABLE, WorkflowStatus.SUSPENDED
        assert exact(provider.survey(T0).open) == exact(
            [
                OpenCount("bill", 3, runnable, 1),
                OpenCount("order", 1, runnable, 2),
                OpenCount("order", 1, suspended, 1),
                OpenCount("order", 2, runnable, 1),
                OpenCount("order", 10, suspended, 1),
            ]
        )

    def test_parked_ones_are_counted_by_reason(self, provider: PersistenceProvider) -> None:
        missing, changed = Parked("missing", T0, "a worker"), Parked("changed", T0, "the old one")
        instances = [created(provider, version=1 + n % 2) for n in range(6)]
        for number, instance in enumerate(instances[:4]):
            provider.park(instance.id, 0, replace(missing, since=after(-number)))
        provider.park(instances[4].id, 0, changed)
        assert exact(provider.survey(T0).parked) == exact(
            [
                ParkedCount("order", 1, "changed", "the old one", 1, T0, instances[4].id),
                ParkedCount("order", 1, "missing", "a worker", 2, after(-2), instances[2].id),
                ParkedCount("order", 2, "missing", "a worker", 2, after(-3), instances[3].id),
            ]
        )
        provider.commit([step(instances[4])])
        assert [one.reason for one in provider.survey(T0).parked] == ["missing", "missing"]

    def test_overdue_ones_are_counted(self, provider: PersistenceProvider) -> None:
        for seconds in (0, -5, 1):
            created(provider, version=2, wake_at=after(seconds))
        created(provider, wake_at=T0 + TICK)
        created(provider)
        ended = created(provider, status=WorkflowStatus.COMPLETE, wake_at=after(-9))
        assert exact(provider.survey(T0).overdue) == exact(
            [OverdueCount("order", 1, 1, after(-9)), OverdueCount("order", 2, 2, after(-5))]
        )
        provider.move_wake([WakeMove(ended.id, 0, 0, after(-9), None)])
        until(lambda: [one.version for one in provider.survey(T0).overdue] == [2])
