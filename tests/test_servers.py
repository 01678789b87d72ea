"""The servers that the tests start end with the process that started them, however that ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servers import wait_for

TESTS = Path(__file__).resolve().parent
SCRIPT = """
import os, sys, time
import servers
kinds = [one for one in vars(servers).values() if getattr(one, "kind", None) == sys.argv[1]]
server = kinds[0]()
server.start()
print(server.folder, flush=True)
time.sleep(600)
"""


def running_in(folder: str) -> list[str]:
    """The command lines of processes that name this folder, or have it as theirs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().replace("\0", " ").strip()
            if command and (folder in command or (process / "cwd").readlink() == Path(folder)):
                found.append(command)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("kind", ["mongod", "rabbitmq", "redis", "azurite", "moto"])
def test_a_server_ends_with_the_process_that_started_it(kind: str) -> None:
    command = [sys.executable, "-c", SCRIPT, kind]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = process.stdout.readline().strip()
        assert running_in(folder)
        process.send_signal(signal.SIGKILL)
    wait_for(f"{kind} has ended", lambda: not running_in(folder), 20)
