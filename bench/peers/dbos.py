"""DBOS on PostgreSQL (Debian's, fsync on): workflows of ten steps, drained from its queue."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.harness import Env, rate, until
from bench.peers.environment import missing, python

APP = """
import sys, threading, uuid
from dbos import DBOS, DBOSConfig, Queue
DBOS(config=DBOSConfig(name="bench", system_database_url=sys.argv[1], run_admin_server=False))
queue = Queue("chains", concurrency=16, worker_concurrency=16, polling_interval_sec=0.05)

@DBOS.step()
def nothing():
    return None

@DBOS.workflow()
def chain():
    for _ in range(10):
        nothing()

if sys.argv[2] == "submit":
    DBOS.listen_queues([]) if hasattr(DBOS, "listen_queues") else None
    DBOS.launch()
    for _ in range(int(sys.argv[3])):
        queue.enqueue(chain)
    DBOS.destroy()
else:
    DBOS.launch()
    threading.Event().wait()
"""


def rates(env: Env, count: int) -> dict[str, float]:
    """Chains a second by number of worker processes."""
    interpreter = python(env, "dbos", "dbos", "psycopg[binary]")
    if interpreter is None:
        return {}
    found = {}
    for processes in (1, 2):
        value = _rate(env, interpreter, processes, count // 4)
        if value is not None:
            found[f"DBOS, {processes} process{'es' if processes > 1 else ''}"] = value
    return found


def _binary(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


def _rate(env: Env, interpreter: Path, processes: int, count: int) -> float | None:
    if _binary("initdb") is None:
        return missing("DBOS", "PostgreSQL is not installed (apt-get install postgresql)")
    with tempfile.TemporaryDirectory(prefix="liteflow-bench-pg-") as folder:
        os.chmod(folder, 0o777)
        port, data = 15432, f"{folder}/data"
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

        def pg(name: str, *arguments: str) -> None:
            command = [*as_user, str(_binary(name)), *arguments]
            subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=60)

        running: list[subprocess.Popen[bytes]] = []
        try:
            pg("initdb", "-D", data, "-U", "postgres", "-A", "trust")
            options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
            pg("pg_ctl", "-D", data, "-w", "-o", options, "-l", f"{folder}/log", "start")
            url = f"postgresql://postgres@127.0.0.1:{port}/bench"
            script = Path(folder) / "app.py"
            script.write_text(APP)
            command = [str(interpreter), str(script), url]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run([*command, "submit", str(count)], check=True, timeout=300, **quiet)
            running = [subprocess.Popen([*command, "work"], **quiet) for _ in range(processes)]

            def done() -> int:
                query = "select count(*) from dbos.workflow_status where status = 'SUCCESS'"
                psql = [str(_binary("psql")), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-At"]
                found = subprocess.run([*psql, "-c", query, "bench"], check=True, capture_output=True)
                return int(found.stdout)

            until(lambda: done() > 0, 60, 0.1)
            if done() >= count * 0.9:
                return missing("DBOS", "its submitter had done the work already")
            return rate(done, count)
        except (subprocess.SubprocessError, TimeoutError) as exc:
            return missing("DBOS", str(exc))
        finally:
            for process in running:
                process.kill()
                process.wait()
            subprocess.run(
                [*as_user, str(_binary("pg_ctl")), "-D", data, "-m", "immediate", "stop"],
                check=False, capture_output=True, cwd=folder,
            )  # fmt: skip
