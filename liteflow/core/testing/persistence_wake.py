"""The contract of everything about `wake_at`: requests, holds, claims, parked instances."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import pytest

from liteflow.core.models import Claim, Event, Instance, Parked, Request, Wait, WorkflowStatus
from liteflow.core.providers import (
    ClaimRenewal,
    Due,
    PersistenceProvider,
    RequestOutcome,
    Waiter,
    WakeMove,
)
from liteflow.core.testing.samples import T0, TICK, after, created, exact, loaded, new_id, step, until
from liteflow.core.transition import Outcome

ENDED = (WorkflowStatus.COMPLETE, WorkflowStatus.TERMINATED)


def _request(request_id: str = "r", kind: str = "suspend") -> Request:
    return Request(kind, request_id, T0, "me", "because", {"$a": ["$b", 1]})


class RequestContract:
    """A request is stored once, in order, and makes itself felt by the next commit."""

    def test_requests_get_sequences(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        for request_id in "abc":
            assert provider.request(instance.id, _request(request_id), T0) is RequestOutcome.STORED
        stored = loaded(provider, instance.id)
        expected = [replace(_request(key), sequence=n) for n, key in enumerate("abc", 1)]
        assert exact(stored.inbox) == exact(expected)
        assert (stored.inbox_sequence, stored.revision) == (3, instance.revision)

    @pytest.mark.parametrize("before", [None, after(60), T0 + TICK])
    def test_a_request_lowers_wake_at(self, provider: PersistenceProvider, before: datetime | None) -> None:
        instance = created(provider, wake_at=before)
        provider.request(instance.id, _request(), T0)
        assert loaded(provider, instance.id).wake_at == T0
        assert [due.instance_id for due in provider.hold_due(T0, _for_a_minute, 10)] == [instance.id]

    def test_a_request_does_not_raise_wake_at(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0)
        provider.request(instance.id, _request(), T0 + TICK)
        assert loaded(provider, instance.id).wake_at == T0

    def test_a_request_is_stored_once(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        assert provider.request(instance.id, _request(), T0) is RequestOutcome.STORED
        assert provider.request(instance.id, _request(), T0) is RequestOutcome.DUPLICATE
        stored = loaded(provider, instance.id)
        assert (len(stored.inbox), stored.inbox_sequence) == (1, 1)

    def test_an_applied_request_is_not_stored_again(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        provider.request(instance.id, _request(), T0)
        stored = loaded(provider, instance.id)
        provider.commit([step(stored, fields={"inbox": [], "applied": ["r"]})])
        assert provider.request(instance.id, _request(), T0) is RequestOutcome.DUPLICATE
        assert provider.request(instance.id, _request("s"), T0) is RequestOutcome.STORED
        assert [request.sequence for request in loaded(provider, instance.id).inbox] == [2]

    @pytest.mark.parametrize("status", ENDED)
    def test_an_ended_instance_takes_no_request(
        self, provider: PersistenceProvider, status: WorkflowStatus
    ) -> None:
        instance = created(provider, status=status, applied=["r"])
        assert provider.request(instance.id, _request("s"), T0) is RequestOutcome.ENDED
        # The terminate that ended it gets the same answer when it is delivered again.
        assert provider.request(instance.id, _request("r"), T0) is RequestOutcome.DUPLICATE
        assert loaded(provider, instance.id) == instance

    def test_an_unknown_instance_is_not_found(self, provider: PersistenceProvider) -> None:
        unknown = new_id()
        assert provider.request(unknown, _request(), T0) is RequestOutcome.NOT_FOUND
        assert provider.load([unknown]) == {}

    def test_a_commit_that_has_not_seen_a_request_is_a_conflict(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        provider.request(instance.id, _request(), T0)
        assert provider.commit([step(instance)]) == [Outcome.CONFLICT]
        stored = loaded(provider, instance.id)
        assert (len(stored.inbox), stored.revision) == (1, instance.revision)
        assert provider.commit([step(stored, fields={"inbox": []})]) == [Outcome.COMMITTED]

    def test_requests_at_once_are_all_stored(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        with ThreadPoolExecutor(8) as pool:
            ids = [f"r{n // 2}" for n in range(24)]
            outcomes = list(pool.map(lambda key: provider.request(instance.id, _request(key), T0), ids))
        assert outcomes.count(RequestOutcome.STORED) == outcomes.count(RequestOutcome.DUPLICATE) == 12
        stored = loaded(provider, instance.id)
        assert [request.sequence for request in stored.inbox] == list(range(1, 13))
        assert {request.id for request in stored.inbox} == set(ids)


class WakeContract:
    """`wake_at` is what it was set to last, unless something changed in between."""

    def test_lower_wake_only_lowers(self, provider: PersistenceProvider) -> None:
        instances = [created(provider, wake_at=wake_at) for wake_at in (None, T0 + TICK, T0, T0 - TICK)]
        provider.lower_wake({instance.id: T0 for instance in instances} | {new_id(): T0})
        assert [_wake(provider, one) for one in instances] == [T0, T0, T0, T0 - TICK]
        provider.lower_wake({})

    def test_lower_wake_takes_the_wake_up_that_was_sent_for_consumed(
        self, provider: PersistenceProvider
    ) -> None:
        instance = created(provider, wake_at=T0 - TICK, message_sent=True)
        provider.lower_wake({instance.id: T0})
        assert loaded(provider, instance.id) == replace(instance, message_sent=False)

    def test_lower_wake_takes_it_that_the_scheduler_has_sent_none(
        self, provider: PersistenceProvider
    ) -> None:
        """Whose message was acknowledged is sent for once more, however many wait in the queue."""
        instance = created(provider, wake_at=T0)
        provider.hold_due(T0, _for_a_minute, 10)
        provider.lower_wake({instance.id: T0})
        (due,) = provider.hold_due(T0, _for_a_minute, 10)
        assert (due.instance_id, due.message_sent, due.holds) == (instance.id, False, 0)

    def test_lower_wake_leaves_ended_instances_alone(self, provider: PersistenceProvider) -> None:
        suspended = created(provider, status=WorkflowStatus.SUSPENDED)
        ended = [created(provider, status=status) for status in ENDED]
        provider.lower_wake({instance.id: T0 for instance in [suspended, *ended]})
        assert [_wake(provider, one) for one in [suspended, *ended]] == [T0, None, None]

    def test_lower_wake_does_not_disturb_a_commit(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=after(60))
        provider.lower_wake({instance.id: T0})
        assert provider.commit([step(instance, wake_at=after(5))]) == [Outcome.COMMITTED]
        assert _wake(provider, instance) == after(5)

    @pytest.mark.parametrize("before", [None, T0])
    @pytest.mark.parametrize("new", [None, after(60)])
    def test_move_wake(
        self, provider: PersistenceProvider, before: datetime | None, new: datetime | None
    ) -> None:
        instance = created(provider, wake_at=before, message_sent=True)
        provider.move_wake([WakeMove(instance.id, instance.revision, 0, before, new)])
        expected = replace(instance, wake_at=new, message_sent=False)
        # It may take a moment until `load` sees it, as it need not be durable.
        until(lambda: loaded(provider, instance.id) == expected)

    @pytest.mark.parametrize("new", [None, after(60)])
    def test_move_wake_hides_no_request(self, provider: PersistenceProvider, new: datetime | None) -> None:
        """One that came since the load relies on `wake_at`, also where it did not have to lower it."""
        instance = created(provider, wake_at=T0)
        provider.request(instance.id, Request("suspend", new_id(), T0), T0)
        provider.move_wake([WakeMove(instance.id, instance.revision, 0, T0, new)])
        # What is written later is seen later: once this is there, the other would be.
        provider.move_wake([WakeMove(instance.id, instance.revision, 1, T0, after(-1))])
        until(lambda: _wake(provider, instance) == after(-1))

    def test_move_wake_lowers_without_comparing_wake_at(self, provider: PersistenceProvider) -> None:
        """To lower it hides nothing; and a time that somebody waits for must not be missed."""
        later = created(provider, wake_at=after(60))
        earlier = created(provider, wake_at=T0)
        moves = [WakeMove(one.id, one.revision, 0, after(30), after(5)) for one in (later, earlier)]
        provider.move_wake(moves)
        until(lambda: _wake(provider, later) == after(5))
        assert _wake(provider, earlier) == T0

    def test_move_wake_compares(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0, revision=3)
        empty = created(provider, wake_at=None, revision=3)
        provider.move_wake(
            [
                WakeMove(instance.id, 3, 0, T0 + TICK, after(60)),
                WakeMove(empty.id, 3, 0, T0, after(60)),
                WakeMove(new_id(), 3, 0, T0, after(60)),
            ]
        )
        provider.move_wake(
            [WakeMove(instance.id, 2, 0, T0, after(60)), WakeMove(empty.id, 2, 0, None, after(60))]
        )
        provider.move_wake([WakeMove(instance.id, 3, 0, None, after(60))])
        assert (_wake(provider, instance), _wake(provider, empty)) == (T0, None)

    # ------------------------------------------------------------------------------------ holds

    def test_due_ones_are_held(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0, version=2, message_sent=True)
        created(provider, wake_at=T0 + TICK)
        created(provider)
        expected = Due(instance.id, "order", 2, T0, True, 0)
        assert provider.hold_due(T0, _for_a_minute, 10) == [expected]
        assert provider.hold_due(T0, _for_a_minute, 10) == []
        assert _wake(provider, instance) == after(60)
        assert loaded(provider, instance.id).revision == instance.revision

    def test_holds_are_counted_until_a_commit_or_a_move(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0)
        for holds in range(3):
            assert _holds(provider, after(60 * holds)) == [holds]
        commit = step(instance, wake_at=after(500))
        provider.commit([commit])
        commit.apply(instance)
        assert _holds(provider, after(500)) == [0]
        assert _holds(provider, after(560)) == [1]
        provider.move_wake([WakeMove(instance.id, instance.revision, 0, after(620), after(700))])
        assert _holds(provider, after(700)) == [0]

    def test_due_ones_come_in_pages_earliest_first(self, provider: PersistenceProvider) -> None:
        instances = [created(provider, wake_at=T0 - n * TICK) for n in range(7)]
        pages = [provider.hold_due(T0, _for_a_minute, 3) for _ in range(4)]
        assert [len(page) for page in pages] == [3, 3, 1, 0]
        found = [due.instance_id for page in pages for due in page]
        assert found == [instance.id for instance in reversed(instances)]

    def test_the_hold_is_what_the_caller_says(self, provider: PersistenceProvider) -> None:
        instances = [created(provider, wake_at=T0 + n * TICK) for n in range(3)]
        provider.hold_due(after(1), lambda due: due.wake_at + (after(9) - T0), 10)
        assert [_wake(provider, one) for one in instances] == [after(9) + n * TICK for n in range(3)]

    def test_what_changed_meanwhile_is_not_held(self, provider: PersistenceProvider) -> None:
        committed, lowered, left = (created(provider, wake_at=T0) for _ in range(3))

        def change_then_hold(due: Due) -> datetime:
            if due.instance_id == committed.id:
                assert provider.commit([step(committed, wake_at=after(5))]) == [Outcome.COMMITTED]
            elif due.instance_id == lowered.id:
                provider.lower_wake({lowered.id: T0 - TICK})
            return after(60)

        held = {due.instance_id for due in provider.hold_due(T0, change_then_hold, 10)}
        assert held in ({left.id}, {left.id, lowered.id})  # what is still due may be held, and is sent then
        assert [_wake(provider, one) for one in (committed, lowered, left)] == [
            after(5),
            after(60) if lowered.id in held else T0 - TICK,
            after(60),
        ]

    def test_what_changed_since_it_was_sent_or_held_is_not_held(self, provider: PersistenceProvider) -> None:
        sent, held = created(provider, wake_at=T0, message_sent=True), created(provider, wake_at=T0 - TICK)
        provider.hold_due(T0 - TICK, lambda due: T0, 10)

        def lower_then_hold(due: Due) -> datetime:
            provider.lower_wake({due.instance_id: T0 - TICK})
            return after(60)

        # Whoever holds these may take their message to be on its way, and send none.
        assert provider.hold_due(T0, lower_then_hold, 10) == []
        assert [_wake(provider, one) for one in (sent, held)] == [T0 - TICK] * 2

    def test_whose_message_was_acknowledged_meanwhile_is_not_held_as_sent(
        self, provider: PersistenceProvider
    ) -> None:
        """Also where `wake_at` was early enough, so that it stays as it is."""
        sent, held = (
            created(provider, wake_at=T0 - TICK, message_sent=True),
            created(provider, wake_at=T0 - TICK),
        )
        provider.hold_due(T0 - TICK, lambda due: T0 if due.instance_id == held.id else due.wake_at, 10)

        def lower_then_hold(due: Due) -> datetime:
            provider.lower_wake({due.instance_id: after(5)})
            return after(60)

        assert provider.hold_due(T0, lower_then_hold, 10) == []
        assert _wake(provider, held) == T0
        assert {due.instance_id for due in provider.hold_due(T0, _for_a_minute, 10)} == {sent.id, held.id}

    def test_a_due_one_is_parked_instead_of_held(self, provider: PersistenceProvider) -> None:
        reason = Parked("nobody has it", T0, "a worker")
        parked, held, changed = (created(provider, version=v, wake_at=T0) for v in (2, 1, 2))
        provider.hold_due(T0, _for_a_minute, 10)

        def park(due: Due) -> datetime | Parked:
            if due.instance_id == changed.id:
                assert provider.commit([step(changed, wake_at=T0)]) == [Outcome.COMMITTED]
            return reason if due.version == 2 else _for_a_minute(due)

        found = provider.hold_due(after(60), park, 10)
        assert sorted(due.instance_id for due in found) == sorted([parked.id, held.id])
        assert exact(loaded(provider, parked.id)) == exact(replace(parked, parked=reason, wake_at=None))
        assert [one.instance_id for one in provider.parked("order", 2, "", 10)] == [parked.id]
        assert loaded(provider, changed.id).parked is None
        provider.lower_wake({parked.id: T0})
        assert sorted(_holds(provider, after(120))) == [0, 0, 2]

    def test_two_who_hold_at_once_share(self, provider: PersistenceProvider) -> None:
        instances = [created(provider, wake_at=T0) for _ in range(40)]
        with ThreadPoolExecutor(4) as pool:
            pages = list(pool.map(lambda _: provider.hold_due(T0, _for_a_minute, 40), range(4)))
        found = [due.instance_id for page in pages for due in page]
        assert sorted(found) == sorted(instance.id for instance in instances)

    def test_an_ended_instance_with_something_to_do_is_due(self, provider: PersistenceProvider) -> None:
        instance = created(provider, status=WorkflowStatus.COMPLETE, wake_at=T0)
        assert [due.instance_id for due in provider.hold_due(T0, _for_a_minute, 10)] == [instance.id]

    def test_next_due(self, provider: PersistenceProvider) -> None:
        assert provider.next_due() is None
        created(provider)
        assert provider.next_due() is None
        provider.add_event(Event("e", "n", "k", after(30)))
        assert provider.next_due() == after(30)
        instance = created(provider, wake_at=T0)
        assert provider.next_due() == T0
        provider.move_wake([WakeMove(instance.id, instance.revision, 0, T0, after(40) + TICK)])
        assert provider.next_due() == after(30)
        provider.mark_processed(["e"])
        assert provider.next_due() == after(40) + TICK


class CrashContract:
    """Deaths of processes are counted until something is committed."""

    def test_a_crash_is_counted_at_its_revision(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0)
        for count in (1, 2):
            provider.count_crash(instance.id, instance.revision, 1)
            assert loaded(provider, instance.id) == replace(instance, crashes=count)
        provider.count_crash(instance.id, instance.revision + 1, 1)
        provider.count_crash(new_id(), 0, 1)
        assert loaded(provider, instance.id).crashes == 2
        provider.count_crash(instance.id, instance.revision, -1)
        assert loaded(provider, instance.id).crashes == 1

    def test_a_yield_says_that_a_wake_up_was_sent(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0)
        provider.move_wake([WakeMove(instance.id, 0, 0, T0, after(5), message_sent=True)])
        # At once: who is sent the id loads it right after that.
        assert loaded(provider, instance.id) == replace(instance, wake_at=after(5), message_sent=True)


class ClaimContract:
    """A claim is renewed by who has its token, and `wake_at` goes along where it stood for it."""

    def test_a_claim_is_renewed_by_its_token(self, provider: PersistenceProvider) -> None:
        claim = Claim("worker", "t1", after(10))
        instance = created(provider, claims={"1": claim}, wake_at=after(10))
        outcomes = provider.renew_claims(
            [
                ClaimRenewal(instance.id, "1", replace(claim, until=after(5)), after(20)),
                ClaimRenewal(instance.id, "1", replace(claim, token="other"), after(90)),
                ClaimRenewal(instance.id, "2", claim, after(90)),
                ClaimRenewal(new_id(), "1", claim, after(90)),
            ]
        )
        assert outcomes == [True, False, False, False]
        stored = loaded(provider, instance.id)
        assert stored.claims == {"1": Claim("worker", "t1", after(20))}
        assert (stored.wake_at, stored.revision) == (after(20), instance.revision)
        assert provider.renew_claims([]) == []

    def test_wake_at_stays_at_the_earliest_of_two_claims(self, provider: PersistenceProvider) -> None:
        one, two = Claim("a", "t1", after(10)), Claim("b", "t2", after(15))
        instance = created(provider, claims={"1": one, "2": two}, wake_at=after(10))
        renew_one = ClaimRenewal(instance.id, "1", one, after(30))
        assert provider.renew_claims([renew_one]) == [True]
        assert _wake(provider, instance) == after(15)
        renew_two = ClaimRenewal(instance.id, "2", two, after(35) + TICK)
        assert provider.renew_claims([renew_two]) == [True]
        assert _wake(provider, instance) == after(30)

    def test_two_claims_of_an_instance_in_one_call(self, provider: PersistenceProvider) -> None:
        one, two = Claim("a", "t1", after(10)), Claim("a", "t2", after(10))
        instance = created(provider, claims={"1": one, "2": two}, wake_at=after(10))
        renewals = [
            ClaimRenewal(instance.id, "1", one, after(20)),
            ClaimRenewal(instance.id, "2", two, after(21)),
        ]
        assert provider.renew_claims(renewals) == [True, True]
        assert _wake(provider, instance) == after(20)

    @pytest.mark.parametrize("wake_at", [None, after(5), after(11)])
    def test_another_wake_at_stays(self, provider: PersistenceProvider, wake_at: datetime | None) -> None:
        claim = Claim("a", "t1", after(10))
        instance = created(provider, claims={"1": claim}, wake_at=wake_at)
        assert provider.renew_claims([ClaimRenewal(instance.id, "1", claim, after(20))]) == [True]
        assert exact(loaded(provider, instance.id)) == exact(
            replace(instance, claims={"1": replace(claim, until=after(20))})
        )

    def test_a_renewal_does_not_disturb_a_commit(self, provider: PersistenceProvider) -> None:
        claim = Claim("a", "t1", after(10))
        instance = created(provider, claims={"1": claim}, wake_at=after(10))
        provider.renew_claims([ClaimRenewal(instance.id, "1", claim, after(20))])
        assert provider.commit([step(instance, claims_removed=["1"])]) == [Outcome.COMMITTED]
        assert provider.renew_claims([ClaimRenewal(instance.id, "1", claim, after(20))]) == [False]


class ParkContract:
    """A parked instance is out of the way until somebody can go on with it."""

    REASON = Parked("definition missing", T0, "order 2")

    def test_a_parked_instance_is_not_due(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0)
        provider.park(instance.id, instance.revision, self.REASON)
        stored = loaded(provider, instance.id)
        assert (stored.parked, stored.wake_at, stored.status) == (self.REASON, None, instance.status)
        assert stored.revision == instance.revision
        assert provider.hold_due(after(1), _for_a_minute, 10) == []

    def test_parking_compares_the_revision(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0, revision=5)
        provider.park(instance.id, 4, self.REASON)
        assert loaded(provider, instance.id) == instance
        provider.park(instance.id, -1, self.REASON)
        assert loaded(provider, instance.id).parked == self.REASON
        provider.park(new_id(), -1, self.REASON)

    def test_parked_ones_are_found_by_definition(self, provider: PersistenceProvider) -> None:
        mine = sorted((created(provider, version=2) for _ in range(3)), key=lambda instance: instance.id)
        others = [created(provider, version=1), created(provider, version=2, workflow_definition_id="other")]
        for instance in [*mine, *others]:
            provider.park(instance.id, instance.revision, self.REASON)
        assert provider.parked("order", 2, "", 10) == [Waiter(one.id, "order", 2) for one in mine]
        assert len(provider.parked("order", 2, "", 2)) == 2
        assert [one.instance_id for one in provider.parked("order", 2, mine[0].id, 10)] == [
            one.id for one in mine[1:]
        ]
        provider.move_wake([WakeMove(mine[0].id, mine[0].revision, 0, None, None)])
        until(lambda: mine[0].id not in [one.instance_id for one in provider.parked("order", 2, "", 10)])
        assert provider.parked("order", 3, "", 10) == []

    def test_a_commit_ends_it(self, provider: PersistenceProvider) -> None:
        instance = created(provider, wake_at=T0)
        provider.park(instance.id, instance.revision, self.REASON)
        assert provider.commit([step(instance, wake_at=T0)]) == [Outcome.COMMITTED]
        assert loaded(provider, instance.id).parked is None
        assert provider.parked("order", 1, "", 10) == []
        assert _holds(provider, T0) == [0]

    def test_a_parked_instance_still_waits(self, provider: PersistenceProvider) -> None:
        instance, name = created(provider), new_id()
        transition = step(instance, waits=[Wait(name, "k", T0, "1")])
        provider.commit([transition])
        provider.park(instance.id, instance.revision + 1, self.REASON)
        assert provider.waiting_for(name, "k", "", 10) == [Waiter(instance.id, "order", 1)]


def _for_a_minute(due: Due) -> datetime:
    return due.wake_at + (after(60) - T0)


def _wake(provider: PersistenceProvider, instance: Instance) -> datetime | None:
    return loaded(provider, instance.id).wake_at


def _holds(provider: PersistenceProvider, now: datetime) -> list[int]:
    return [due.holds for due in provider.hold_due(now, _for_a_minute, 10)]
