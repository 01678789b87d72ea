"""Wake-ups that are sent while the instance that they are for is still being stored.

A message takes about as long through its queue as an instance into the store, so a lone start sends it first.
Whoever gets it before the instance can be seen looks again, for `PATIENCE`. Whoever sends it is done with
storing within `IN_TIME`, or sends another one after that: the last look is always later than the instance.
"""

from __future__ import annotations

PATIENCE = 1.0
"""Seconds after the first look for which an instance is looked for that was to be stored."""

IN_TIME = 0.3
"""Seconds that storing may take before the early wake-up is not relied on. Well below `PATIENCE`."""

FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.05
"""Seconds between two looks: half of what was waited already, within these bounds."""


def pause(waited: float) -> float | None:
    """Seconds until the next look, after `waited` seconds since the first; None when that was long enough."""
    return None if waited > PATIENCE else min(max(waited / 2, FIRST_PAUSE), LONGEST_PAUSE)
