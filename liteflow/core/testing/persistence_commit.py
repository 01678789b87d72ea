"""The contract of `create`, `load`, `commit`, and of what a commit leaves behind: history, errors."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from liteflow.core import codec
from liteflow.core.models import Claim, ErrorRecord, Instance, Parked, Pointer, PointerStatus, Wait
from liteflow.core.providers import ListFilter, PersistenceProvider
from liteflow.core.testing import samples
from liteflow.core.testing.samples import T0, after, created, exact, loaded, new_id, new_instance, step
from liteflow.core.transition import Outcome, Transition

THREADS = 8

PROPERTY = settings(
    max_examples=50,
    deadline=None,
    # The provider is one for all examples, which have ids of their own; each provider's class runs them.
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
    # On a real server looking for a smaller example takes minutes.
    phases=[Phase.explicit, Phase.generate],
    database=None,
)


class CommitContract:
    """What is committed is stored exactly, once, and from the state it was made for."""

    # ---------------------------------------------------------------------------------- create

    def test_what_was_created_is_loaded(self, provider: PersistenceProvider) -> None:
        instance = created(provider, data={"a": 1}, reference="o-1", wake_at=T0)
        assert exact(loaded(provider, instance.id)) == exact(instance)

    def test_an_id_is_created_once(self, provider: PersistenceProvider) -> None:
        first = created(provider, description="first")
        second = replace(first, description="second")
        other = new_instance()
        assert provider.create([second, other]) == [False, True]
        assert loaded(provider, first.id).description == "first"
        assert loaded(provider, other.id) == other

    def test_the_same_id_twice_in_a_call(self, provider: PersistenceProvider) -> None:
        first = new_instance(description="first")
        assert provider.create([first, replace(first, description="second")]) == [True, False]
        assert loaded(provider, first.id).description == "first"

    def test_a_repeated_create_is_known_by_its_token(self, provider: PersistenceProvider) -> None:
        instance = created(provider, token=new_id())
        assert provider.create([instance]) == [True]
        assert provider.create([replace(instance, token=new_id())]) == [False]

    def test_creating_nothing_and_loading_nothing(self, provider: PersistenceProvider) -> None:
        assert provider.create([]) == []
        assert provider.load([]) == {}
        assert provider.commit([]) == []
        assert provider.load([new_id()]) == {}

    def test_no_two_calls_share_an_object(self, provider: PersistenceProvider) -> None:
        instance = new_instance(data={"list": [1]}, pointers={"1": Pointer("1", "a", outcome=[1])})
        expected = copy.deepcopy(instance)
        provider.create([instance])
        for mine in (instance, loaded(provider, instance.id)):
            mine.data["list"].append(2)  # type: ignore[union-attr]
            mine.pointers["1"].outcome.append(2)  # type: ignore[union-attr]
            mine.applied.append("x")
            mine.pointers["1"].status = PointerStatus.FAILED
        assert loaded(provider, instance.id) == expected

    # ---------------------------------------------------------------------------------- values

    @pytest.mark.parametrize(
        "value",
        [
            *(None, True, 0, 1, 2**31, 2**63 - 1, -(2**63), 0.0, -0.0, 1.0, float("nan"), float("inf")),
            *("", "\0", "$a", "a.b", "é\U0001f600", b"", b"\0\xff", [], {}, [[], [{}]]),
            *({"a.b": 1, "$set": {"$x.y": 2}, "~": "datetime", "": 3, "0": 4}, {"~": 1}, {"_id": 1}),
            *(T0, T0.replace(microsecond=123000), T0.replace(year=1), T0.replace(year=9999)),
            *(Decimal("0.10"), Decimal("1E+3"), Decimal("-0"), Decimal("1." + "3" * 60)),
            *((1, (2,)), {1, 2}, T0.date(), T0.time(), after(1) - T0),
        ],
        ids=repr,
    )
    def test_values_come_back_exactly(self, provider: PersistenceProvider, value: Any) -> None:
        plain = codec.encode(value, "value")
        instance = created(provider, data={"first": plain}, items={"1": [plain, plain]})
        transition = step(
            instance,
            data_set={"second": plain},
            pointers={"1": Pointer("1", "a", outcome=plain, persistence_data=plain, context_item=plain)},
        )
        assert provider.commit([transition]) == [Outcome.COMMITTED]
        transition.apply(instance)
        assert exact(loaded(provider, instance.id)) == exact(instance)

    @given(samples.instances)
    @PROPERTY
    def test_any_instance_comes_back_exactly(self, provider: PersistenceProvider, instance: Instance) -> None:
        assert provider.create([instance]) == [True]
        assert exact(loaded(provider, instance.id)) == exact(instance)

    # ---------------------------------------------------------------------------------- commit

    @given(samples.instances, st.data())
    @PROPERTY
    def test_a_commit_stores_what_apply_gives(
        self, provider: PersistenceProvider, local: Instance, data: st.DataObject
    ) -> None:
        provider.create([local])
        for _ in range(data.draw(st.integers(1, 4))):
            transition = data.draw(samples.transitions(local))
            assert provider.commit([transition]) == [Outcome.COMMITTED]
            transition.apply(local)
            assert exact(loaded(provider, local.id)) == exact(local)
            for wait in transition.waits or []:
                assert local.id in _waiting(provider, wait.name, wait.key)

    def test_a_commit_keeps_nothing_of_the_callers(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        pointer = Pointer("1", "a", outcome=[1])
        applied, value = ["x"], [1]
        provider.commit(
            [step(instance, pointers={"1": pointer}, data_set={"v": value}, fields={"applied": applied})]
        )
        pointer.outcome.append(2)  # type: ignore[union-attr]
        pointer.status = PointerStatus.FAILED
        applied.append("y")
        value.append(2)
        stored = loaded(provider, instance.id)
        assert stored.pointers == {"1": Pointer("1", "a", outcome=[1])}
        assert (stored.applied, stored.data) == (["x"], {"v": [1]})

    def test_the_revision_is_compared(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        for revision in (instance.revision - 1, instance.revision + 1):
            late = replace(step(instance, data_set={"a": 1}), revision=revision)
            assert provider.commit([late]) == [Outcome.CONFLICT]
        assert loaded(provider, instance.id) == instance

    def test_the_inbox_sequence_is_compared(self, provider: PersistenceProvider) -> None:
        instance = created(provider, inbox_sequence=3)
        blind = replace(step(instance), inbox_sequence=2)
        assert provider.commit([blind]) == [Outcome.CONFLICT]
        assert provider.commit([step(instance)]) == [Outcome.COMMITTED]

    def test_a_repeated_commit_is_committed_once(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        transition = step(instance, data_set={"a": 1})
        assert provider.commit([transition]) == [Outcome.COMMITTED]
        assert provider.commit([copy.deepcopy(transition)]) == [Outcome.COMMITTED]
        assert loaded(provider, instance.id).revision == instance.revision + 1

    def test_a_competing_commit_is_a_conflict(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        first, second = step(instance, data_set={"by": 1}), step(instance, data_set={"by": 2})
        assert provider.commit([first]) == [Outcome.COMMITTED]
        assert provider.commit([second]) == [Outcome.CONFLICT]
        assert loaded(provider, instance.id).data == {"by": 1}

    def test_each_transition_has_its_own_outcome(self, provider: PersistenceProvider) -> None:
        one, two, three = created(provider), created(provider), created(provider)
        repeated = step(three)
        provider.commit([repeated])
        transitions = [
            step(one, data_set={"a": 1}),
            replace(step(two, data_set={"a": 1}), revision=7),
            step(new_instance()),
            repeated,
        ]
        expected = [Outcome.COMMITTED, Outcome.CONFLICT, Outcome.CONFLICT, Outcome.COMMITTED]
        assert provider.commit(transitions) == expected
        assert loaded(provider, one.id).data == {"a": 1}
        assert loaded(provider, two.id) == two

    def test_a_commit_never_inserts(self, provider: PersistenceProvider) -> None:
        unknown = new_instance()
        assert provider.commit([step(unknown, data_set={"a": 1})]) == [Outcome.CONFLICT]
        assert provider.load([unknown.id]) == {}
        assert provider.list(ListFilter()).items == []

    def test_many_in_one_call(self, provider: PersistenceProvider) -> None:
        instances = [new_instance() for _ in range(150)]
        assert all(provider.create(instances))
        outcomes = provider.commit([step(one, data_set={"n": n}) for n, one in enumerate(instances)])
        assert outcomes == [Outcome.COMMITTED] * 150
        found = provider.load([one.id for one in instances])
        assert [_data(found[one.id]) for one in instances] == [{"n": n} for n in range(150)]

    def test_a_claim_that_was_renewed_or_is_gone_is_a_conflict(self, provider: PersistenceProvider) -> None:
        claim = Claim("a", "t1", after(10))
        for stored in ({"1": replace(claim, until=after(20))}, {"1": replace(claim, token="t2")}, {}):
            instance = created(provider, claims=stored)
            taken = step(
                instance, claims_expected={"1": claim}, claims_set={"1": Claim("b", "t3", after(30))}
            )
            assert provider.commit([taken]) == [Outcome.CONFLICT]
            assert loaded(provider, instance.id) == instance
        instance = created(provider, claims={"1": claim, "2": claim})
        taken = step(instance, claims_expected={"1": claim}, claims_set={"1": Claim("b", "t3", after(30))})
        assert provider.commit([taken]) == [Outcome.COMMITTED]
        assert loaded(provider, instance.id).claims["1"].by == "b"

    def test_a_commit_clears_parked_and_crashes(self, provider: PersistenceProvider) -> None:
        instance = created(provider, crashes=2, parked=Parked("format", T0, "2"))
        assert provider.commit([step(instance)]) == [Outcome.COMMITTED]
        stored = loaded(provider, instance.id)
        assert (stored.crashes, stored.parked) == (0, None)
        assert provider.parked("order", 1, "", 10) == []

    def test_waits_that_did_not_change_stay(self, provider: PersistenceProvider) -> None:
        instance, name = created(provider), new_id()
        first = step(instance, waits=[Wait(name, "a", T0, "1"), Wait(name, "b", T0, "2")])
        provider.commit([first])
        first.apply(instance)
        second = step(instance, data_set={"a": 1})
        provider.commit([second])
        second.apply(instance)
        assert _waiting(provider, name, "a") == _waiting(provider, name, "b") == [instance.id]
        provider.commit([step(instance, waits=[Wait(name, "b", T0, "2")])])
        assert (_waiting(provider, name, "a"), _waiting(provider, name, "b")) == ([], [instance.id])

    # -------------------------------------------------------------------------------- at once

    def test_one_of_those_who_race_wins(self, provider: PersistenceProvider) -> None:
        for _ in range(5):
            instance = created(provider)
            transitions = [step(instance, data_set={"by": n}) for n in range(THREADS)]
            outcomes = _at_once(provider, transitions)
            assert sorted(o.value for o in outcomes) == ["committed"] + ["conflict"] * (THREADS - 1)
            stored = loaded(provider, instance.id)
            winner = outcomes.index(Outcome.COMMITTED)
            assert (stored.data, stored.token) == ({"by": winner}, transitions[winner].token)

    def test_no_update_is_lost(self, provider: PersistenceProvider) -> None:
        instance = created(provider, data={"count": 0})

        def add(_: int) -> None:
            while True:
                now = loaded(provider, instance.id)
                count = now.data["count"]
                assert isinstance(count, int)
                if provider.commit([step(now, data_set={"count": count + 1})]) == [Outcome.COMMITTED]:
                    return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(20)))
        stored = loaded(provider, instance.id)
        assert (stored.data, stored.revision) == ({"count": 20}, 20)

    # ------------------------------------------------------------------------- history, errors

    def test_history_is_in_order_and_copied_once(self, provider: PersistenceProvider) -> None:
        instance_id, other_id = new_id(), new_id()
        ended = [Pointer(str(n), "a", PointerStatus.COMPLETE, end_time=T0, outcome=[n]) for n in range(1, 13)]
        provider.archive([(instance_id, pointer) for pointer in reversed(ended[5:])])
        provider.archive([(instance_id, pointer) for pointer in ended])
        provider.archive([(other_id, ended[0])])
        provider.archive([])
        assert provider.history(instance_id) == ended
        assert provider.history(other_id) == ended[:1]
        assert provider.history(new_id()) == []

    def test_errors_are_stored_once_with_the_commit(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        transition = step(instance, errors=[_error(instance.id, 1)])
        provider.commit([transition])
        provider.commit([transition])
        assert provider.errors(instance.id, 10) == [_error(instance.id, 1)]
        assert provider.errors(new_id(), 10) == []

    def test_errors_are_oldest_first_and_the_last_ones(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        # Attempts begin anew after a success or a resume: the same pointer and attempt come again.
        kept = [replace(_error(instance.id, 1 + n % 3), time=after(n)) for n in range(12)]
        for error in kept:
            transition = step(instance, errors=[error])
            assert provider.commit([transition]) == [Outcome.COMMITTED]
            transition.apply(instance)
        assert provider.errors(instance.id, 100) == kept
        assert provider.errors(instance.id, 5) == kept[-5:]
        assert provider.errors(instance.id, 0) == []


def _error(instance_id: str, attempt: int) -> ErrorRecord:
    return ErrorRecord(instance_id, "3", "charge", attempt, T0, "ValueError", "no", "Traceback ...")


def _waiting(provider: PersistenceProvider, name: str, key: str) -> list[str]:
    return [waiter.instance_id for waiter in provider.waiting_for(name, key, "", 1000)]


def _data(found: Instance | Exception) -> Any:
    assert isinstance(found, Instance)
    return found.data


def _at_once(provider: PersistenceProvider, transitions: list[Transition]) -> list[Outcome]:
    barrier = threading.Barrier(len(transitions))

    def commit(transition: Transition) -> Outcome:
        barrier.wait()
        return provider.commit([transition])[0]

    with ThreadPoolExecutor(len(transitions)) as pool:
        return list(pool.map(commit, transitions))
