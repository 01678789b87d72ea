"""Carries out a plan of faults, each in a thread of its own, and writes down what it did and when."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pymongo
from chaos.faults import SHIFTED, Fault
from chaos.fleet import FAKETIME, Fleet
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern
from servers import LocalServer, RedisServer

log = logging.getLogger("chaos")

STEP_DOWN = 4
"""Seconds for which a primary that was told to step down is not elected again."""


@dataclass(frozen=True)
class Disturbance:
    """A fault that was carried out, with its begin and end on the monotonic clock; or was skipped."""

    kind: str
    target: str
    since: float
    until: float
    skipped: bool = False


class Nemesis:
    """Hurts a fleet. `done` grows while it works."""

    def __init__(self, fleet: Fleet, faults: Sequence[Fault], disk: Path | None = None) -> None:
        self._fleet = fleet
        self._faults = faults
        self._disk = disk
        self.done: list[Disturbance] = []
        self.problems: list[str] = []
        self._busy: dict[str, threading.Lock] = {}
        self._threads: list[threading.Thread] = []
        self._ways: dict[str, Callable[[Fault], None]] = {
            "kill": self._kill,
            "term": self._term,
            "stop": self._stop,
            "cut": lambda fault: fleet.links[fault.target].cut(),
            "refuse": self._refuse,
            "stall": self._stall,
            "cut_all": self._cut_all,
            "restart_rabbit": self._restart,
            "empty_redis": self._empty_redis,
            "kill_redis": self._restart,
            "kill_two_redis": self._restart,
            "kill_mongo": self._restart,
            "step_down": self._step_down,
            "disk_full": self._disk_full,
        }

    def run(self, tick: Callable[[], None]) -> None:
        """Do all of it, and return when all is healed. `tick` is called some times a second."""
        began = time.monotonic()
        for fault in self._faults:
            while time.monotonic() < began + fault.at:
                tick()
                time.sleep(0.2)
            thread = threading.Thread(target=self._carry_out, args=(fault,), name=f"chaos-{fault.kind}")
            self._threads.append(thread)
            thread.start()
        while any(thread.is_alive() for thread in self._threads):
            tick()
            time.sleep(0.2)

    def _carry_out(self, fault: Fault) -> None:
        since = time.monotonic()
        with self._alone(fault) as may:
            if may:
                log.info("%s", fault)
                try:
                    self._ways[fault.kind](fault)
                except Exception as exc:
                    self.problems.append(f"{fault}: {type(exc).__name__}: {exc}")
                    log.exception("the nemesis failed: %s", fault)
        self.done.append(Disturbance(fault.kind, fault.target, since, time.monotonic(), not may))

    @contextmanager
    def _alone(self, fault: Fault) -> Iterator[bool]:
        """One fault at a time for each server, process and link; another one is skipped."""
        taken: list[threading.Lock] = []
        # A link that is in trouble may be cut, too; a server that is down is spared.
        names = fault.target.split("+") if fault.kind != "cut" else []
        try:
            for name in names:
                lock = self._busy.setdefault(name, threading.Lock())
                if not lock.acquire(blocking=False):
                    yield False
                    return
                taken.append(lock)
            yield True
        finally:
            for lock in taken:
                lock.release()

    # ------------------------------------------------------------------------------------------ processes

    def _kill(self, fault: Fault) -> None:
        with self._fleet.slots[fault.target].guard:
            self._fleet.kill(fault.target)
            time.sleep(fault.seconds)
            self._fleet.run(fault.target)

    def _term(self, fault: Fault) -> None:
        with self._fleet.slots[fault.target].guard:
            self._fleet.terminate(fault.target)
            time.sleep(fault.seconds)
            self._fleet.run(fault.target)

    def _stop(self, fault: Fault) -> None:
        self._fleet.signal(fault.target, signal.SIGSTOP)
        time.sleep(fault.seconds)
        self._fleet.signal(fault.target, signal.SIGCONT)

    # ---------------------------------------------------------------------------------------- connections

    def _refuse(self, fault: Fault) -> None:
        link = self._fleet.links[fault.target]
        link.refuse()
        time.sleep(fault.seconds)
        link.refuse(False)

    def _stall(self, fault: Fault) -> None:
        link = self._fleet.links[fault.target]
        link.stall()
        time.sleep(fault.seconds)
        link.stall(False)

    def _cut_all(self, fault: Fault) -> None:
        for link in self._fleet.links_to(fault.target):
            link.cut()

    # -------------------------------------------------------------------------------------------- servers

    def _restart(self, fault: Fault) -> None:
        names = fault.target.split("+")
        for name in names:
            self._fleet.servers[name].kill()
        time.sleep(fault.seconds)
        for name in names:
            self._fleet.launch(name)
        for name in names:
            self._fleet.servers[name].wait()

    def _empty_redis(self, fault: Fault) -> None:
        server = self._fleet.servers[fault.target]
        assert isinstance(server, RedisServer)
        server.kill()
        for path in server.folder.glob("appendonly*"):
            shutil.rmtree(path, ignore_errors=True)
        self._fleet.launch(fault.target)
        server.wait()

    def _step_down(self, fault: Fault) -> None:
        with self._fleet.store() as client, suppress(pymongo.errors.AutoReconnect):
            client.admin.command("replSetStepDown", STEP_DOWN, force=True)
        server = self._fleet.mongo
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(pymongo.errors.PyMongoError):
                if not isinstance(server, LocalServer):
                    if server.primary() is not None:
                        return
                elif server.probe():
                    return
            time.sleep(0.1)
        raise TimeoutError("no primary was elected within 60 s")

    def _disk_full(self, fault: Fault) -> None:
        """The store's file system is filled to the last byte; then there is room again.

        A mongod that can't write its journal ends itself, which may take it a moment longer than the disk was
        full. So it is started again unless it is able to write.
        """
        assert self._disk is not None
        ballast = self._disk / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
        time.sleep(fault.seconds)
        ballast.unlink(missing_ok=True)
        server = self._fleet.mongo
        assert isinstance(server, LocalServer)
        if not self._writes(server):
            server.kill()
            self._fleet.launch("mongo")
            server.wait()

    def _writes(self, server: LocalServer) -> bool:
        """True as soon as the store takes a write, False when its process has ended."""
        while server.processes[-1].poll() is None:
            with suppress(PyMongoError), self._fleet.store() as client:
                client["chaos"].with_options(write_concern=WriteConcern("majority", 2000, j=True))[
                    "room"
                ].insert_one({})
                return True
            time.sleep(0.1)
        return False


def missing() -> list[str]:
    """What this machine can't do to a fleet, in words."""
    return (
        [] if FAKETIME.exists() else [f"no clock of {SHIFTED} is wrong: Debian's faketime is not installed"]
    )
