"""The contract of `purge` and `purge_events`: what is old goes, whole, and nothing else does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from liteflow.core.errors import ProviderError
from liteflow.core.models import (
    Activity,
    ErrorRecord,
    Event,
    Instance,
    OutboxItem,
    Parked,
    Pointer,
    PointerStatus,
    Wait,
    WorkflowStatus,
)
from liteflow.core.providers import Due, ListFilter, PersistenceProvider
from liteflow.core.testing.samples import T0, TICK, after, created, loaded, new_id, new_instance, step
from liteflow.core.transition import Outcome

COMPLETE, TERMINATED = WorkflowStatus.COMPLETE, WorkflowStatus.TERMINATED


class PurgeContract:
    """Ended instances and processed events are deleted by their age, in batches."""

    def test_what_ended_before_is_purged(self, provider: PersistenceProvider) -> None:
        times = [T0 - TICK, T0, T0 + TICK]
        complete = [_ended(provider, complete_time=time) for time in times]
        terminated = [_ended(provider, status=TERMINATED, complete_time=time) for time in times]
        assert provider.purge(COMPLETE, T0, 10) == 1
        assert _left(provider, complete + terminated) == complete[1:] + terminated
        assert provider.purge(TERMINATED, T0 + TICK, 10) == 2
        assert _left(provider, complete + terminated) == [*complete[1:], terminated[2]]
        assert provider.purge(COMPLETE, T0, 10) == 0

    def test_what_has_not_ended_is_not_purged(self, provider: PersistenceProvider) -> None:
        going_on = [created(provider, status=status) for status in WorkflowStatus if not status.ended]
        # Nor is one whose time belongs to a status that is not its own.
        going_on += [created(provider, status=one.status, complete_time=T0) for one in going_on]
        for status in WorkflowStatus:
            if status.ended:
                assert provider.purge(status, after(9), 10) == 0
            else:
                with pytest.raises(ProviderError, match=status.name):
                    provider.purge(status, after(9), 10)
        assert _left(provider, going_on) == going_on

    def test_the_earliest_are_purged_first_and_no_more_than_asked(
        self, provider: PersistenceProvider
    ) -> None:
        ended = [_ended(provider, complete_time=after(n)) for n in (3, 1, 4, 0, 2)]
        by_time = sorted(ended, key=lambda one: one.complete_time or T0)
        assert provider.purge(COMPLETE, after(9), 0) == 0
        assert _left(provider, by_time) == by_time
        assert provider.purge(COMPLETE, after(9), 2) == 2
        assert _left(provider, by_time) == by_time[2:]
        assert [provider.purge(COMPLETE, after(9), 2) for _ in range(3)] == [2, 1, 0]

    def test_all_that_belongs_to_it_goes_along(self, provider: PersistenceProvider) -> None:
        old, kept = _with_belongings(provider, T0), _with_belongings(provider, after(5))
        assert provider.purge(COMPLETE, after(1), 10) == 1
        for instance, there in ((old, False), (kept, True)):
            key, token = instance.id, f"t-{instance.id}"
            assert (key in provider.load([key])) is there
            assert len(provider.history(key)) == len(provider.errors(key, 10)) == int(there)
            assert (provider.activity(token) is not None) is there
            assert len(provider.waiting_for("paid", key, "", 10)) == int(there)
        assert [row.id for row in provider.list(ListFilter()).items] == [kept.id]
        assert [one.instance_id for one in provider.parked("order", 1, "", 10)] == [kept.id]

    def test_an_id_that_was_purged_begins_anew(self, provider: PersistenceProvider) -> None:
        old = _with_belongings(provider, T0)
        finished, open_one = f"a-{old.id}", f"b-{old.id}"
        provider.finish_activity(finished)
        provider.purge(COMPLETE, after(1), 10)
        late = step(old, data_set={"a": 1})
        assert provider.commit([late]) == [Outcome.CONFLICT]
        assert provider.create([new_instance(id=old.id, revision=7)]) == [True]
        assert (provider.history(old.id), provider.errors(old.id, 10)) == ([], [])
        provider.offer_activities([Activity(key, "paint", None, T0, old.id) for key in (finished, open_one)])
        taken = [provider.take_activity("paint", "me", new_id(), T0, after(60)) for _ in range(2)]
        assert [one and one.id for one in taken] == [finished, open_one]

    def test_what_was_purged_is_not_due(self, provider: PersistenceProvider) -> None:
        _ended(provider, wake_at=T0)
        assert provider.next_due() == T0
        provider.purge(COMPLETE, after(1), 10)
        assert provider.next_due() is None

    def test_what_is_purged_while_it_is_held_is_left_out(self, provider: PersistenceProvider) -> None:
        _ended(provider, wake_at=T0)
        other = created(provider, wake_at=after(1))

        def hold(_: Due) -> datetime:
            provider.purge(COMPLETE, after(1), 10)
            return after(60)

        assert [due.instance_id for due in provider.hold_due(after(1), hold, 10)] == [other.id]

    def test_an_outbox_is_sent_before(self, provider: PersistenceProvider) -> None:
        outbox = [OutboxItem(1, "completed", T0)]
        unsent = [_ended(provider, complete_time=after(-n), outbox=outbox) for n in range(3)]
        sent = _ended(provider)
        assert provider.purge(COMPLETE, after(1), 2) == 1
        assert _left(provider, [*unsent, sent]) == unsent
        provider.commit([step(unsent[0], fields={"outbox": []})])
        assert provider.purge(COMPLETE, after(1), 10) == 1
        assert _left(provider, unsent) == unsent[1:]

    def test_what_ends_by_a_commit_is_purged(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        assert provider.purge(COMPLETE, after(9), 10) == 0
        provider.commit([step(instance, fields={"status": COMPLETE, "complete_time": T0})])
        assert loaded(provider, instance.id).status is COMPLETE
        assert provider.purge(COMPLETE, after(9), 10) == 1

    def test_those_who_purge_at_once_share(self, provider: PersistenceProvider) -> None:
        ended = [_ended(provider, complete_time=after(n)) for n in range(20)]
        with ThreadPoolExecutor(4) as pool:
            counts = list(pool.map(lambda _: provider.purge(COMPLETE, after(100), 20), range(4)))
        assert sum(counts) == 20
        assert _left(provider, ended) == []

    # ---------------------------------------------------------------------------------- events

    def test_events_are_purged_by_when_they_were_processed(self, provider: PersistenceProvider) -> None:
        for number, time in enumerate([T0 - TICK, T0, after(1)]):
            provider.add_event(Event(f"a{number}", "paid", "k", time, processed=time))
            provider.add_event(Event(f"b{number}", "paid", "k", time))
        assert provider.purge_events(T0, 10) == 1
        assert _events(provider) == ["b0", "a1", "b1", "a2", "b2"]
        assert provider.purge_events(after(1) + TICK, 10) == 2
        assert _events(provider) == ["b0", "b1", "b2"]
        assert (provider.event("a0"), provider.purge_events(after(9), 10)) == (None, 0)
        assert [event.id for event in provider.hold_events(T0, after(60), 10)] == ["b0", "b1"]

    def test_an_event_of_long_ago_that_has_just_come_is_kept(self, provider: PersistenceProvider) -> None:
        """Who waits for what came in time may not have looked yet."""
        provider.add_event(Event("e", "paid", "k", T0 - timedelta(days=9999)))
        provider.mark_processed(["e"])
        now = provider.now()
        assert provider.purge_events(now - timedelta(minutes=1), 10) == 0
        assert provider.purge_events(now + timedelta(minutes=1), 10) == 1

    def test_events_that_somebody_waits_for_are_kept_if_that_is_wanted(
        self, provider: PersistenceProvider
    ) -> None:
        """They are looked at again when they are old once more. A key of another name is another one."""
        for name, key in (("child", "a"), ("paid", "a"), ("child", "b")):
            waiting = Pointer("1", "a", PointerStatus.WAITING_FOR_EVENT)
            waiting.event_name, waiting.event_key, waiting.event_since = name, key, T0
            created(provider, status=WorkflowStatus.SUSPENDED, pointers={"1": waiting})
        for name in ("child", "paid", "other"):
            for key in ("a", "b", "c"):
                provider.add_event(Event(f"{name}-{key}", name, key, T0, processed=T0))
        assert provider.purge_events(after(1), 10, ["child", "other"]) == 9
        assert [provider.event(f"child-{key}") is not None for key in "abc"] == [True, True, False]
        assert all(provider.event(f"{name}-{key}") is None for name in ("paid", "other") for key in "abc")
        assert provider.purge_events(after(1), 10, ["child"]) == 0
        assert provider.purge_events(provider.now() + timedelta(seconds=60), 10) == 2
        assert provider.event("child-a") is None

    def test_no_more_events_are_purged_than_asked(self, provider: PersistenceProvider) -> None:
        for number in (2, 0, 3, 1, 4):
            provider.add_event(Event(str(number), "paid", "k", T0, processed=after(number)))
        assert provider.purge_events(after(9), 0) == 0
        assert provider.purge_events(after(9), 2) == 2
        assert _events(provider) == ["2", "3", "4"]
        assert [provider.purge_events(after(9), 2) for _ in range(3)] == [2, 1, 0]

    def test_an_event_that_was_purged_is_a_new_one(self, provider: PersistenceProvider) -> None:
        event = Event("e", "paid", "k", T0, processed=T0)
        provider.add_event(event)
        provider.purge_events(after(1), 10)
        assert provider.add_event(replace(event, processed=None))
        assert _events(provider) == ["e"]
        assert provider.next_due() == T0


def _ended(provider: PersistenceProvider, **changes: Any) -> Instance:
    return created(provider, **{"status": COMPLETE, "complete_time": T0, **changes})


def _with_belongings(provider: PersistenceProvider, complete_time: datetime) -> Instance:
    """An ended instance of which there is something everywhere, two activities and a wait included."""
    parked = Parked("missing", T0, "order 1")
    instance = _ended(provider, complete_time=complete_time)
    key = instance.id
    last = step(
        instance,
        errors=[ErrorRecord(key, "1", "a", 1, T0, "E", "m")],
        waits=[Wait("paid", key, T0, "1")],
    )
    assert provider.commit([last]) == [Outcome.COMMITTED]
    last.apply(instance)
    provider.park(key, -1, parked)
    provider.archive([(key, Pointer("1", "a", PointerStatus.COMPLETE, end_time=T0))])
    provider.offer_activities([Activity(f"{part}-{key}", "paint", None, T0, key) for part in "ab"])
    assert provider.take_activity("paint", "me", f"t-{key}", T0, after(60)) is not None
    return instance


def _left(provider: PersistenceProvider, instances: list[Instance]) -> list[Instance]:
    found = provider.load([one.id for one in instances])
    return [one for one in instances if one.id in found]


def _events(provider: PersistenceProvider) -> list[str]:
    wait = Wait("paid", "k", after(-9), "1")
    return [event.id for event in provider.events([wait], after(99), 100)]
