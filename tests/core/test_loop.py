from __future__ import annotations

import gc
import threading
import weakref

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
