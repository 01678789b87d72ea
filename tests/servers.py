"""Real servers for tests: RabbitMQ, Redis, MongoDB, PostgreSQL, MariaDB; Azure's and AWS's emulators.

Each kind comes from the URL that the environment names (``LITEFLOW_TEST_AMQP``, ``_REDIS``, ``_MONGO``,
``_POSTGRES``, ``_MARIADB``, ``_AZURE``, ``_AWS``), else from a container where Docker answers and has or gets
the image (not the SQL servers and emulators), else as a process of this machine on a free loopback port, in a
folder of its own. Nothing outlives the test run: processes die with their parent, also when that is killed.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MONGOD = ROOT / ".cache" / "mongod" / "mongod"
AZURITE = ROOT / ".cache" / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ServerError(RuntimeError):
    """A server can't be had; says what to do."""


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Ask until the answer is true or `seconds` are over; exceptions count as not yet."""
    deadline = time.monotonic() + seconds
    problem: object = None
    while time.monotonic() < deadline:
        try:
            if answer := condition():
                return answer
        except Exception as exc:
            problem = exc
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}" + (f" ({problem})" if problem else ""))


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class LocalServer:
    """A server process that a test may stop, kill, pause and start again on the same port and data."""

    kind = ""
    owner: int | None = None
    """Who runs it, if not who runs the tests."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"liteflow-{self.kind}-"))
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """Where it is reached."""
        raise NotImplementedError

    def commands(self) -> list[list[str]]:
        """What to run; the last one is the server itself."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables for the processes."""
        return {}

    def probe(self) -> bool:
        """True when it answers."""
        raise NotImplementedError

    def start(self) -> LocalServer:
        """Start it, and return when it answers."""
        self.launch()
        self.wait()
        return self

    def wait(self) -> None:
        """Return when it answers. `ServerError` if it does not."""
        try:
            wait_for(f"{self.kind} answers", self._answers)
        except AssertionError as exc:
            tail = (self.folder / "log").read_text(errors="replace")[-2000:]
            self.kill()
            raise ServerError(f"{self.kind} did not start: {exc}\n{tail}") from exc

    def launch(self) -> None:
        """Start it, and return at once. It dies with the thread that calls this."""
        for command in self.commands():
            if not shutil.which(command[0]):
                raise ServerError(f"{command[0]} is missing; `make setup` gets it")
            with open(self.folder / "log", "ab") as log:
                self.processes.append(
                    subprocess.Popen(
                        command,
                        stdout=log,
                        stderr=log,
                        stdin=subprocess.DEVNULL,
                        cwd=self.folder,
                        user=self.owner,
                        env={**os.environ, **self.environment()},
                        preexec_fn=_die_with_parent,
                        start_new_session=True,
                    )
                )

    def _answers(self) -> bool:
        if self.processes[-1].poll() is not None:
            raise ServerError(f"{self.kind} has ended with {self.processes[-1].returncode}")
        return self.probe()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        for process in reversed(self.processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes = []

    def pause(self) -> None:
        """Make it hang; returns when it does."""
        pid = self.processes[-1].pid
        os.killpg(pid, signal.SIGSTOP)
        state = Path(f"/proc/{pid}/stat")
        wait_for("it has stopped", lambda: state.read_text().rpartition(")")[2].split()[0] == "T", 10)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self.processes[-1].pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class MongoServer(LocalServer):
    """A standalone mongod, or a replica set of one. `data` is where its files go, by default in `folder`."""

    kind = "mongod"

    def __init__(self, replica_set: bool = False, data: Path | None = None) -> None:
        super().__init__()
        self.replica_set = replica_set
        self.data = data or self.folder / "db"
        self.data.mkdir(exist_ok=True)

    @property
    def url(self) -> str:
        more = "?replicaSet=rs0" if self.replica_set else ""
        return f"mongodb://127.0.0.1:{self.port}/liteflow{more}"

    def commands(self) -> list[list[str]]:
        mongod = str(MONGOD) if MONGOD.exists() else "mongod"
        command = [mongod, "--dbpath", str(self.data), "--port", str(self.port)]
        command += ["--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "0.5", "--nounixsocket"]
        return [command + (["--replSet", "rs0"] if self.replica_set else [])]

    def probe(self) -> bool:
        import pymongo

        with pymongo.MongoClient(
            "127.0.0.1", self.port, serverSelectionTimeoutMS=500, directConnection=True
        ) as client:
            if self.replica_set:
                try:
                    client.admin.command("replSetGetStatus")
                except pymongo.errors.OperationFailure:
                    member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
                    client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
            return bool(client.admin.command("hello")["isWritablePrimary"])


class RedisServer(LocalServer):
    """A Redis master with an append-only file."""

    kind = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def commands(self) -> list[list[str]]:
        command = f"redis-server --port {self.port} --bind 127.0.0.1 --appendonly yes --dir {self.folder}"
        return [[*command.split(), "--save", ""]]

    def probe(self) -> bool:
        import redis

        with redis.Redis(port=self.port, socket_timeout=1) as client:
            return bool(client.ping())


class RabbitServer(LocalServer):
    """A RabbitMQ node, with a port mapper of its own, so that none is left behind."""

    kind = "rabbitmq"
    settings: dict[str, int] = {}
    """More of its settings, of those that need no quotes."""

    def __init__(self) -> None:
        super().__init__()
        self.mapper_port, self.dist_port = free_port(), free_port()
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"disk_free_limit.absolute = 50MB\nloopback_users = none\n"
        )
        more = ", ".join(f"{{{name}, {value}}}" for name, value in self.settings.items())
        (self.folder / "advanced.config").write_text(f"[{{rabbit, [{more}]}}].\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def commands(self) -> list[list[str]]:
        mapper = sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
        epmd = str(mapper[-1]) if mapper else "epmd"
        return [[epmd, "-port", str(self.mapper_port), "-address", "127.0.0.1"], [str(RABBITMQ)]]

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.mapper_port),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # So the script becomes the server; else it stays its parent, and the server outlives us.
            "RUNNING_UNDER_SYSTEMD": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
        }

    def probe(self) -> bool:
        import pika

        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()  # pika logs each failure
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.blocked_connection_timeout = 5
        with pika.BlockingConnection(parameters):
            return True


