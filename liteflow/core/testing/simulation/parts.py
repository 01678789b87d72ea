"""The parts of a process that have threads in production, made of actors.

Each is the production class, with its thread taken out: what it does is the same, who does it and when is
the scheduler's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from liteflow.core.bodies import BodyRunner, Work
from liteflow.core.loop import Action, Loop, Timer
from liteflow.core.periodic import Periodic
from liteflow.core.runtime import Runtime
from liteflow.core.slots import Slots
from liteflow.core.stage import Stage
from liteflow.core.testing.simulation.world import SECOND, Node

T = TypeVar("T")
R = TypeVar("R")

BodyHook = Callable[[Node, Work, Callable[[Work], Any]], Any]
"""Runs a body; it may look before and after."""


class SimulatedLoop(Loop):
    """A loop that an actor runs, some functions at a time."""

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(name, node.monotonic)
        self._draw = node.world.random.random
        self._actor = node.actor("loop", self._step)

    def start(self) -> None:
        """Begin to run."""
        self._running = True
        self._actor.wake()

    def post(self, action: Action) -> None:
        """Run `action` later: here nobody runs it in passing."""
        self._mail.append(action)
        self._actor.wake()

    def hand_over(self, action: Action) -> None:
        """The same."""
        self.post(action)

    def later(self, seconds: float, action: Action) -> Timer:
        """Run `action` after a while of this process's clock."""
        timer = super().later(seconds, action)
        self._actor.wake_in(seconds)
        return timer

    def _step(self) -> bool:
        if not self._running:
            return False
        self._owner.acquire(blocking=False)  # it is still the owner if there was more than it ran last time
        more = not self._run(1 if self._draw() < 0.7 else 4)
        if self._next_timer != math.inf:
            self._actor.wake_in(self._next_timer - self._clock())
        return more


class SimulatedSlots(Slots):
    """Slots that actors are. A body takes no time, but its result comes after a while that is drawn."""

    def __init__(
        self, node: Node, count: int, bodies: BodyRunner, ended: Callable[[Any, Any], None], hook: BodyHook
    ) -> None:
        super().__init__(0, bodies, ended, node.monotonic)
        self._node = node
        self._hook = hook
        self._actors = [node.actor(f"slot-{number + 1}", self._step) for number in range(count)]

    def submit(self, job: Work, *, alone: bool = False) -> None:
        """Run a job as soon as a slot is free."""
        super().submit(job, alone=alone)
        self._wake(1)

    def _wake(self, count: int) -> None:
        for actor in self._actors:
            actor.wake()

    def _step(self) -> bool:
        if self._closed or not self._may_begin():
            return False
        job = self._take()
        outcome = self._hook(self._node, job, self._bodies.work)
        self._node.world.actor().wait(self._duration(), counts=False)
        self._running.discard(job)
        self._ended(job, outcome)
        self._over(job)
        return True

    def _duration(self) -> int:
        draw = self._node.world.random.random
        kind = draw()
        if kind < 0.75:
            most = 0.003
        elif kind < 0.92:
            most = 0.04
        elif kind < 0.985:
            most = 0.4
        else:
            most = 25.0
        return int(draw() * most * SECOND)


class SimulatedStage(Stage[T, R]):
    """A stage whose batches are cut anywhere."""

    def __init__(
        self,
        node: Node,
        name: str,
        call: Callable[[list[T]], Sequence[R]],
        post: Callable[[Callable[[], None]], None],
        most: int,
    ) -> None:
        super().__init__(name, call, post, inline=True, most=most)
        self._together = 1  # anything may come between two results
        self._draw = node.world.random.random
        self._actor = node.actor(name, self._step)

    def put(self, item: T, done: Callable[[R | Exception], Any]) -> None:
        """Hand in an item."""
        self._items.append((item, done))
        self._actor.wake()

    def _step(self) -> bool:
        if self._items:
            size = 1 + int(self._draw() * min(self._most, len(self._items)))
            self._handle([self._items.popleft() for _ in range(size)])
        return bool(self._items)


class SimulatedPeriodic(Periodic):
    """Something that an actor does again and again."""

    def __init__(self, node: Node, name: str, action: Callable[[], float]) -> None:
        super().__init__(name, action, clock=node.monotonic)
        self._actor = node.actor(name, self._step)

    def start(self) -> None:
        """Begin; the first call is made at once."""
        self.nudge()

    def nudge(self, seconds: float = 0.0) -> None:
        """Make the next call in at most so many seconds."""
        self._next = min(self._next, self._clock() + seconds)
        self._actor.wake_in(seconds)

    def _step(self) -> bool:
        left = self._next - self._clock()
        if left > 0:
            if left != math.inf:
                self._actor.wake_in(left)
            return False
        self._next = math.inf
        self.nudge(self._round())
        return False


class SimulatedRuntime(Runtime):
    """Makes the parts of one node."""

    spread = 1  # so that the few instances of a history come in bundles

    def __init__(self, node: Node, hook: BodyHook) -> None:
        self.monotonic = node.monotonic
        self._node = node
        self._hook = hook

    def loop(self, name: str) -> Loop:
        """See `SimulatedLoop`."""
        return SimulatedLoop(self._node, name)

    def slots(self, count: int, bodies: BodyRunner, ended: Callable[[Any, Any], None]) -> Slots:
        """See `SimulatedSlots`."""
        return SimulatedSlots(self._node, count, bodies, ended, self._hook)

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
        """See `SimulatedStage`. Nothing is inline, and no wake-up waits for a pause."""
        return SimulatedStage(self._node, name, call, post, most)

    def periodic(self, name: str, action: Callable[[], float]) -> Periodic:
        """See `SimulatedPeriodic`."""
        return SimulatedPeriodic(self._node, name, action)

    def together(self, call: Callable[[list[T]], Sequence[R]]) -> Callable[[T], R]:
        """Each call on its own: who comes while another one calls must not block the only thread."""
        return lambda item: call([item])[0]
