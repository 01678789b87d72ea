"""One thread, a virtual clock, and whatever moves next: the scheduler of a simulation.

What is a thread in production is an actor here: a greenlet that runs until it comes to the next boundary,
where others may move first. Which one does is drawn from the seed, so a history depends on nothing else.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

BEGINNING = datetime(2026, 1, 1, tzinfo=timezone.utc)
"""The time at which every history begins."""

SECOND = 1_000_000
"""Microseconds, in which the virtual clock counts."""

STEP = 200
"""Microseconds that a move takes at most, besides what it waits for."""

SLOW = 0.05
"""How willingly an actor moves that is slow in this history."""


class Crashed(BaseException):
    """Ends whatever a node was doing when it died. Nothing of LiteFlow or of a user catches it."""


class Node:
    """One process, from its start to its death. Its successor is another node.

    Its monotonic clock begins anywhere, and its idea of the store's time is off by `skew` microseconds.
    """

    def __init__(self, world: World, name: str, skew: int = 0) -> None:
        self.world = world
        self.name = name
        self.skew = skew
        self.dead = False
        self.paused_until = 0
        self.stalled = False  # it was paused, or its calls failed: a lease may be gone for that
        self._offset = world.random.random() * 1e6
        self._midway: dict[Actor, None] = {}  # those that wait at a boundary

    def monotonic(self) -> float:
        """This process's own clock, in seconds."""
        return self.world.micros / SECOND + self._offset

    def local(self, micros: float) -> float:
        """A moment of the world on this process's clock."""
        return micros / SECOND + self._offset

    def now(self) -> datetime:
        """The store's time, as this process has measured it."""
        return BEGINNING + timedelta(microseconds=self.world.micros + self.skew)

    def actor(self, name: str, step: Callable[[], bool]) -> Actor:
        """Something that goes on by itself: `step` does one thing, and tells if there is more to do."""
        return Actor(self, name, step)


class Actor:
    """What one thread of a process is in production. `wake` it when there may be something to do."""

    __slots__ = ("_again", "_alarm", "_greenlet", "_queued", "_step", "_weight", "name", "node")

    def __init__(self, node: Node, name: str, step: Callable[[], bool]) -> None:
        self.node = node
        self.name = name
        self._step = step
        self._greenlet: Any = None  # while it is in the middle of a step
        self._queued = False
        self._again = False
        self._alarm: int | None = None
        world = node.world
        self._weight = SLOW if world.random.random() < world.sluggish else 1.0

    def wake(self) -> None:
        """Have it make a step."""
        if self._greenlet is not None:
            self._again = True
        elif not self._queued and not self.node.dead:
            self._queue()

    def wake_in(self, seconds: float) -> None:
        """Have it make a step then, at the latest."""
        at = self.node.world.micros + max(0, int(seconds * SECOND)) + 2
        if self._alarm is None or at < self._alarm:
            self._alarm = at
            self.node.world.at(at, self._alarmed)

    def _alarmed(self) -> None:
        if self._alarm is not None and self._alarm <= self.node.world.micros:
            self._alarm = None
            self.wake()

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self.node.world.ready.append(self)

    def move(self) -> None:
        """Go on to the next boundary. From the scheduler."""
        self._queued = False
        if self._greenlet is None:
            self._again = False
            self._greenlet = greenlet(self._run)
        self._switch(self._greenlet.switch)

    def end(self) -> None:
        """Its node is dead: what it was doing ends here."""
        if self._greenlet is not None:
            self._switch(partial(self._greenlet.throw, Crashed))

    def _switch(self, to: Callable[[], object]) -> None:
        world = self.node.world
        world.current = self
        to()
        world.current = None
        if self._greenlet.dead:
            self._greenlet = None
            if self._again and not self.node.dead:
                self._queue()

    def _run(self) -> None:
        try:
            if self._step():
                self._again = True
        except Crashed:
            self._again = False

    def wait(self, micros: int | None, *, counts: bool = True) -> None:
        """Let others move; go on after so many microseconds, or whenever it is drawn. From its step."""
        node = self.node
        world = node.world
        if micros is None:
            self._queue()
        else:
            world.at(world.micros + micros, self._queue)
        node._midway[self] = None
        world.midway += counts
        try:
            world.scheduler.switch()
        finally:
            world.midway -= counts
            node._midway.pop(self, None)
        if node.dead:
            raise Crashed


class World:
    """The clock, the actors that may move, and what comes later. `sluggish` is the share of slow actors."""

    def __init__(self, seed: object, sluggish: float = 0.0) -> None:
        self.seed = seed
        self.random = Random(f"liteflow:{seed}")
        self.sluggish = sluggish
        self.micros = 0
        self.moves = 0
        self.ready: list[Actor] = []
        self.midway = 0  # actors that are in the middle of something other than a body
        self.current: Actor | None = None
        self.scheduler = getcurrent()
        self.buried: Callable[[Node], None] = lambda node: None
        self._later: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._dying: list[Node] = []

    def at(self, micros: int, action: Callable[[], None]) -> None:
        """Do something small then."""
        heapq.heappush(self._later, (micros, next(self._count), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something small after a while."""
        self.at(self.micros + int(seconds * SECOND), action)

    def actor(self) -> Actor:
        """Who moves now."""
        assert self.current is not None, "this is done by an actor only"
        return self.current

    def pending(self) -> int | None:
        """Microseconds until something happens; None if nothing ever will."""
        self._due()
        if self.ready:
            return 0
        return self._later[0][0] - self.micros if self._later else None

    def skip(self, micros: int) -> None:
        """Nothing happens meanwhile."""
        self.micros += micros

    def move(self) -> None:
        """Have one of those move that are ready."""
        ready, draw = self.ready, self.random.random
        self.moves += 1
        for _ in range(4):
            index = int(draw() * len(ready))
            actor = ready[index]
            if actor._weight == 1.0 or draw() < actor._weight:
                break
        ready[index] = ready[-1]
        ready.pop()
        node = actor.node
        if node.dead:
            actor._queued = False
        elif node.paused_until > self.micros:
            actor._queued = False
            self.at(node.paused_until, actor._queue)
        else:
            self.micros += 1 + int(draw() * STEP)
            actor.move()
            if self._dying:
                self.bury_all()

    def kill(self, node: Node) -> None:
        """The process dies, now. What it was doing ends as soon as the one that moves has stopped."""
        if not node.dead:
            node.dead = True
            self._dying.append(node)

    def bury_all(self) -> None:
        """End what dead nodes were doing. From the scheduler."""
        while self._dying:
            node = self._dying.pop()
            for actor in list(node._midway):
                actor.end()
            self.buried(node)

    def _due(self) -> None:
        later = self._later
        while later and later[0][0] <= self.micros:
            heapq.heappop(later)[2]()
