"""The contract of activities: offered, leased one by one, given back or finished."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from liteflow.core.models import Activity
from liteflow.core.providers import PersistenceProvider
from liteflow.core.testing.samples import T0, TICK, after, exact, new_id


class ActivityContract:
    """An activity is taken by one at a time, the oldest first, until it is done."""

    @pytest.mark.parametrize("parameters", [None, 0, "", [1, {"a.b": ["$c", 1.0]}]], ids=repr)
    def test_what_was_offered_is_taken_exactly(self, provider: PersistenceProvider, parameters: Any) -> None:
        offered = _offered(provider, parameters=parameters)
        taken = replace(offered, token="t", worker="me", until=after(60))
        assert exact(_take(provider, "t")) == exact(taken)
        assert exact(provider.activity("t")) == exact(taken)

    def test_offering_again_does_nothing(self, provider: PersistenceProvider) -> None:
        provider.offer_activities([])
        first = _activity("1")
        provider.offer_activities([first, replace(first, parameters="second")])
        again = replace(first, parameters="third")
        provider.offer_activities([again, _activity("2")])
        taken = _take(provider, "t")
        assert taken == replace(first, token="t", worker="me", until=after(60))
        provider.offer_activities([again])
        assert provider.activity("t") == taken
        provider.finish_activity("1")
        provider.offer_activities([again])
        assert _ids(provider) == ["2"]

    def test_the_oldest_is_taken_first(self, provider: PersistenceProvider) -> None:
        times = {"b": T0, "d": T0, "a": T0 + TICK, "c": after(2)}
        provider.offer_activities([_activity(key, time=times[key]) for key in "cadb"])
        assert _ids(provider) == ["b", "d", "a", "c"]

    def test_the_name_has_to_fit(self, provider: PersistenceProvider) -> None:
        provider.offer_activities([_activity("1", name="a.b"), _activity("2", name="A"), _activity("3")])
        assert [_ids(provider, name) for name in ("a", "A", "a.b", "A")] == [[], ["2"], ["1"], []]

    def test_a_lease_ends_at_its_time(self, provider: PersistenceProvider) -> None:
        _offered(provider, id="1")
        first = provider.take_activity("paint", "one", "t1", T0, after(60))
        assert _take(provider, "t2", after(60) - TICK) is None
        assert provider.activity("t1") == first
        # As long as nobody has taken it anew it still is that of the first token.
        second = provider.take_activity("paint", "two", "t2", after(60), after(120))
        assert second is not None
        assert (second.id, second.token, second.worker, second.until) == ("1", "t2", "two", after(120))
        assert (provider.activity("t1"), provider.activity("t2")) == (None, second)

    def test_one_whose_lease_has_ended_is_as_old_as_before(self, provider: PersistenceProvider) -> None:
        provider.offer_activities([_activity(str(n), time=after(n)) for n in range(3)])
        assert _ids(provider, now=T0) == ["0", "1", "2"]
        provider.offer_activities([_activity("3", time=after(3))])
        assert _ids(provider, now=after(60)) == ["0", "1", "2", "3"]

    def test_a_token_that_nobody_has(self, provider: PersistenceProvider) -> None:
        _offered(provider)
        for token in ("", "x", new_id()):
            assert provider.activity(token) is None
            assert not provider.release_activity(token)

    def test_what_is_finished_is_over(self, provider: PersistenceProvider) -> None:
        provider.offer_activities([_activity("1"), _activity("2")])
        assert _take(provider, "t1") is not None
        for finished in ("1", "1", "2", new_id()):
            provider.finish_activity(finished)
        assert provider.activity("t1") is None
        assert not provider.release_activity("t1")
        assert _take(provider, "t2", after(1000)) is None

    def test_what_is_given_back_is_taken_again(self, provider: PersistenceProvider) -> None:
        one, two = _offered(provider, id="1"), _offered(provider, id="2", time=after(1))
        assert (_take(provider, "t1"), _take(provider, "t2")) == (_leased(one, "t1"), _leased(two, "t2"))
        assert provider.release_activity("t1")
        assert not provider.release_activity("t1")
        assert provider.activity("t1") is None
        assert _take(provider, "t3") == _leased(one, "t3")
        assert provider.activity("t2") == _leased(two, "t2")

    def test_an_old_token_gives_nothing_back(self, provider: PersistenceProvider) -> None:
        offered = _offered(provider)
        _take(provider, "t1")
        _take(provider, "t2", after(60))
        assert not provider.release_activity("t1")
        assert provider.activity("t2") == _leased(offered, "t2")

    def test_what_is_withdrawn_is_gone(self, provider: PersistenceProvider) -> None:
        offered = [_activity(str(n), time=after(n)) for n in range(4)]
        provider.offer_activities(offered)
        _take(provider, "t0")
        provider.finish_activity("1")
        provider.withdraw_activities([])
        provider.withdraw_activities(["0", "1", "2", new_id()])
        assert provider.activity("t0") is None
        assert _ids(provider) == ["3"]
        provider.offer_activities(offered)
        assert _ids(provider) == ["0", "1", "2"]

    def test_no_two_calls_share_an_activity(self, provider: PersistenceProvider) -> None:
        mine: Any = _offered(provider, parameters=[1])
        for _ in range(2):
            mine.parameters.append(2)
            mine.done = True
            mine = _take(provider, "t") or provider.activity("t")
            assert (mine.parameters, mine.done) == ([1], False)

    def test_nobody_gets_what_another_has(self, provider: PersistenceProvider) -> None:
        provider.offer_activities([_activity(f"{n:02}") for n in range(20)])
        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(lambda n: _take(provider, f"t{n}"), range(30)))
        assert sorted(one.id for one in taken if one is not None) == [f"{n:02}" for n in range(20)]
        for one in taken:
            assert one is None or provider.activity(one.token) == one


def _activity(activity_id: str, **changes: Any) -> Activity:
    return replace(Activity(activity_id, "paint", {"n": activity_id}, T0, "order-1"), **changes)


def _offered(provider: PersistenceProvider, **changes: Any) -> Activity:
    activity = _activity(new_id(), **changes) if "id" not in changes else _activity("", **changes)
    provider.offer_activities([activity])
    return activity


def _leased(activity: Activity, token: str) -> Activity:
    return replace(activity, token=token, worker="me", until=after(60))


def _take(provider: PersistenceProvider, token: str, now: Any = T0) -> Activity | None:
    return provider.take_activity("paint", "me", token, now, after(60))


def _ids(provider: PersistenceProvider, name: str = "paint", now: Any = T0) -> list[str]:
    """The ids of all that can be taken, in the order in which they are."""
    found = []
    while taken := provider.take_activity(name, "me", new_id(), now, now + (after(60) - T0)):
        found.append(taken.id)
    return found
