"""Passwords in URLs: in no log, no error, no traceback, no `--help`, no `repr`, whatever goes wrong."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers import free_port

from liteflow.core import Settings
from liteflow.core.errors import LiteFlowError
from liteflow.providers.rabbitmq import RabbitMQQueueProvider
from liteflow.worker.cli import main
from liteflow.worker.wiring import Servers

SECRET = "s3cret-W0rd"
DEAD = free_port()
"""A port where nobody listens."""

STORES = {
    "wrong password": "mongodb://user:{secret}@{mongo}/liteflow?authSource=admin",
    "wrong password in the query": (
        "mongodb://user:x@{mongo}/liteflow?authSource=admin"
        "&authMechanismProperties=AWS_SESSION_TOKEN:{secret}"
    ),
    "nobody there": "mongodb://user:{secret}@127.0.0.1:{dead}/liteflow?serverSelectionTimeoutMS=200",
    "not escaped": "mongodb://user:p@ss:{secret}@127.0.0.1/liteflow",
    "no port": "mongodb://user:{secret}@127.0.0.1:port/liteflow",
    "an unknown option": "mongodb://user:{secret}@127.0.0.1:{dead}/x?nonsense={secret}",
    "an impossible option": "mongodb://127.0.0.1:{dead}/x?connectTimeoutMS={secret}&authSource=a@b",
    "a key's password": (
        "mongodb://127.0.0.1:{dead}/x?tls=true&tlsCertificateKeyFile=/no/file"
        "&tlsCertificateKeyFilePassword={secret}"
    ),
    "no scheme": "user:{secret}@127.0.0.1/liteflow",
    "nothing but the secret": "{secret}",
    "another scheme": "mysql://user:{secret}@127.0.0.1/liteflow",
}
QUEUES = {
    "wrong password": "amqp://guest:{secret}@{amqp}/",
    "nobody there": "amqp://guest:{secret}@127.0.0.1:{dead}/",
    "no port": "amqp://guest:{secret}@127.0.0.1:port/",
    "not escaped": "amqp://guest:p@ss:{secret}@127.0.0.1:{dead}/",
    "an impossible option": "amqp://guest:{secret}@127.0.0.1:{dead}/?heartbeat={secret}",
    "a key's password": (
        "amqps://guest:{secret}@127.0.0.1:{dead}/?ssl_options={{'certfile':'/no/file','password':'{secret}'}}"
    ),
    "options that can't be read": (
        "amqps://guest:{secret}@127.0.0.1:{dead}/?ssl_options={{'password':'{secret}'"
    ),
    "a virtual host that is not there": "amqp://guest:guest@{amqp}/nowhere?x={secret}",
    "another scheme": "stomp://guest:{secret}@127.0.0.1/",
}
LOCKS = {
    "wrong password": "redis://user:{secret}@{redis}/0",
    "wrong password in the query": "redis://{redis}/0?username=user&password={secret}",
    "nobody there": "redis://user:{secret}@127.0.0.1:{dead}/0",
    "no port": "redis://user:{secret}@127.0.0.1:port/0",
    "not escaped": "redis://user:p@ss:{secret}@127.0.0.1:{dead}/0",
    "no number": "redis://user:{secret}@127.0.0.1:{dead}/{secret}",
    "one of three": "redis://{redis}/0,redis://user:{secret}@127.0.0.1:{dead}/0,redis://:{secret}@{redis}/0",
    "another scheme": "memcache://user:{secret}@127.0.0.1/",
}
CASES = [
    pytest.param(option, url, id=f"{option}: {what}")
    for option, urls in (("--store", STORES), ("--queue", QUEUES), ("--lock", LOCKS))
    for what, url in urls.items()
]


def address(url: str) -> str:
    """Host and port of a URL."""
    return url.partition("://")[2].rpartition("@")[2].partition("/")[0]


@pytest.fixture
def urls(mongo_url: str, amqp_url: str, redis_url: str) -> dict[str, str]:
    return {"--store": mongo_url, "--queue": amqp_url, "--lock": redis_url}


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All loggers at their lowest level, the drivers' too; and nobody waits long for what is not there."""
    defaults = RabbitMQQueueProvider.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "open_timeout", 1.0)
    names = ["liteflow", "pymongo", "pika", "redis", "asyncio"]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def filled(url: str, urls: dict[str, str]) -> str:
    addresses = {
        "mongo": address(urls["--store"]), "amqp": address(urls["--queue"]), "redis": address(urls["--lock"]),
    }  # fmt: skip
    return url.format(secret=SECRET, dead=DEAD, **addresses)


