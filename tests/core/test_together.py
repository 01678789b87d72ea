from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import wait_for

from liteflow.core.errors import DataError, UnavailableError
from liteflow.core.together import Together


def test_who_comes_while_a_call_is_made_is_in_the_next_one() -> None:
    gate, calls = threading.Event(), list[list[int]]()

    def call(items: list[int]) -> list[int]:
        calls.append(list(items))
        if len(calls) == 1:
            assert gate.wait(10)
        return [2 * item for item in items]

    together = Together(call)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(together, 0)
        wait_for("the first calls", lambda: calls == [[0]])
        others = [pool.submit(together, item) for item in range(1, 8)]
        wait_for("the others wait", lambda: len(together._waiting) == 7)
        gate.set()
        assert first.result(10) == 0
        assert [other.result(10) for other in others] == [2, 4, 6, 8, 10, 12, 14]
    assert len(calls) == 2 and sorted(calls[1]) == list(range(1, 8))


def test_one_that_cannot_be_stored_does_not_spoil_the_others() -> None:
    gate, begun = threading.Event(), threading.Event()

    def call(items: list[str]) -> list[str]:
        begun.set()
        assert gate.wait(10)
        if "bad" in items:
            raise DataError("data", "it is bad")
        return items

    together = Together(call)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(together, "first")
        assert begun.wait(10)
        bad, good = pool.submit(together, "bad"), pool.submit(together, "good")
        wait_for("both wait", lambda: len(together._waiting) == 2)
        gate.set()
        assert first.result(10) == "first"
        assert good.result(10) == "good"
        with pytest.raises(DataError, match="it is bad"):
            bad.result(10)


def test_an_outage_is_everybodys_and_the_next_one_tries_again() -> None:
    away = [True]

    def call(items: list[int]) -> list[int]:
        if away[0]:
            raise UnavailableError("away")
        return items

    together = Together(call)
    with pytest.raises(UnavailableError):
        together(1)
    away[0] = False
    assert together(2) == 2


def test_many_threads_each_get_their_own_result() -> None:
    together = Together(lambda items: [item + 1 for item in items])
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(together, range(2000))) == list(range(1, 2001))
