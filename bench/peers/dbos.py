"""DBOS on PostgreSQL (fsync on): workflows of ten steps, drained from its queue.

A quarter of the instances, since it takes longest; the rate is from the first step to the last end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Env, Figures, free_port, rate, until
from bench.peers.environment import Peer, PeerError, processes, python, version
from bench.processes import CommandError, kill, output, spawn

APP = """
import sys, threading
from dbos import DBOS, DBOSClient, Queue

URL = sys.argv[1]
if sys.argv[2] == "submit":
    client = DBOSClient(system_database_url=URL)
    for _ in range(int(sys.argv[3])):
        client.enqueue({"queue_name": "chains", "workflow_name": "chain"})
    client.destroy()
    sys.exit()

DBOS(config={"name": "bench", "system_database_url": URL, "run_admin_server": False, "log_level": "ERROR"})
queue = Queue("chains", worker_concurrency=16, polling_interval_sec=0.05)

@DBOS.step()
def nothing():
    return None

@DBOS.workflow(name="chain")
def chain():
    for _ in range(10):
        nothing()

DBOS.launch()
if sys.argv[2] == "prepare":
    DBOS.destroy()
else:
    threading.Event().wait()
"""


def rates(env: Env, count: int) -> Figures:
    """Chains a second by number of worker processes."""
    if _binary("initdb") is None:
        raise PeerError("PostgreSQL is not installed (apt-get install postgresql)")
    interpreter = python(env, "dbos", "dbos", "psycopg[binary]")
    return {f"DBOS, {processes(number)}": _rate(interpreter, number, max(count // 4, 1)) for number in (1, 2)}


@dataclass(frozen=True)
class Postgres:
    """A server of our own."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/bench"

    def ask(self, query: str, database: str = "bench") -> str:
        """What psql prints for a query."""
        command = [str(_binary("psql")), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-At"]
        return output([*command, "-c", query, database], folder=self.folder).strip()

    def answers(self) -> bool:
        """True when it takes connections."""
        try:
            return self.ask("select 1", "postgres") == "1"
        except CommandError:
            return False


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL as it comes, which syncs each commit, run by an unprivileged user."""
    with tempfile.TemporaryDirectory(prefix="liteflow-bench-pg-") as name:
        folder = Path(name)
        folder.chmod(0o777)  # the server's user makes its folder in it
        user = "postgres" if os.geteuid() == 0 else None
        server = Postgres(folder, free_port())
        data = f"{folder}/data"
        initdb = [str(_binary("initdb")), "-D", data, "-U", "postgres", "-A", "trust"]
        output(initdb, folder=folder, user=user)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        command = [str(_binary("postgres")), "-D", data, "-p", str(server.port), *options]
        (folder / "log").touch()
        running = spawn(command, folder=folder, user=user, log=folder / "log")
        try:
            until(server.answers, 60, 0.1)
            server.ask("create database bench", "postgres")
            yield server
        finally:
            kill([running])


def _binary(name: str) -> Path | None:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(places[-1]) if places else shutil.which(name)
    return None if found is None else Path(found)


def _version(env: Env) -> str:
    server = (
        output([str(_binary("postgres")), "--version"], folder=Path("/")).strip()
        if _binary("postgres")
        else ""
    )
    return f"{server}, {version(env, 'dbos', 'dbos', 'psycopg')}"


def _rate(interpreter: Path, number: int, count: int) -> float:
    with postgres() as server:
        script = server.folder / "app.py"
        script.write_text(APP)
        command = [str(interpreter), str(script), server.url]
        output([*command, "prepare"], folder=server.folder)
        output([*command, "submit", str(count)], folder=server.folder)

        def moved() -> bool:
            return server.ask("select exists (select 1 from dbos.operation_outputs)") == "t"

        def ended() -> int:
            return int(server.ask("select count(*) from dbos.workflow_status where status = 'SUCCESS'"))

        log = server.folder / "app.log"
        running = [spawn([*command, "work"], folder=server.folder, log=log) for _ in range(number)]
        try:
            return rate(moved, ended, count)
        except TimeoutError as exc:
            raise PeerError(f"{exc}: {log.read_text(errors='replace')[-1000:]}") from exc
        finally:
            kill(running)


PEER = Peer("DBOS", rates, _version)
