"""Other engines on the same workload, each in an environment of its own, when asked for with ``--peers``."""

from __future__ import annotations

from bench.harness import Env
from bench.peers import dbos, restate


def chain_rates(env: Env, count: int) -> dict[str, float]:
    """W1 of the peers that were asked for and can be had here."""
    found: dict[str, float] = {}
    if "restate" in env.peers:
        found |= restate.rates(env, count)
    if "dbos" in env.peers:
        found |= dbos.rates(env, count)
    return found
