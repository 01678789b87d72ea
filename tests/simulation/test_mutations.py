"""With any one of the protections taken away, the simulation finds a broken promise within some histories.

`python tests/simulation/test_mutations.py` prints the table of docs/simulation.md.
"""

from __future__ import annotations

import time

import pytest
from simulation.mutations import MUTATIONS, Mutation

from liteflow.core.testing.simulation import History

WITHIN = 1500
"""Histories after which the simulation has to have found it."""


def first_broken(mutation: Mutation) -> History | None:
    """The first history in which it shows."""
    with pytest.MonkeyPatch.context() as patch:
        mutation.apply(patch)
        return next((found for seed in range(WITHIN) if (found := mutation.history(seed)).broken), None)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_without_this_protection_a_promise_is_broken(mutation: Mutation) -> None:
    assert first_broken(mutation) is not None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_with_it_none_is_in_the_same_histories(mutation: Mutation) -> None:
    for seed in range(30):
        mutation.history(seed).check()


def main() -> None:
    """Print the table."""
    print("| without | found as | histories | seconds |\n|---|---|---|---|")
    for mutation in MUTATIONS:
        began = time.monotonic()
        found = first_broken(mutation)
        seconds = time.monotonic() - began
        promise, number = (
            (found.broken[0].promise, found.seed) if found is not None else ("not found", WITHIN)
        )
        print(f"| {mutation.name} | {promise} | {int(str(number)) + 1} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
