"""What a process has of its machine: a clock, and what runs side by side in it.

Production has threads. A simulation has parts that one thread moves, one at a time and in an order that it
chooses; all that is built of them is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from liteflow.core.bodies import BodyRunner
from liteflow.core.loop import Loop
from liteflow.core.periodic import Periodic
from liteflow.core.slots import Slots
from liteflow.core.stage import Stage
from liteflow.core.together import Together

T = TypeVar("T")
R = TypeVar("R")


class Runtime:
    """Makes the parts of a process that have a thread, or make one wait. This one makes real ones."""

    monotonic: Callable[[], float] = staticmethod(time.monotonic)
    """The process's own clock, in seconds. It never goes backwards, and means nothing to others."""

    spread = 32
    """Many wake-ups for one queue are sent in so many messages at least (see `bundled`)."""

    def loop(self, name: str) -> Loop:
        """See `Loop`."""
        return Loop(name)

    def slots(self, count: int, bodies: BodyRunner, ended: Callable[[Any, Any], None]) -> Slots:
        """See `Slots`."""
        return Slots(count, bodies, ended)

    def stage(
        self,
        name: str,
        call: Callable[[list[T]], Sequence[R]],
        post: Callable[[Callable[[], None]], None],
        *,
        inline: bool = False,
        most: int = 64,
        at_pause: Callable[[Callable[[], None]], None] = lambda tell: tell(),
    ) -> Stage[T, R]:
        """See `Stage`."""
        return Stage(name, call, post, inline=inline, most=most, at_pause=at_pause)

    def periodic(self, name: str, action: Callable[[], float]) -> Periodic:
        """See `Periodic`."""
        return Periodic(name, action)

    def together(self, call: Callable[[list[T]], Sequence[R]]) -> Callable[[T], R]:
        """See `Together`."""
        return Together(call)


THREADS = Runtime()
"""The parts of a real process."""
