"""The in-process persistence provider passes the contract."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from liteflow.core.memory_store import ERRORS_KEPT, MemoryPersistenceProvider
from liteflow.core.models import ErrorRecord
from liteflow.core.providers import Due, PersistenceProvider
from liteflow.core.testing.persistence import PersistenceContract
from liteflow.core.testing.samples import T0, after, created, step


class TestMemoryPersistenceProvider(PersistenceContract):
    @pytest.fixture
    def provider(self) -> Iterator[PersistenceProvider]:
        provider = MemoryPersistenceProvider()
        provider.open()
        yield provider
        provider.close()

    def test_is_local(self, provider: PersistenceProvider) -> None:
        assert not provider.shared


def test_now_does_not_go_back_with_the_clock() -> None:
    times = iter([T0, T0 - timedelta(hours=1), T0 + timedelta(seconds=1)])
    provider = MemoryPersistenceProvider(clock=lambda: next(times))
    assert [provider.now() for _ in range(3)] == [T0, T0, after(1)]


def test_the_default_clock_is_this_machines() -> None:
    before = datetime.now(timezone.utc)
    assert before <= MemoryPersistenceProvider().now() <= datetime.now(timezone.utc)


def test_errors_are_bounded() -> None:
    provider = MemoryPersistenceProvider()
    instance = created(provider)
    errors = [ErrorRecord(instance.id, "1", "a", n, T0, "E", "m") for n in range(ERRORS_KEPT + 10)]
    provider.commit([step(instance, errors=errors)])
    assert provider.errors(instance.id, 10_000) == errors[10:]


def test_what_is_outdated_is_not_due_again() -> None:
    provider = MemoryPersistenceProvider()
    instance = created(provider, wake_at=T0)
    for moves in range(500):  # more than the index keeps without cleaning up
        transition = step(instance, wake_at=after(moves % 2))
        provider.commit([transition])
        transition.apply(instance)

    def hold(due: Due) -> datetime:
        return after(60)

    assert [due.instance_id for due in provider.hold_due(after(9), hold, 10)] == [instance.id]
    assert provider.hold_due(after(9), hold, 10) == []
    assert provider.next_due() == after(60)
