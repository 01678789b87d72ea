"""Processes that never outlive the benchmark, and what they cost: CPU time and memory."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

Process = subprocess.Popen[bytes]


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    log: Path | None = None,
    piped: bool = False,
) -> Process:
    """Start a process in a session of its own, which the kernel ends when this process ends.

    `environment` is added to what there is, `user` is who runs it, `log` takes its output, which else goes
    where ours goes. `piped`: its standard output can be read.
    """
    # Only the main thread may call this: the kernel's promise is bound to the thread that starts the child.
    output: int | None = subprocess.PIPE if piped else None
    errors: int | None = None
    opened = None
    if log is not None:
        opened = log.open("ab")
        output = errors = opened.fileno()
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    finally:
        if opened is not None:
            opened.close()


class CommandError(RuntimeError):
    """A command has failed or took too long; says what it wrote last."""


def output(command: Sequence[str], *, folder: Path, seconds: float = 300, user: str | None = None) -> str:
    """What a command prints. `CommandError` if it fails."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
            preexec_fn=_die_with_parent,
        ).stdout
    except FileNotFoundError as exc:
        raise CommandError(f"{command[0]} is not installed") from exc
    except subprocess.TimeoutExpired as exc:
        raise CommandError(f"{command[0]} took more than {seconds:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        raise CommandError(f"{command[0]} failed: {exc.stderr[-1000:].strip()}") from exc


def kill(processes: Sequence[Process]) -> None:
    """End processes and their children at once."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that the processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident(pids: Sequence[int]) -> float:
    """Resident memory of the processes in MB."""
    found = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return sum(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) for status in found) / 1024


def listening(ports: Sequence[int]) -> list[int]:
    """The process ids of those who listen on these TCP ports of this machine."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) in ports:
                inodes.add(f"socket:[{fields[9]}]")
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if any(os.readlink(link) in inodes for link in Path(f"/proc/{name}/fd").iterdir()):
                found.append(int(name))
    return found
