"""The contract of the collections of for_each: as large as they come, they are stored with their commit."""

from __future__ import annotations

import copy
from dataclasses import replace

from liteflow.core.codec import Plain
from liteflow.core.models import Instance
from liteflow.core.providers import PersistenceProvider
from liteflow.core.testing.samples import T0, created, exact, loaded, new_id, new_instance, step
from liteflow.core.transition import Outcome

COUNT = 10_000
SIZE = 100
"""Bytes of one item of a large collection."""


class ItemsContract:
    """Large and small collections alike come back as they were set, until they are removed."""

    def test_a_large_collection_comes_back_exactly(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        transition = step(instance, items_set={"1": large("a"), "2": ["small"], "3": large("b")})
        assert provider.commit([copy.deepcopy(transition)]) == [Outcome.COMMITTED]
        transition.apply(instance)
        assert exact(loaded(provider, instance.id)) == exact(instance)

    def test_an_instance_is_created_with_a_large_collection(self, provider: PersistenceProvider) -> None:
        items = {"1": large("a"), "2": large("b", 5000), "3": []}
        instances = [new_instance(items=items, token=token) for token in ("", new_id())]
        assert provider.create(instances) == [True, True]
        assert provider.create(instances) == [False, True]
        for instance in instances:
            assert exact(loaded(provider, instance.id)) == exact(instance)

    def test_large_collections_of_many_are_kept_apart(self, provider: PersistenceProvider) -> None:
        token = new_id()
        instances = [created(provider) for _ in range(3)]
        transitions = [
            step(one, token=token, items_set={key: large(f"{n}{key}", 1000) for key in ("1", "11")})
            for n, one in enumerate(instances)
        ]
        small = created(provider, items={"1": [1]})
        assert provider.commit(transitions) == [Outcome.COMMITTED] * 3
        for one, transition in zip(instances, transitions, strict=True):
            transition.apply(one)
        found = provider.load([*(one.id for one in instances), small.id, new_id()])
        assert exact(found) == exact({one.id: one for one in [*instances, small]})

    def test_items_of_any_size_and_kind(self, provider: PersistenceProvider) -> None:
        items: list[Plain] = [None, {"a.b": [1.0]}, "x" * 3_000_000, [], "y" * 700_000, "z" * 700_000, 1]
        instance = created(provider, items={"1": items})
        assert exact(loaded(provider, instance.id).items) == exact({"1": items})

    def test_what_is_removed_is_gone(self, provider: PersistenceProvider) -> None:
        instance = created(provider, items={"1": large("a"), "2": large("b"), "3": [3]})
        _go_on(provider, instance, {}, "1", "3", "7")
        assert instance.items == {"2": large("b")}

    def test_another_collection_takes_its_place(self, provider: PersistenceProvider) -> None:
        instance = created(provider, items={"1": large("a"), "2": large("b"), "3": [3], "4": large("c")})
        _go_on(provider, instance, {"1": large("d"), "2": [2], "3": large("e")})
        # Removed and set in one commit, it is set.
        _go_on(provider, instance, {"1": large("f"), "4": [4]}, "1", "4")
        _go_on(provider, instance, {})
        assert instance.items == {"1": large("f"), "2": [2], "3": large("e"), "4": [4]}

    def test_a_removed_collection_can_be_set_again(self, provider: PersistenceProvider) -> None:
        instance = created(provider, items={"1": large("a")})
        removed = step(instance, items_removed=["1"])
        assert provider.commit([removed]) == [Outcome.COMMITTED]
        removed.apply(instance)
        _go_on(provider, instance, {"1": large("b")})
        # The commit before is told of once more, too late.
        assert provider.commit([removed]) == [Outcome.CONFLICT]
        assert exact(loaded(provider, instance.id)) == exact(instance)

    def test_who_loses_leaves_the_winners_items_whole(self, provider: PersistenceProvider) -> None:
        instance = created(provider, items={"2": large("kept")})
        winner = step(instance, items_set={"1": large("winner")})
        losers = [
            step(instance, items_set={"1": large("loser", 20_000)}),
            step(instance, items_set={"1": ["small"]}),
            step(instance, items_removed=["1", "2"]),
            replace(step(instance, items_set={"1": large("blind")}), inbox_sequence=9),
        ]
        assert provider.commit([losers[-1]]) == [Outcome.CONFLICT]
        assert provider.commit([winner]) == [Outcome.COMMITTED]
        for loser in losers:
            assert provider.commit([loser]) == [Outcome.CONFLICT]
        winner.apply(instance)
        assert exact(loaded(provider, instance.id)) == exact(instance)

    def test_a_large_collection_that_is_committed_again(self, provider: PersistenceProvider) -> None:
        instance = created(provider)
        transition = step(instance, items_set={"1": large("a")})
        for _ in range(2):
            assert provider.commit([transition]) == [Outcome.COMMITTED]
        transition.apply(instance)
        assert exact(loaded(provider, instance.id)) == exact(instance)

    def test_a_large_collection_is_purged_along(self, provider: PersistenceProvider) -> None:
        instance = new_instance(items={"1": large("a")}, token=new_id())
        instance.status, instance.complete_time = instance.status.COMPLETE, T0
        provider.create([instance])
        assert provider.purge(instance.status, T0.replace(year=2027), 10) == 1
        assert provider.create([replace(instance, items={"1": large("b")})]) == [True]
        assert loaded(provider, instance.id).items == {"1": large("b")}


def large(text: str, count: int = COUNT) -> list[Plain]:
    """So many items that are all different, of about `SIZE` bytes each."""
    return [f"{text}-{number}-".ljust(SIZE, "x") for number in range(count)]


def _go_on(
    provider: PersistenceProvider, instance: Instance, items: dict[str, list[Plain]], *removed: str
) -> None:
    """Commit a change of the items, and compare."""
    transition = step(instance, items_set=items, items_removed=list(removed))
    assert provider.commit([transition]) == [Outcome.COMMITTED]
    transition.apply(instance)
    assert exact(loaded(provider, instance.id)) == exact(instance)
