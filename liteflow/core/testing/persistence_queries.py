"""The contract of events, waiters, definitions and listings, and of the clock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from liteflow.core.errors import ProviderError
from liteflow.core.models import (
    DefinitionRecord,
    Event,
    Parked,
    Pointer,
    PointerStatus,
    Wait,
    WorkflowStatus,
    WorkflowSummary,
)
from liteflow.core.providers import ListFilter, PersistenceProvider, Waiter
from liteflow.core.testing.samples import T0, TICK, after, created, exact, new_id, new_instance, step


class EventContract:
    """An event is logged once, and found by whoever waits for it, to the microsecond."""

    def test_an_event_comes_back_exactly(self, provider: PersistenceProvider) -> None:
        event = Event(new_id(), "paid", "o-1", T0, {"a.b": ["$c", 1.0]}, traceparent="00-1")
        assert provider.add_event(event)
        assert exact(provider.event(event.id)) == exact(event)
        assert provider.event(new_id()) is None

    def test_an_event_is_logged_once(self, provider: PersistenceProvider) -> None:
        event = Event(new_id(), "paid", "o-1", T0, 1)
        assert provider.add_event(event)
        assert not provider.add_event(replace(event, data=2))
        assert provider.event(event.id) == event

    def test_events_are_in_order_of_time_then_id(self, provider: PersistenceProvider) -> None:
        ordered = [_event("b", 0), _event("d", 0), _event("a", 1), _event("c", 2)]
        for event in reversed(ordered):
            provider.add_event(event)
        found = provider.events([Wait("paid", "k", T0, "1")], after(10), 10)
        assert exact(found) == exact(ordered)
        assert provider.events([Wait("paid", "k", T0, "1")], after(10), 3) == ordered[:3]

    def test_since_and_now_are_inclusive(self, provider: PersistenceProvider) -> None:
        times = [T0 - TICK, T0, T0 + TICK, after(9) - TICK, after(9), after(9) + TICK]
        for number, time in enumerate(times):
            provider.add_event(Event(str(number), "paid", "k", time))
        found = provider.events([Wait("paid", "k", T0, "1")], after(9), 10)
        assert [event.id for event in found] == ["1", "2", "3", "4"]

    def test_name_and_key_have_to_fit(self, provider: PersistenceProvider) -> None:
        for number, (name, key) in enumerate([("a", "bc"), ("ab", "c"), ("a", "BC"), ("a.b", "$c")]):
            provider.add_event(Event(str(number), name, key, T0))
        for number, (name, key) in enumerate([("a", "bc"), ("ab", "c"), ("a", "BC"), ("a.b", "$c")]):
            found = provider.events([Wait(name, key, T0, "1")], T0, 10)
            assert [event.id for event in found] == [str(number)]

    def test_several_waits(self, provider: PersistenceProvider) -> None:
        events = [replace(_event(str(n), n), key="ab"[n % 2]) for n in range(10)]
        for event in events:
            provider.add_event(event)
        waits = [
            Wait("paid", "a", T0, "1"),
            Wait("paid", "b", after(3), "2"),
            Wait("paid", "b", after(5), "3"),
            Wait("paid", "c", T0, "4"),
        ]
        found = provider.events(waits, after(20), 2)
        assert [event.id for event in found] == ["0", "2", "3", "5", "7"]
        assert provider.events([], after(20), 2) == []

    def test_due_events_are_held(self, provider: PersistenceProvider) -> None:
        now, future = _event("now", 0), _event("future", 60)
        provider.add_event(now)
        provider.add_event(future)
        assert provider.hold_events(T0, after(30), 10) == [now]
        assert provider.hold_events(after(30) - TICK, after(60), 10) == []
        assert provider.hold_events(after(30), after(90), 10) == [now]
        assert provider.hold_events(after(60) - TICK, after(90), 10) == []
        assert provider.hold_events(after(60), after(90), 10) == [future]

    def test_processed_events_are_not_due(self, provider: PersistenceProvider) -> None:
        one, two = _event("1", 0), _event("2", 1)
        provider.add_event(one)
        provider.add_event(two)
        provider.mark_processed(["1", new_id()])
        provider.mark_processed([])
        assert provider.hold_events(after(9), after(30), 10) == [two]
        marked = provider.event("1")
        assert marked is not None
        assert marked.processed is not None
        assert abs(marked.processed - provider.now()) < timedelta(minutes=1)
        assert marked == replace(one, processed=marked.processed)
        assert [event.id for event in provider.events([Wait("paid", "k", T0, "1")], after(9), 10)] == [
            "1",
            "2",
        ]

    def test_due_events_come_in_pages(self, provider: PersistenceProvider) -> None:
        for number in range(5):
            provider.add_event(_event(str(number), number))
        pages = [provider.hold_events(after(9), after(60), 2) for _ in range(4)]
        assert [[event.id for event in page] for page in pages] == [["0", "1"], ["2", "3"], ["4"], []]

    def test_two_who_hold_events_at_once_share(self, provider: PersistenceProvider) -> None:
        for number in range(30):
            provider.add_event(_event(f"{number:02}", 0))
        with ThreadPoolExecutor(4) as pool:
            pages = list(pool.map(lambda _: provider.hold_events(T0, after(60), 30), range(4)))
        assert sorted(event.id for page in pages for event in page) == [f"{n:02}" for n in range(30)]

    def test_waiters_come_in_pages_by_id(self, provider: PersistenceProvider) -> None:
        instances = sorted((created(provider, version=3) for _ in range(7)), key=lambda one: one.id)
        for instance in instances:
            waits = [Wait("paid", "k", T0, "1"), Wait("paid", "k", T0, "2"), Wait("paid", "x", T0, "3")]
            provider.commit([step(instance, waits=waits)])
        found: list[Waiter] = []
        while page := provider.waiting_for("paid", "k", found[-1].instance_id if found else "", 3):
            found += page
        assert found == [Waiter(instance.id, "order", 3) for instance in instances]
        assert provider.waiting_for("pai", "dk", "", 3) == []
        # Name and key belong to one wait.
        assert provider.waiting_for("k", "paid", "", 3) == []

    def test_an_instance_that_is_created_waiting_is_found(self, provider: PersistenceProvider) -> None:
        waiting = Pointer("1", "a", PointerStatus.WAITING_FOR_EVENT)
        waiting.event_name, waiting.event_key, waiting.event_since = "paid", "k", T0
        instance = created(provider, pointers={"1": waiting})
        assert provider.waiting_for("paid", "k", "", 3) == [Waiter(instance.id, "order", 1)]

    @pytest.mark.parametrize("event_first", [True, False])
    def test_event_and_wait_see_each_other(self, provider: PersistenceProvider, event_first: bool) -> None:
        instance, event, wait = created(provider), _event("e", 0), Wait("paid", "k", T0, "1")
        if event_first:
            provider.add_event(event)
            provider.commit([step(instance, waits=[wait])])
        else:
            provider.commit([step(instance, waits=[wait])])
            provider.add_event(event)
        assert provider.events([wait], T0, 10) == [event]
        assert provider.waiting_for("paid", "k", "", 10) == [Waiter(instance.id, "order", 1)]


def _event(event_id: str, seconds: float) -> Event:
    return Event(event_id, "paid", "k", after(seconds), {"n": seconds})


class DefinitionContract:
    """Definitions are remembered, each version once."""

    def test_definitions_are_recorded(self, provider: PersistenceProvider) -> None:
        records = [
            DefinitionRecord("a", 1, "x"),
            DefinitionRecord("a", 10, "y"),
            DefinitionRecord("b", 2, "z"),
        ]
        provider.record_definitions([])
        assert provider.definitions() == []
        provider.record_definitions(records[::-1])
        provider.record_definitions(records)
        assert provider.definitions() == records
        assert provider.definitions("a") == records[:2]
        assert provider.definitions("c") == []

    def test_the_last_fingerprint_counts(self, provider: PersistenceProvider) -> None:
        provider.record_definitions([DefinitionRecord("a", 1, "x")])
        provider.record_definitions([DefinitionRecord("a", 1, "y")])
        assert provider.definitions() == [DefinitionRecord("a", 1, "y")]

    def test_a_definition_is_forgotten(self, provider: PersistenceProvider) -> None:
        records = [DefinitionRecord("a", 1, "x"), DefinitionRecord("a", 2, "y")]
        provider.record_definitions(records)
        assert provider.forget_definition("a", 1)
        assert not provider.forget_definition("a", 1)
        assert not provider.forget_definition("b", 2)
        assert provider.definitions() == records[1:]
        provider.record_definitions(records)
        assert provider.definitions() == records


class ListingContract:
    """Listings show what fits, newest first, in pages that neither skip nor repeat."""

    def test_a_row_says_what_it_should(self, provider: PersistenceProvider) -> None:
        one = created(provider, reference="o-1", status=WorkflowStatus.COMPLETE, complete_time=after(1))
        two = created(provider, create_time=after(1), version=2, parked=Parked("missing", T0, "x"))
        rows = [
            WorkflowSummary(two.id, WorkflowStatus.RUNNABLE, "order", 2, None, after(1), None, "missing"),
            WorkflowSummary(one.id, WorkflowStatus.COMPLETE, "order", 1, "o-1", T0, after(1)),
        ]
        assert exact(provider.list(ListFilter()).items) == exact(rows)

    def test_filters(self, provider: PersistenceProvider) -> None:
        status, parked = WorkflowStatus.SUSPENDED, Parked("missing", T0, "x")
        plain = created(provider, create_time=after(0))
        suspended = created(provider, create_time=after(1), status=status, reference="r")
        other = created(provider, create_time=after(2), workflow_definition_id="other", reference="r")
        stuck = created(provider, create_time=after(3), workflow_definition_id="other", parked=parked)
        everything = [stuck, other, suspended, plain]
        expected = {
            ListFilter(): everything,
            ListFilter(status=WorkflowStatus.RUNNABLE): [stuck, other, plain],
            ListFilter(status=status): [suspended],
            ListFilter(status=WorkflowStatus.COMPLETE): [],
            ListFilter(workflow="other"): [stuck, other],
            ListFilter(reference="r"): [other, suspended],
            ListFilter(reference="r", status=status): [suspended],
            ListFilter(reference="r", workflow="other"): [other],
            ListFilter(workflow="order", status=status): [suspended],
            ListFilter(parked=True): [stuck],
            ListFilter(parked=False): [other, suspended, plain],
            ListFilter(parked=True, workflow="order"): [],
            ListFilter(created_after=after(1)): [stuck, other, suspended],
            ListFilter(created_after=after(1) + TICK): [stuck, other],
            ListFilter(created_before=after(1)): [plain],
            ListFilter(created_before=after(1) + TICK): [suspended, plain],
            ListFilter(created_after=after(1), created_before=after(2)): [suspended],
        }
        for query, found in expected.items():
            assert [row.id for row in provider.list(query).items] == [one.id for one in found], query

    def test_pages_neither_skip_nor_repeat(self, provider: PersistenceProvider) -> None:
        instances = [new_instance(create_time=T0 + (n // 5) * TICK) for n in range(17)]
        provider.create(instances)
        ordered = sorted(instances, key=lambda one: (one.create_time, one.id), reverse=True)
        found: list[str] = []
        query = ListFilter(limit=3)
        while True:
            page = provider.list(query)
            found += [row.id for row in page.items]
            if page.next is None:
                break
            query = replace(query, cursor=page.next)
            # What is created meanwhile is newer and does not shift the pages.
            created(provider, create_time=after(60))
        assert found == [one.id for one in ordered]

    def test_there_is_no_page_after_the_last(self, provider: PersistenceProvider) -> None:
        provider.create([new_instance() for _ in range(4)])
        first = provider.list(ListFilter(limit=2))
        assert first.next is not None
        second = provider.list(ListFilter(limit=2, cursor=first.next))
        assert (len(second.items), second.next) == (2, None)

    @pytest.mark.parametrize("cursor", ["", "x", "x~y", "2026-01-01~y"])
    def test_what_is_no_cursor_is_refused(self, provider: PersistenceProvider, cursor: str) -> None:
        with pytest.raises(ProviderError, match="cursor"):
            provider.list(ListFilter(cursor=cursor))


class ClockContract:
    """The store's time is aware, in UTC, and goes on."""

    def test_now_goes_on(self, provider: PersistenceProvider) -> None:
        times = [provider.now() for _ in range(1000)]
        assert times == sorted(times)
        assert all(time.utcoffset() == timedelta(0) for time in times)
        assert provider.clock_uncertainty < timedelta(seconds=1)

    def test_closing_and_opening_again(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        provider.open()
        provider.close()
        provider.close()
        provider.open()
        assert instance.id in provider.load([instance.id])
