"""Throw generated messages and stored documents at the gateway and the codec, in this process.

    python -m fuzz --messages 1000000 --seed 1

Each piece has a seed of its own, printed when something does not hold; `--only SEED` repeats that one.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import random
import sys
import time
from collections import Counter

from fuzz.targets import DocumentTarget, GatewayTarget, timed

SLOW = 1.0
"""Seconds that one message may take."""

WATCHED, HANGS = 1000, 120
"""So many pieces have to end within so many seconds, or the process ends with a traceback."""


def main() -> int:
    """Exit code 1 if something does not hold."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=100_000, help="half are messages, half documents")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--only", help="one piece again, by its seed")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    targets = (GatewayTarget(), DocumentTarget())
    seeds = (options.only,) if options.only else (f"{options.seed}:{n}" for n in range(options.messages))
    outcomes: Counter[str] = Counter()
    slowest, wrong, began = (0.0, ""), 0, time.monotonic()
    for done, seed in enumerate(seeds):
        target = targets[int(seed.rpartition(":")[2]) % 2]
        if done % WATCHED == 0:
            faulthandler.dump_traceback_later(HANGS, exit=True)
        try:
            outcome, seconds = timed(target, random.Random(seed))
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt):
                raise
            wrong += 1
            print(f"{target.name} {seed}: {type(exc).__name__}: {exc}"[:500], file=sys.stderr)
            if options.only:
                raise
            continue
        outcomes[f"{target.name}: {outcome}"] += 1
        slowest = max(slowest, (seconds, seed))
        if seconds > SLOW:
            wrong += 1
            print(f"{target.name} {seed}: took {seconds:.2f} s", file=sys.stderr)
    faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - began
    total = outcomes.total() + wrong
    for name, count in sorted(outcomes.items()):
        print(f"{count:>9,}  {name}")
    print(f"{total:,} in {seconds:.0f} s ({total / seconds:,.0f}/s), seed {options.seed}; "
          f"slowest {slowest[0] * 1000:.0f} ms ({slowest[1]}); {wrong} wrong")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