class UnprivilegedServer(LocalServer):
    """One that refuses to run as root: then it runs as a user of its own, as nobody if there is none."""

    user = ""

    def __init__(self) -> None:
        super().__init__()
        if os.geteuid() == 0:
            names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
            self.owner = names.get(self.user, names["nobody"])
            os.chown(self.folder, self.owner, -1)

    def make(self, command: list[str]) -> None:
        """Make its data, by a command that ends."""
        if not shutil.which(command[0]):
            raise ServerError(f"{command[0]} is missing; `make setup` gets it")
        done = subprocess.run(command, cwd=self.folder, user=self.owner, capture_output=True, text=True)
        if done.returncode:
            raise ServerError(f"{command[0]} failed: {done.stderr[-2000:]}")


class PostgresServer(UnprivilegedServer):
    """A PostgreSQL cluster of its own, with the database ``liteflow``."""

    kind = "postgres"
    user = "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://liteflow:liteflow@127.0.0.1:{self.port}/liteflow"

    @staticmethod
    def program(name: str) -> str:
        """Debian keeps them where no PATH leads."""
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: path.parts[4])
        return str(found[-1]) if found else name

    def commands(self) -> list[list[str]]:
        if not (self.folder / "db").exists():
            secret = self.folder / "password"
            secret.write_text("liteflow")
            secret.chmod(0o644)
            how = ["--auth=scram-sha-256", "--username=liteflow", f"--pwfile={secret}", "--encoding=UTF8"]
            self.make([self.program("initdb"), "-D", f"{self.folder}/db", *how, "--no-locale", "--no-sync"])
        server = [self.program("postgres"), "-D", f"{self.folder}/db", "-p", str(self.port)]
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
        return [server + [word for name, value in options.items() for word in ("-c", f"{name}={value}")]]

    def probe(self) -> bool:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="liteflow", password="liteflow", dbname="postgres",
            connect_timeout=2, autocommit=True,
        ) as connection:  # fmt: skip
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'liteflow'").fetchone():
                connection.execute("CREATE DATABASE liteflow")
        return True


class MariaServer(UnprivilegedServer):
    """A MariaDB server with data of its own and the database ``liteflow``."""

    kind = "mariadb"
    user = "mysql"

    @property
    def url(self) -> str:
        return f"mariadb://root@127.0.0.1:{self.port}/liteflow"

    def commands(self) -> list[list[str]]:
        data = self.folder / "db"
        # Two that are made at the same time lose temporary tables in a folder that they share.
        folders = [f"--datadir={data}", f"--tmpdir={self.folder}"]
        if not data.exists():
            how = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]
            self.make(["mariadb-install-db", *how, *folders])
        server = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        paths = [*folders, f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid"]
        network = [f"--port={self.port}", "--bind-address=127.0.0.1", "--max-connections=300"]
        return [[server, "--no-defaults", *paths, *network]]

    def probe(self) -> bool:
        import pymysql

        with pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", connect_timeout=2, read_timeout=5
        ) as connection:
            with connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE IF NOT EXISTS liteflow")
        return True


class AzuriteServer(LocalServer):
    """Azure Storage's emulator, in memory. Its URL is a connection string, as the portal gives one."""

    kind = "azurite"
    account = "liteflowtest"
    key = "bGl0ZWZsb3ctdGVzdHM="

    def __init__(self) -> None:
        super().__init__()
        self.queue_port, self.table_port = free_port(), free_port()

    @property
    def url(self) -> str:
        ends = {"Blob": self.port, "Queue": self.queue_port}
        hosts = [f"{name}Endpoint=http://127.0.0.1:{port}/{self.account}" for name, port in ends.items()]
        return ";".join([f"AccountName={self.account}", f"AccountKey={self.key}", *hosts])

    def commands(self) -> list[list[str]]:
        if not AZURITE.exists():
            raise ServerError("Azurite is missing; `make setup` gets it, with npm")
        ports = {"blob": self.port, "queue": self.queue_port, "table": self.table_port}
        where = [word for kind, port in ports.items() for word in (f"--{kind}Port", str(port))]
        # The drivers may be newer than the emulator, which would refuse them.
        how = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        return [["node", str(AZURITE), *where, *how]]

    def environment(self) -> dict[str, str]:
        return {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}

    def probe(self) -> bool:
        for port in (self.port, self.queue_port):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True


