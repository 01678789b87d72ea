"""How many instances a process takes in hand at a time.

More than it has slots: while one instance's step is stored another one's body can run, and the more are
stored together the less each of them costs. But who takes more than it can run keeps it from others.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PER_SLOT = 8
"""Instances for each slot beyond the first. With a single slot there is one at a time, as its user wants."""

WAIT = 0.02
"""Seconds that a body may wait for those before it, if they are short."""

RECENT = 16
"""So many bodies make the mean of what they take."""

CROWDED_FOR = 10.0
"""Seconds of one instance for each slot, after a body has waited for one. Doubles each time."""

CROWDED_AT_MOST = 640.0
"""Seconds; the end of the doubling."""


class Room:
    """`changed` is called with the number of instances when it changes. For the runner's loop only."""

    def __init__(
        self, slots: int, changed: Callable[[int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = slots
        self._changed = changed
        self._clock = clock
        self._free = slots
        self._body = WAIT  # seconds that bodies took lately; not known
        self._crowded_for = CROWDED_FOR
        self._crowded_until: float | None = None
        self._told = self.instances

    @property
    def instances(self) -> int:
        """So many may be in hand."""
        if self._free <= 1 or self._crowded_until is not None:
            return self._free
        return 1 + PER_SLOT * (self._free - 1)

    @property
    def narrow(self) -> bool:
        """True while long steps hold slots: what is not begun is others' then."""
        return self._free < self._slots

    def long_steps(self, count: int) -> None:
        """So many slots are held by long steps."""
        self._free = max(0, self._slots - count)
        self._tell()

    def body_took(self, seconds: float) -> None:
        """A body has ended. From any thread: what of it gets lost in a race does not matter."""
        self._body += (seconds - self._body) / RECENT

    @property
    def bodies_are_short(self) -> bool:
        """True if what is in hand can't wait for bodies of others, but for this process's CPU only."""
        return not self.narrow and self._body * (PER_SLOT + 1) < WAIT

    def crowded(self) -> None:
        """A body has waited for a slot for longer than a short one takes."""
        if self._crowded_until is None:
            self._crowded_until = self._clock() + self._crowded_for
            self._crowded_for = min(2 * self._crowded_for, CROWDED_AT_MOST)
            self._tell()

    def look(self) -> None:
        """Is it time to try with more again? To be called now and then."""
        now = self._clock()
        if self._crowded_until is not None and now >= self._crowded_until:
            self._crowded_until = None
            self._tell()

    def _tell(self) -> None:
        # A new limit is a new subscription for some queues: in steps, on the way down from the full number.
        wanted = self.instances
        if self._free < self._slots and wanted > 0:
            wanted = 1 << (wanted.bit_length() - 1)
        if wanted != self._told:
            self._told = wanted
            self._changed(wanted)
