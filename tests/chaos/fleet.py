"""The servers and processes of a chaos run, each process with links of its own to each server."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pymongo
from chaos.faults import LEASE_TTL, PRODUCERS, REDIS, SCHEDULERS, SHIFTED, WORKERS
from chaos.history import FOLDER, SLOT
from chaos.proxy import Link, Proxy
from chaos.replicas import MongoReplicas
from servers import LocalServer, MongoServer, RabbitServer, RedisServer, wait_for

TESTS = Path(__file__).resolve().parent.parent
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
SHIFT = 30
"""Seconds by which the one process's clock is wrong."""

SHUTDOWN = 8.0


@dataclass
class Slot:
    """A place for one process at a time. `meant_to_run` tells that its end now would be its own doing."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    meant_to_run: bool = False
    starts: int = 0
    log: Path = Path()
    guard: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Exit:
    """A process that ended without being killed. `asked` by SIGTERM."""

    slot: str
    code: int
    mono: float
    asked: bool
    log: Path


class Fleet:
    """Everything that runs. `folder` takes logs and histories; servers have folders of their own."""

    def __init__(
        self, folder: Path, seed: int, pause: float, *, members: int = 1, db: Path | None = None
    ) -> None:
        self.folder = folder
        self.prefix = "chaos"
        self.proxy = Proxy()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="chaos-starter")
        self.random = random.Random(seed)
        self.mongo: MongoServer | MongoReplicas = (
            MongoServer(replica_set=True, data=db) if members == 1 else MongoReplicas(members, self.proxy)
        )
        self.rabbit = RabbitServer()
        self.redis = {name: RedisServer() for name in REDIS}
        self.servers: dict[str, LocalServer | MongoReplicas] = {
            "mongo": self.mongo, "rabbit": self.rabbit, **self.redis
        }  # fmt: skip
        self.links: dict[str, Link] = {}
        self.exits: list[Exit] = []
        self.slots: dict[str, Slot] = {}
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "LITEFLOW_PREFIX": self.prefix,
            "LITEFLOW_LEASE_TTL": str(LEASE_TTL),
            "LITEFLOW_POLL_INTERVAL": "1",
            "LITEFLOW_SHUTDOWN_TIMEOUT": str(SHUTDOWN),
            FOLDER: str(folder),
            "CHAOS_SEED": str(seed),
            "CHAOS_PAUSE": str(pause),
        }

    # ------------------------------------------------------------------------------------------ all of it

    def start(self) -> None:
        """Servers, then processes; returns when each has said that it is ready."""
        for name in self.servers:
            self.launch(name)
        for server in self.servers.values():
            server.wait()
        worker = [
            "-m", "liteflow.worker", "worker", "chaos.workflows", "--concurrency", "8",
        ]  # fmt: skip
        for name in WORKERS:
            self._add(name, worker)
        for name in SCHEDULERS:
            self._add(name, ["-m", "liteflow.worker", "scheduler"])
        self.ready(*WORKERS, *SCHEDULERS)
        for name in PRODUCERS:
            self._add(name, ["-m", "chaos.producer", "producer"])
        self._add("activities", ["-m", "chaos.producer", "activities"])
        self.ready(*self.slots)

    def _add(self, name: str, arguments: list[str]) -> None:
        for server in ("rabbit", *REDIS):
            local = self.servers[server]
            assert isinstance(local, LocalServer)
            self.links[f"{name}>{server}"] = self.proxy.link(local.port)
        port = {server: self.links[f"{name}>{server}"].port for server in ("rabbit", *REDIS)}
        if isinstance(self.mongo, MongoServer):
            link = self.links[f"{name}>mongo"] = self.proxy.link(self.mongo.port)
            store = f"mongodb://127.0.0.1:{link.port}/liteflow?directConnection=true"
        else:
            self.links[f"{name}>mongo"] = self.mongo.links[len(self.slots) % len(self.mongo.links)]
            store = self.mongo.url
        environment = {
            **self._environment,
            "LITEFLOW_STORE": store,
            "LITEFLOW_QUEUE": f"amqp://guest:guest@127.0.0.1:{port['rabbit']}/",
            "LITEFLOW_LOCK": ",".join(f"redis://127.0.0.1:{port[one]}/0" for one in REDIS),
            "LITEFLOW_HEALTH_FILE": str(self.folder / f"health-{name}"),
            SLOT: name,
        }
        self.slots[name] = Slot(name, arguments, environment)
        self.run(name)

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for slot in self.slots.values():
            slot.meant_to_run = False
            if slot.process is not None and slot.process.poll() is None:
                slot.process.kill()
                slot.process.wait()
        self.proxy.close()
        for server in self.servers.values():
            server.close()
        self._starter.shutdown()

    # ------------------------------------------------------------------------------------------ processes

    def run(self, name: str) -> None:
        """Start the process of a slot."""
        slot = self.slots[name]
        slot.starts += 1
        slot.log = self.folder / f"{name}-{slot.starts}.log"
        environment, arguments = dict(slot.environment), slot.arguments
        if name == SHIFTED and FAKETIME.exists():
            arguments = ["-m", "chaos.shifted", *arguments[2:]]
            environment["LD_PRELOAD"] = str(FAKETIME)
            environment["FAKETIME"] = f"{self.random.choice([-SHIFT, SHIFT]):+d}s"
            environment["FAKETIME_DONT_FAKE_MONOTONIC"] = environment["DONT_FAKE_MONOTONIC"] = "1"
        with slot.log.open("ab") as log:
            slot.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=TESTS,
                env=environment,
                start_new_session=True,
            )
        slot.meant_to_run = True

    def ready(self, *names: str) -> None:
        """Wait until these have said so."""
        for name in names:
            log = self.slots[name].log
            wait_for(f"{name} is ready", lambda log=log: "ready" in log.read_text(), 90)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process of a slot."""
        process = self.slots[name].process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def kill(self, name: str) -> None:
        """Kill the process of a slot, and return when it is gone."""
        slot = self.slots[name]
        slot.meant_to_run = False
        assert slot.process is not None
        slot.process.kill()
        slot.process.wait()

    def terminate(self, name: str, seconds: float = SHUTDOWN + 30) -> None:
        """Ask the process of a slot to end, and wait for it. One that does not in time is killed."""
        slot = self.slots[name]
        slot.meant_to_run = False
        assert slot.process is not None
        slot.process.terminate()
        try:
            code = slot.process.wait(seconds)
        except subprocess.TimeoutExpired:
            slot.process.kill()
            slot.process.wait()
            code = -999
        self.exits.append(Exit(name, code, time.monotonic(), True, slot.log))

    def revive(self) -> None:
        """Note the processes that have ended by themselves, and start them again, as a supervisor does."""
        for slot in self.slots.values():
            if not slot.guard.acquire(blocking=False):
                continue  # somebody is at it
            try:
                if slot.meant_to_run and slot.process is not None and slot.process.poll() is not None:
                    code = slot.process.returncode
                    self.exits.append(Exit(slot.name, code, time.monotonic(), False, slot.log))
                    self.run(slot.name)
            finally:
                slot.guard.release()

    # -------------------------------------------------------------------------------------------- servers

    def launch(self, name: str) -> None:
        """Start a server. It would die with the thread that starts it, so that is one which stays."""
        self._starter.submit(self.servers[name].launch).result()

    def links_to(self, server: str) -> Iterator[Link]:
        """The links of all processes to a server."""
        for name, link in self.links.items():
            if name.endswith(f">{server}"):
                yield link

    def store(self) -> pymongo.MongoClient[dict[str, object]]:
        """A client of the store, past the links: of its primary."""
        if isinstance(self.mongo, MongoServer):
            return pymongo.MongoClient("127.0.0.1", self.mongo.port, directConnection=True)
        return pymongo.MongoClient(self.mongo.url)