class MotoServer(LocalServer):
    """An emulator of AWS. With `strict` it asks for valid credentials, which it then has none of."""

    kind = "moto"

    def __init__(self, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def commands(self) -> list[list[str]]:
        return [[sys.executable, str(ROOT / "tests" / "moto_server.py"), str(self.port)]]

    def environment(self) -> dict[str, str]:
        return {"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if self.strict else {}

    def probe(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        return True


def docker_answers() -> bool:
    """True if containers can be used here."""
    if not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def container(image: str, port: int, command: str = "") -> Any:
    """A started container that publishes `port` on loopback, or None if the image can't be had."""
    # The side-car that would clean up is one more image to pull; `close` does it here.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
    have = subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0
    if not have:
        try:
            subprocess.run(["docker", "pull", "-q", image], capture_output=True, timeout=300, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
    from testcontainers.core.container import DockerContainer

    started = DockerContainer(image).with_exposed_ports(port)
    return (started.with_command(command) if command else started).start()


class Servers:
    """The servers that one test run shares, started when first asked for."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], None]] = []
        self._urls: dict[str, str] = {}
        self._docker: bool | None = None

    def mongo(self) -> str:
        """URL of a standalone MongoDB."""
        return self._get("mongo", "mongo:6", 27017, "mongodb://127.0.0.1:{}/liteflow", MongoServer)

    def mongo_replica(self) -> str:
        """URL of a MongoDB replica set, always a process of this machine."""
        if "replica" not in self._urls:
            self._urls["replica"] = self._local(MongoServer(replica_set=True))
        return self._urls["replica"]

    def amqp(self) -> str:
        """URL of a RabbitMQ."""
        image = "rabbitmq:3-management"
        return self._get("amqp", image, 5672, "amqp://guest:guest@127.0.0.1:{}/", RabbitServer)

    def redis(self) -> str:
        """URL of a Redis."""
        return self._get("redis", "redis:7", 6379, "redis://127.0.0.1:{}/0", RedisServer)

    def postgres(self) -> str:
        """URL of a PostgreSQL, always a process of this machine unless the environment names one."""
        return self._own("postgres", PostgresServer)

    def mariadb(self) -> str:
        """URL of a MariaDB, always a process of this machine unless the environment names one."""
        return self._own("mariadb", MariaServer)

    def azure(self) -> str:
        """Connection string of an Azurite, a process of this machine unless the environment names one."""
        return self._own("azure", AzuriteServer)

    def aws(self) -> str:
        """Endpoint of a moto server, a process of this machine unless the environment names one."""
        return self._own("aws", MotoServer)

    def _own(self, kind: str, local: Callable[[], LocalServer]) -> str:
        if kind not in self._urls:
            named = os.environ.get(f"LITEFLOW_TEST_{kind.upper()}")
            self._urls[kind] = named or self._local(local())
        return self._urls[kind]

    def redis_masters(self) -> list[str]:
        """URLs of three independent Redis masters, always processes of this machine."""
        return [self._urls.setdefault(f"r{n}", "") or self._master(f"r{n}") for n in range(3)]

    def _master(self, name: str) -> str:
        self._urls[name] = self._local(RedisServer())
        return self._urls[name]

    def _get(self, kind: str, image: str, port: int, url: str, local: Callable[[], LocalServer]) -> str:
        if kind not in self._urls:
            named = os.environ.get(f"LITEFLOW_TEST_{kind.upper()}")
            self._urls[kind] = named or self._contained(image, port, url) or self._local(local())
        return self._urls[kind]

    def _contained(self, image: str, port: int, url: str) -> str | None:
        if self._docker is None:
            self._docker = docker_answers()
        started = container(image, port) if self._docker else None
        if started is None:
            return None
        self._closers.append(started.stop)
        address = url.format(started.get_exposed_port(port))
        number = int(started.get_exposed_port(port))
        wait_for(f"{image} answers", lambda: _answers(local_probe(image, number)))
        return address

    def _local(self, server: LocalServer) -> str:
        self._closers.append(server.close)
        return server.start().url

    def close(self) -> None:
        """End all of them."""
        while self._closers:
            self._closers.pop()()


def local_probe(image: str, port: int) -> LocalServer:
    """What asks a server of an image's kind whether it answers."""
    kind = {"mongo": MongoServer, "redis": RedisServer}.get(image.partition(":")[0], RabbitServer)
    probe = kind.__new__(kind)
    probe.port = port
    if isinstance(probe, MongoServer):
        probe.replica_set = False
    return probe


def _answers(probe: LocalServer) -> bool:
    return probe.probe()
