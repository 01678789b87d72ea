"""What every lock provider has to do. Subclass it, and give the two fixtures.

`provider` and `second` are two opened provider objects on the same servers, as two processes have them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from liteflow.core.providers import Lease, LockProvider, Taken

DEADLINE = 30.0


def got(outcome: Lease | Taken) -> Lease:
    """The lease, which must have been got."""
    assert isinstance(outcome, Lease), outcome
    return outcome


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Ask until the answer is true."""
    deadline = time.monotonic() + DEADLINE
    pause = threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        pause.wait(0.005)
    return answer


class LockContract:
    """The suite. A lease of less than the provider's `shortest_ttl` counts as one of that length.

    A test that waits for the end of a lease then takes that long.
    """

    @pytest.fixture
    def provider(self) -> LockProvider:
        """An opened provider."""
        raise NotImplementedError

    @pytest.fixture
    def second(self, provider: LockProvider) -> LockProvider:
        """Another one on the same servers."""
        raise NotImplementedError

    def test_one_holder_at_a_time(self, provider: LockProvider, second: LockProvider) -> None:
        lease = got(provider.acquire(["a"], 5)[0])
        taken = second.acquire(["a"], 5)[0]
        assert isinstance(taken, Taken)
        assert 0 < taken.expires_in <= max(5, provider.shortest_ttl)
        provider.release([lease])
        got(second.acquire(["a"], 5)[0])

    def test_unmarked_release_is_clean(self, provider: LockProvider) -> None:
        assert provider.release(provider.acquire(["a", "b"], 5)) == [True, True]  # type: ignore[arg-type]

    def test_who_is_turned_away_leaves_a_mark(self, provider: LockProvider, second: LockProvider) -> None:
        leases = [got(one) for one in provider.acquire(["a", "b"], 5)]
        second.acquire(["a"], 5)
        assert provider.release(leases) == [False, True]

    def test_a_mark_goes_with_its_lease(self, provider: LockProvider, second: LockProvider) -> None:
        lease = got(provider.acquire(["a"], 5)[0])
        second.acquire(["a"], 5)
        provider.release([lease])
        assert second.release([got(second.acquire(["a"], 5)[0])]) == [True]

    def test_outcomes_of_a_batch_come_in_order(self, provider: LockProvider, second: LockProvider) -> None:
        got(second.acquire(["b"], 5)[0])
        outcomes = provider.acquire(["a", "b", "c"], 5)
        assert [isinstance(one, Lease) for one in outcomes] == [True, False, True]

    def test_an_expired_lease_is_free(self, provider: LockProvider, second: LockProvider) -> None:
        lease = got(provider.acquire(["a"], 0.1)[0])
        other = until("it expires", lambda: isinstance(one := second.acquire(["a"], 5)[0], Lease) and one)
        assert provider.renew([lease], 5) == [False]
        assert not lease.held
        assert provider.release([lease]) == [False]
        assert isinstance(provider.acquire(["a"], 5)[0], Taken), "a late release must free nobody else's"
        assert second.release([other]) == [False]

    def test_renewal_keeps_it(self, provider: LockProvider, second: LockProvider) -> None:
        lease = got(provider.acquire(["a"], 0.3)[0])
        first_end = lease.expires
        assert provider.renew([lease], 30) == [True]
        assert lease.expires > first_end
        until("the first end is over", lambda: time.monotonic() > first_end)
        taken = second.acquire(["a"], 5)[0]
        assert isinstance(taken, Taken)
        assert taken.expires_in > 5

    def test_odd_names(self, provider: LockProvider) -> None:
        names = ["a b", "ä:ö", "x" * 500, "{}*", "line\nbreak"]
        assert all(isinstance(one, Lease) for one in provider.acquire(names, 5))

    def test_nothing_to_do(self, provider: LockProvider) -> None:
        assert provider.acquire([], 5) == []
        assert provider.renew([], 5) == []
        assert provider.release([]) == []

    def test_no_one_turned_away_is_overlooked(self, provider: LockProvider, second: LockProvider) -> None:
        """Threads count, under the lease, what they were woken for; a mark means: look again.

        Each thread adds to `wanted` and tries the lease. Who gets it takes `wanted` over into `seen` and
        gives it back; an unclean release makes it try again. If a mark got lost, some of `wanted` stays.
        """
        wanted = seen = 0
        guard = threading.Lock()

        def look(mine: LockProvider) -> None:
            nonlocal seen
            while True:
                outcome = mine.acquire(["hammer"], 10)[0]
                if isinstance(outcome, Taken):
                    if outcome.resend:
                        continue
                    return
                with guard:
                    seen = wanted
                if mine.release([outcome])[0]:
                    return

        def wake(mine: LockProvider) -> None:
            nonlocal wanted
            for _ in range(100):
                with guard:
                    wanted += 1
                look(mine)

        threads = [threading.Thread(target=wake, args=(one,)) for one in (provider, second) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wanted == 600
        assert seen == wanted

    def test_close_and_open_again(self, provider: LockProvider) -> None:
        provider.close()
        provider.close()
        provider.open()
        provider.open()
        got(provider.acquire(["again"], 5)[0])
