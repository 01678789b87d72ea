from __future__ import annotations

import gc
import threading
import weakref
from functools import partial
from queue import Empty, SimpleQueue

from servers import wait_for

from liteflow.core.loop import Loop


class Held:
    def act(self) -> None:
        raise AssertionError("it was cancelled")


def test_a_cancelled_timer_does_not_run_and_holds_nothing() -> None:
    loop = Loop("test")
    kept: list[weakref.ref[Held]] = []
    ran = threading.Event()

    def plan() -> None:
        held = Held()
        kept.append(weakref.ref(held))
        loop.later(0.0, held.act).cancel()
        loop.later(0.01, ran.set)

    loop.start()
    loop.post(plan)
    assert ran.wait(10)
    loop.stop()
    gc.collect()
    assert kept[0]() is None


def test_cancelled_timers_of_the_far_future_do_not_pile_up() -> None:
    loop = Loop("test")
    for _ in range(10_000):
        loop.later(3600, lambda: None).cancel()
    assert len(loop._timers) < 200


def test_while_nothing_runs_a_function_is_run_by_who_posts_it() -> None:
    loop = Loop("test")
    ready, ran = threading.Event(), list[str]()
    loop.start()
    loop.post(ready.set)
    assert ready.wait(10)
    wait_for("the loop rests", lambda: not loop._owned)
    loop.post(lambda: ran.append(threading.current_thread().name))
    assert ran == [threading.current_thread().name]
    loop.stop()


def test_of_many_threads_only_one_function_runs_at_a_time_and_each_thread_keeps_its_order() -> None:
    loop = Loop("test")
    inside: list[int] = []
    seen: list[tuple[int, int]] = []

    def act(thread: int, number: int) -> None:
        inside.append(thread)
        assert inside == [thread]
        seen.append((thread, number))
        inside.pop()

    def work(thread: int) -> None:
        for number in range(2000):
            loop.post(partial(act, thread, number))

    loop.start()
    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    loop.stop()
    for thread in range(4):
        assert [number for by, number in seen if by == thread] == list(range(2000))


def test_a_timer_that_another_thread_sets_is_not_slept_through() -> None:
    loop = Loop("test")
    loop.start()
    loop.post(lambda: None)
    wait_for("the loop rests", lambda: not loop._owned)
    late, soon = threading.Event(), threading.Event()
    loop.post(lambda: (loop.later(3600, late.set), loop.later(0.01, soon.set)))  # type: ignore[arg-type,return-value]
    assert soon.wait(10)
    assert not late.is_set()
    loop.stop()


def test_a_pause_comes_after_what_was_posted_and_is_asked_for_once() -> None:
    loop = Loop("test")
    order: list[str] = []

    def told() -> None:
        order.append("pause")

    def first() -> None:
        loop.at_pause(told)
        loop.post(second)

    def second() -> None:
        order.append("second")
        loop.at_pause(later)
        loop.at_pause(told)

    def later() -> None:
        order.append("later")

    loop.start()
    loop.post(first)
    loop.stop()
    assert order == ["second", "pause", "later"]


def test_what_was_posted_before_the_end_runs() -> None:
    loop = Loop("test")
    ran: list[int] = []
    for number in range(100):
        loop.post(partial(ran.append, number))
    loop.start()
    loop.stop()
    loop.post(lambda: ran.append(-1))
    assert ran == list(range(100))


def test_a_timer_runs_in_time_however_much_is_posted() -> None:
    loop = Loop("test")
    due = threading.Event()

    def again() -> None:
        if not due.is_set():
            loop.post(again)

    loop.post(again)
    loop.post(lambda: loop.later(0.01, due.set) and None)
    loop.start()
    assert due.wait(10)
    loop.stop()


def test_timers_that_are_asked_for_a_moment_too_early_are_asked_for_again() -> None:
    loop = Loop("test")
    waits, due = list[float](), threading.Event()

    class Impatient(SimpleQueue[bool]):
        """Its first wait for a timer ends before the time."""

        def get(self, block: bool = True, timeout: float | None = None) -> bool:
            if timeout is not None:
                waits.append(timeout)
                if len(waits) == 1:
                    raise Empty
            return super().get(block, timeout)

    loop._signals = Impatient()
    loop.start()
    loop.post(lambda: None)
    wait_for("the loop rests", lambda: not loop._owned)
    loop.post(lambda: (loop.later(0.3, due.set), None)[1])
    assert due.wait(5)
    assert len(waits) > 1
    loop.stop()
