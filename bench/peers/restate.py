"""Restate: its server from npm, a Python service with ten `ctx.run` steps.

It takes calls over HTTP and pushes them to the service, so there is no "drain": 32 calls at a time are made,
and the rate is from the first call to the last answer. The server is started anew for each measurement.
"""

from __future__ import annotations

import json
import platform
import tempfile
import urllib.request
from pathlib import Path

from bench.harness import Env, Figures, free_port, until
from bench.peers.environment import DIES_WITH_PARENT, Peer, PeerError, processes, python, version
from bench.processes import CommandError, kill, output, spawn

SERVICE = (
    DIES_WITH_PARENT
    + """
import restate
chain = restate.Service("chain")

async def nothing():
    return None

@chain.handler()
async def run(ctx: restate.Context, number: int) -> int:
    for step in range(10):
        await ctx.run_typed(f"step {step}", nothing)
    return number

app = restate.app([chain])
"""
)

SERVING = """
h2_max_concurrent_streams = 2147483647
keep_alive_max_requests = 2147483647
keep_alive_timeout = 2147483647
"""
"""What Restate's documentation says a service in production is to be served with."""

CLIENT = """
import asyncio, json, sys, time
PORT, COUNT, AT_ONCE = int(sys.argv[1]), int(sys.argv[2]), 32

async def caller(numbers):
    # By hand: the client's CPU time is not to be what is measured.
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    for number in numbers:
        body = json.dumps(number)
        writer.write(
            b"POST /chain/run HTTP/1.1\\r\\nhost: localhost\\r\\ncontent-type: application/json\\r\\n"
            + f"content-length: {len(body)}\\r\\n\\r\\n{body}".encode()
        )
        head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode().lower()
        assert head.startswith("http/1.1 200"), head
        length = next(line for line in head.splitlines() if line.startswith("content-length:"))
        assert json.loads(await reader.readexactly(int(length.partition(":")[2]))) == number
    writer.close()

async def main():
    await asyncio.gather(*(caller([n]) for n in range(AT_ONCE)))  # warm
    numbers = iter(range(COUNT))
    began = time.perf_counter()
    await asyncio.gather(*(caller(numbers) for _ in range(AT_ONCE)))
    print(json.dumps(COUNT / (time.perf_counter() - began)))

asyncio.run(main())
"""


def rates(env: Env, count: int) -> Figures:
    """Chains a second, with one and with two service processes."""
    interpreter = python(env, "restate", "restate_sdk[serde]", "hypercorn")
    server = _server(env)
    return {f"Restate, {processes(number)}": _rate(interpreter, server, number, count) for number in (1, 2)}


def _package() -> str:
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"@restatedev/restate-server-linux-{machine}"


def _server(env: Env) -> Path:
    folder = env.cache / "restate-server"
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "node_modules" / _package() / "bin" / "restate-server"
    if not binary.exists():
        try:
            output(["npm", "install", "--prefix", str(folder), _package()], folder=folder, seconds=600)
        except CommandError as exc:
            raise PeerError(f"its server can't be had from npm: {exc}") from exc
    return binary


def _version(env: Env) -> str:
    package = env.cache / "restate-server" / "node_modules" / _package() / "package.json"
    server = json.loads(package.read_text())["version"] if package.exists() else "none"
    return f"server {server}, {version(env, 'restate', 'restate_sdk', 'hypercorn')}"


def _rate(interpreter: Path, server: Path, number: int, count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="liteflow-bench-restate-") as name:
        folder = Path(name)
        (folder / "chain_service.py").write_text(SERVICE)
        (folder / "serving.toml").write_text(SERVING)
        serving, ingress, admin, node = (free_port() for _ in range(4))
        settings = {
            "RESTATE_BASE_DIR": f"{folder}/data",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        }
        hypercorn = [str(interpreter.parent / "hypercorn"), "chain_service:app", "--config", "serving.toml"]
        hypercorn += ["--workers", str(number), "--bind", f"127.0.0.1:{serving}"]
        log = folder / "log"
        running = []
        try:
            running.append(
                spawn([str(server), "--node-name", "bench"], folder=folder, environment=settings, log=log)
            )
            running.append(spawn(hypercorn, folder=folder, log=log))
            until(lambda: _register(admin, serving), 60, 0.2)
            client = [str(interpreter), "-c", CLIENT, str(ingress), str(count)]
            return float(json.loads(output(client, folder=folder)))
        except TimeoutError as exc:
            raise PeerError(f"it does not answer: {log.read_text(errors='replace')[-1000:]}") from exc
        finally:
            kill(running)


def _register(admin: int, serving: int) -> bool:
    body = json.dumps({"uri": f"http://127.0.0.1:{serving}"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin}/deployments", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status < 300)
    except OSError:
        return False


PEER = Peer("Restate", rates, _version)
