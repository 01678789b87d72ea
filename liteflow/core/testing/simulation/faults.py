"""What goes wrong in a history, and how often."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from random import Random


class Fault(enum.Enum):
    """What may happen at the boundaries of a call to a provider."""

    CRASH = "crash"
    """The node dies: its memory is gone, its leases stay until they run out, its messages come back."""
    FAILURE = "failure"
    """The call does not get through, and raises."""
    LOST_REPLY = "lost reply"
    """The call has done its work, and raises."""
    PAUSE = "pause"
    """The node stands still, often for longer than its leases last."""
    CONFLICT = "conflict"
    """The store refuses a commit, although nothing speaks against it."""
    FORGOTTEN = "leases forgotten"
    """The lock server starts anew and knows of no lease."""
    LOST_BROADCAST = "lost broadcast"
    """A nudge reaches nobody."""
    DUPLICATE = "duplicate"
    """A message is stored twice."""
    DELAY = "delay"
    """The call, or the message, takes its time."""


HARMLESS = frozenset([Fault.DUPLICATE, Fault.DELAY])
"""These excuse nothing: with no others in a history nothing may run twice, and nothing may be late."""

_ANYWHERE = (Fault.CRASH, Fault.PAUSE, Fault.DELAY, Fault.FORGOTTEN)

_BEFORE = {
    "commit": (*_ANYWHERE, Fault.FAILURE, Fault.CONFLICT),
    "send": (*_ANYWHERE, Fault.FAILURE, Fault.DUPLICATE),
    "notify": (*_ANYWHERE, Fault.LOST_BROADCAST),
}
_AFTER = {"notify": _ANYWHERE, "nack": _ANYWHERE}


@dataclass(frozen=True)
class Faults:
    """What may go wrong in a history. `kinds` of which each history draws some, `most` so many in one.

    `rate` is the chance of one at each boundary of a call, `patience` the seconds that a delay lasts at most;
    None draws them. After `ceases` virtual seconds nothing goes wrong any more; then all that was accepted
    has to get to its end.
    """

    kinds: tuple[Fault, ...] = tuple(Fault)
    most: int = 8
    rate: float | None = None
    patience: float | None = None
    ceases: float = 30.0


class Drawer:
    """Draws the faults of one history."""

    def __init__(self, faults: Faults, random: Random) -> None:
        self._random = random
        self._kinds = frozenset(kind for kind in faults.kinds if random.random() < 0.6)
        self._left = random.choice([0, 1, 2, 3, 5, 8, 16]) if faults.most else 0
        self._left = min(self._left, faults.most)
        self._rate = faults.rate if faults.rate is not None else random.choice([0.003, 0.01, 0.03, 0.1])
        self.patience = faults.patience or random.choice([0.02, 0.02, 0.2, 2.0])
        """Seconds that a delay lasts at most."""
        self.ceased = False
        """True if nothing goes wrong any more."""
        self.happened: Counter[Fault] = Counter()

    @property
    def gentle(self) -> bool:
        """True if too little can go wrong to take an innocent step for poison after three deaths.

        A takeover between the sending of a wake-up and the note that it was sent counts as a death, too.
        """
        return self._left < 2

    @property
    def excuse(self) -> bool:
        """True once something has happened that may make a step run twice, or something late."""
        return any(kind not in HARMLESS for kind in self.happened)

    def draw(self, call: str, before: bool) -> Fault | None:
        """What goes wrong at this boundary, if anything."""
        if self.ceased or self._random.random() >= self._rate:
            return None
        if before:
            possible = _BEFORE.get(call, (*_ANYWHERE, Fault.FAILURE))
        else:
            possible = _AFTER.get(call, (*_ANYWHERE, Fault.LOST_REPLY))
        kinds = [kind for kind in possible if kind in self._kinds and (self._left or kind in HARMLESS)]
        if not kinds:
            return None
        fault = self._random.choice(kinds)
        self.happened[fault] += 1
        if fault not in HARMLESS:
            self._left -= 1
        return fault
