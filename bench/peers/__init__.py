"""Other engines on the same workload, each in an environment of its own, when asked for with ``--peers``."""

from __future__ import annotations

from collections.abc import Callable

from bench.harness import Env, Figures
from bench.peers import celery, dbos, dramatiq, original, restate
from bench.peers.environment import Peer, PeerError
from bench.processes import CommandError

PEERS: dict[str, Peer] = {
    "restate": restate.PEER,
    "dbos": dbos.PEER,
    "celery": celery.PEER,
    "dramatiq": dramatiq.PEER,
    "original": original.PEER,
}
TITLES = tuple(peer.title for peer in PEERS.values())
"""So begin the names of the peers' series."""


def chain_rates(env: Env, count: int) -> Figures:
    """W1 of the peers that were asked for and can be had here."""
    found: Figures = {}
    for name in PEERS:
        if name in env.peers and name != "original":  # which only has a memory store worth the name
            found |= rates(name, env, count)
    return found


def rates(name: str, env: Env, count: int) -> Figures:
    """Chains a second of a peer. If it can't be had here nothing, and a word why."""
    return had(name, lambda: PEERS[name].rates(env, count))


def had(name: str, measured: Callable[[], Figures]) -> Figures:
    """What was measured of a peer. If it can't be had here nothing, and a word why."""
    try:
        return measured()
    except (PeerError, CommandError, TimeoutError) as exc:
        print(f"  {PEERS[name].title} is left out: {exc}", flush=True)
        return {}


def versions(env: Env) -> dict[str, str]:
    """What the peers are that were asked for and could be had."""
    return {peer.title: peer.version(env) for name, peer in PEERS.items() if name in env.peers}
