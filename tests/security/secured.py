"""Servers as SECURITY.md configures them: TLS, passwords, and users who may do what they have to."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pika
import pymongo
import redis
from servers import MongoServer, RabbitServer, RedisServer, free_port

PASSWORD = "pass"


class Certificates:
    """An authority of its own, and a certificate for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "ca.pem"
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.both = folder / "both.pem"
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        quick = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        for command in (
            f"req -x509 {quick} -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem",
            f"req {quick} -subj /CN=127.0.0.1 -keyout key.pem -out request.pem",
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names"
            " -out cert.pem",
        ):
            subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
        self.both.write_text(self.certificate.read_text() + self.key.read_text())
        self.key.chmod(0o644)  # a server may run as another user


class SecuredMongo(MongoServer):
    """Wants users, and TLS."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates
        self.options = f"tls=true&tlsCAFile={certificates.authority}&authSource=liteflow"

    def commands(self) -> list[list[str]]:
        (command,) = super().commands()
        tls = ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(self.certificates.both)]
        tls += ["--tlsCAFile", str(self.certificates.authority), "--tlsAllowConnectionsWithoutCertificates"]
        return [[*command, "--auth", *tls]]

    def client(self, **more: Any) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(
            "127.0.0.1", self.port, tls=True, tlsCAFile=str(self.certificates.authority),
            serverSelectionTimeoutMS=2000, **more,
        )  # fmt: skip

    def probe(self) -> bool:
        with self.client() as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])

    def admin(self) -> pymongo.MongoClient[dict[str, Any]]:
        """The first user, whom the server lets be made from its own machine."""
        with self.client() as client:
            client.admin.command("createUser", "admin", pwd=PASSWORD, roles=["root"])
        return self.client(username="admin", password=PASSWORD)

    def url_of(self, user: str) -> str:
        """The URL for a user of the database `liteflow`."""
        return f"mongodb://{user}:{PASSWORD}@127.0.0.1:{self.port}/liteflow?{self.options}"


class SecuredRabbit(RabbitServer):
    """Listens with TLS too, and takes messages of a megabyte at most."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates
        self.tls_port = free_port()
        with (self.folder / "rabbitmq.conf").open("a") as config:
            config.write(
                f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
                f"ssl_options.cacertfile = {certificates.authority}\n"
                f"ssl_options.certfile = {certificates.certificate}\n"
                f"ssl_options.keyfile = {certificates.key}\n"
                "ssl_options.verify = verify_none\nmax_message_size = 1000000\n"
            )

    def control(self, *arguments: str) -> None:
        """rabbitmqctl."""
        command = ["/usr/lib/rabbitmq/bin/rabbitmqctl", *arguments]
        environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **self.environment()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def url_of(self, user: str) -> str:
        """The URL for a user of the virtual host `liteflow`."""
        options = f"ssl_options={{'ca_certs': '{self.certificates.authority}'}}".replace(" ", "%20")
        return f"amqps://{user}:{PASSWORD}@127.0.0.1:{self.tls_port}/liteflow?{options}"

    def connect(self, user: str) -> pika.BlockingConnection:
        """As a producer or listener without LiteFlow does."""
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        return pika.BlockingConnection(
            pika.ConnectionParameters(
                "127.0.0.1", self.tls_port, "liteflow", pika.PlainCredentials(user, PASSWORD),
                ssl_options=pika.SSLOptions(context, "127.0.0.1"),
            )
        )  # fmt: skip


class SecuredRedis(RedisServer):
    """Listens with TLS only."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates

    def commands(self) -> list[list[str]]:
        ((program, *arguments),) = super().commands()
        arguments[arguments.index("--port")] = "--tls-port"
        c = self.certificates
        files = f"--tls-cert-file {c.certificate} --tls-key-file {c.key} --tls-ca-cert-file {c.authority}"
        return [[program, *arguments, "--port", "0", *files.split(), "--tls-auth-clients", "no"]]

    def admin(self, **user: str) -> Any:
        """The default user, as long as it is on, or a named one."""
        return redis.Redis(port=self.port, ssl=True, ssl_ca_certs=str(self.certificates.authority), **user)

    def probe(self) -> bool:
        with self.admin() as client:
            return bool(client.ping())

    def url_of(self, user: str) -> str:
        """The URL for a user."""
        authority = self.certificates.authority
        return f"rediss://{user}:{PASSWORD}@127.0.0.1:{self.port}/0?ssl_ca_certs={authority}"