@pytest.mark.parametrize(("option", "url"), CASES)
@pytest.mark.parametrize("command", ["list", "start"])
def test_no_password_in_what_a_command_says(
    command: str,
    option: str,
    url: str,
    urls: dict[str, str],
    prefix: str,
    everything: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {**urls, option: filled(url, urls), "--prefix": prefix}
    words = [command, *(["nothing"] if command == "start" else [])]
    result = CliRunner().invoke(main, [*words, *(word for pair in options.items() for word in pair)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    records = "\n".join(f"{r.getMessage()} {r.exc_text or ''} {r.args}" for r in caplog.records)
    said = result.output + result.stderr + caplog.text + records
    assert SECRET not in said
    if result.exit_code:
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") <= 2, "one clear line"
    else:
        assert option == "--lock", "only a lock server that is away is waited for later"


@pytest.mark.parametrize(("option", "url"), CASES)
def test_no_password_in_errors_and_in_what_objects_say_of_themselves(
    option: str, url: str, urls: dict[str, str], prefix: str
) -> None:
    given = {**urls, option: filled(url, urls)}
    servers = Servers(given["--store"], given["--queue"], given["--lock"], prefix)
    assert SECRET not in repr(servers) + str(servers)
    try:
        host = servers.host(Settings())
    except LiteFlowError as exc:
        assert SECRET not in "".join(map(str, chain(exc)))
    else:
        for one in (host, host.persistence, host.queue, host.lock):
            assert SECRET not in repr(one) + str(one)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what a traceback shows of its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("command", ["", "worker", "scheduler", "start", "list", "show", "publish"])
def test_no_password_in_help(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, urls in (("STORE", STORES), ("QUEUE", QUEUES), ("LOCK", LOCKS)):
        url = urls["wrong password"].format(secret=SECRET, mongo="m", amqp="a", redis="r")
        monkeypatch.setenv(f"LITEFLOW_{name}", url)
    result = CliRunner().invoke(main, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert SECRET not in result.output


@pytest.mark.parametrize("broken", ["--store", "--queue", "--lock"])
@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_no_password_in_the_log_of_a_process(
    command: str, broken: str, urls: dict[str, str], prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "some_workflows.py").write_text(
        "from liteflow.core import *\n\n\nclass Some(Workflow):\n    def build(self, builder):\n"
        "        builder.then(lambda context: None)\n"
    )
    wrong = {"--store": STORES, "--queue": QUEUES, "--lock": LOCKS}[broken]["wrong password"]
    given = {**urls, broken: filled(wrong, urls)}
    environment = {
        **os.environ,
        "LITEFLOW_STORE": given["--store"],
        "LITEFLOW_QUEUE": given["--queue"],
        "LITEFLOW_LOCK": given["--lock"],
        "LITEFLOW_PREFIX": prefix,
        "LITEFLOW_LOG_LEVEL": "debug",
        "LITEFLOW_HEALTH_FILE": str(tmp_path / "health"),
    }
    arguments = [command, *(["some_workflows"] if command == "worker" else [])]
    ended = subprocess.run(
        [sys.executable, "-m", "liteflow.worker", *arguments],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert SECRET not in said
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("Error: ")]


def test_no_password_in_a_traceback(urls: dict[str, str], prefix: str, tmp_path: Path) -> None:
    """Also where a user's module fails with one."""
    (tmp_path / "broken.py").write_text("raise RuntimeError('the module is broken')\n")
    store = filled(STORES["wrong password"], urls)
    ended = subprocess.run(
        [sys.executable, "-m", "liteflow.worker", "worker", "broken"],
        env={**os.environ, "LITEFLOW_STORE": store, "LITEFLOW_LOG_LEVEL": "debug"},
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "the module is broken" in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
