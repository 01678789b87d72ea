"""Workflows on a simulated cluster: thousands of histories, each from a seed, with all that can go wrong."""

from liteflow.core.testing.simulation.cluster import Cluster
from liteflow.core.testing.simulation.faults import Fault, Faults
from liteflow.core.testing.simulation.history import History, Move, PromiseBroken
from liteflow.core.testing.simulation.producer import Producer
from liteflow.core.testing.simulation.simulate import Explored, explore, registry_of, simulate
from liteflow.core.testing.simulation.watch import Broken, Run

__all__ = [
    "Broken",
    "Cluster",
    "Explored",
    "Fault",
    "Faults",
    "History",
    "Move",
    "Producer",
    "PromiseBroken",
    "Run",
    "explore",
    "registry_of",
    "simulate",
]
