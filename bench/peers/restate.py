"""Restate: its server from npm, a Python service with ten `ctx.run` steps.

It takes calls over HTTP and pushes them to the service, so there is no "drain": 32 calls at a time are made,
and the rate is from the first call to the last answer. The server is started anew for each measurement.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from bench.harness import Env, until
from bench.peers.environment import missing, python

SERVICE = """
import restate
chain = restate.Service("chain")

@chain.handler()
async def run(ctx: restate.Context, number: int) -> int:
    for step in range(10):
        await ctx.run(f"step {step}", lambda: None)
    return number

app = restate.app([chain])
"""

CLIENT = """
import asyncio, json, sys, time
import httpx

async def main(port, count):
    gate = asyncio.Semaphore(32)
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=32)) as client:
        async def call(number):
            async with gate:
                (await client.post(f"http://127.0.0.1:{port}/chain/run", json=number)).raise_for_status()
        await asyncio.gather(*(call(number) for number in range(32)))
        began = time.perf_counter()
        await asyncio.gather(*(call(number) for number in range(count)))
        print(json.dumps(count / (time.perf_counter() - began)))

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""
SERVICE_PORT, INGRESS_PORT, ADMIN_PORT = 19080, 18080, 19070


def rates(env: Env, count: int) -> dict[str, float]:
    """Chains a second, with one and with two service processes."""
    interpreter = python(env, "restate", "restate_sdk", "hypercorn", "httpx")
    server = _server(env)
    if interpreter is None or server is None:
        return {}
    found = {}
    for processes in (1, 2):
        rate = _rate(env, interpreter, server, processes, count)
        if rate is not None:
            found[f"Restate, {processes} process{'es' if processes > 1 else ''}"] = rate
    return found


def _server(env: Env) -> Path | None:
    folder = env.cache / "restate-server"
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "x64")
    name = f"@restatedev/restate-server-linux-{machine}"
    binary = folder / "node_modules" / name / "bin" / "restate-server"
    if not binary.exists():
        try:
            subprocess.run(["npm", "install", "--silent", name], cwd=folder, check=True, timeout=300)
        except (subprocess.SubprocessError, OSError) as exc:
            missing("Restate", f"its server can't be had from npm: {exc}")
            return None
    return binary


def _rate(env: Env, interpreter: Path, server: Path, processes: int, count: int) -> float | None:
    with tempfile.TemporaryDirectory(prefix="liteflow-bench-restate-") as folder:
        (Path(folder) / "chain_service.py").write_text(SERVICE)
        settings = {
            "RESTATE_BASE_DIR": f"{folder}/data",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{INGRESS_PORT}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{ADMIN_PORT}",
            "RESTATE_BIND_ADDRESS": "127.0.0.1:15122",
        }
        bind = ["--bind", f"127.0.0.1:{SERVICE_PORT}", "--workers", str(processes)]
        service = [str(interpreter.parent / "hypercorn"), "chain_service:app", *bind]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        running = [
            subprocess.Popen([str(server), "--node-name", "bench"], env={**os.environ, **settings}, **quiet),
            subprocess.Popen(service, start_new_session=True, **quiet),
        ]
        try:
            until(_register, 60, 0.2)
            command = [str(interpreter), "-c", CLIENT, str(INGRESS_PORT), str(count)]
            done = subprocess.run(command, check=True, capture_output=True, timeout=300)
            return float(json.loads(done.stdout))
        except (subprocess.SubprocessError, TimeoutError) as exc:
            missing("Restate", str(exc))
            return None
        finally:
            running[0].kill()
            subprocess.run(["pkill", "-KILL", "-s", str(running[1].pid)], check=False)
            for process in running:
                process.wait()


def _register() -> bool:
    body = json.dumps({"uri": f"http://127.0.0.1:{SERVICE_PORT}"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{ADMIN_PORT}/deployments", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status < 300)
    except OSError:
        return False
