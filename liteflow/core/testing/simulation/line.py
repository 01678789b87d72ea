"""A node's way to its providers: every call has a boundary before and after it, where things go wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from liteflow.core.errors import ProviderError
from liteflow.core.testing.simulation.faults import Drawer, Fault
from liteflow.core.testing.simulation.world import SECOND, Crashed, Node

R = TypeVar("R")

Told = Callable[[Node, str, str], None]
"""Hears of each move: the node, the call, and what happened there."""

PROMPT = 0.5
"""The share of boundaries where nobody else moves first."""


class Line:
    """`call` makes a call the way a node makes it: late, in vain, without an answer, or as its last one."""

    def __init__(
        self, node: Node, faults: Drawer, told: Told, forget: Callable[[], None], lease_ttl: float
    ) -> None:
        self.node = node
        self.faults = faults
        self._told = told
        self._forget = forget
        self._lease_ttl = lease_ttl

    def call(self, name: str, error: type[ProviderError], function: Callable[..., R], *arguments: Any) -> R:
        """Make a call; raises `error` if it fails or its answer gets lost."""
        fault = self.boundary(name, before=True)
        if fault is Fault.FAILURE:
            self.node.stalled = True
            raise error(f"{name}: nobody answers")
        result = function(*arguments)
        if self.boundary(name, before=False) is Fault.LOST_REPLY:
            self.node.stalled = True
            raise error(f"{name}: the answer got lost")
        return result

    def boundary(self, name: str, *, before: bool) -> Fault | None:
        """Others may move first, and something may go wrong."""
        node = self.node
        world = node.world
        if node.dead:
            raise Crashed
        fault = self.faults.draw(name, before)
        if before or fault is not None:
            self._told(node, name, fault.value if fault is not None else "")
        draw = world.random.random
        if fault is None:
            if draw() > PROMPT:
                world.actor().wait(None)
            return None
        if fault is Fault.CRASH:
            world.kill(node)
            raise Crashed
        if fault is Fault.PAUSE:
            node.stalled = True
            length = draw() * self._lease_ttl * (0.3 if draw() < 0.3 else 2.5)
            node.paused_until = world.micros + int(length * SECOND)
            world.actor().wait(None)
        elif fault is Fault.DELAY:
            world.actor().wait(int(draw() * self.faults.patience * SECOND))
        elif fault is Fault.FORGOTTEN:
            self._forget()
        return fault

    def silent(self, name: str, function: Callable[[], object], undone: Callable[[], object]) -> None:
        """Make a call that never raises. If it fails, `undone` is what happens instead."""
        fault = self.boundary(name, before=True)
        (undone if fault is Fault.FAILURE else function)()
        with contextlib.suppress(ProviderError):
            self.boundary(name, before=False)
