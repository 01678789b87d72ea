"""A minute of chaos on real servers, and the parts that make it. The long run is `make chaos`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from chaos.faults import KINDS, plan
from chaos.proxy import Link, Proxy
from chaos.run import Options, report, run

SECONDS = float(os.environ.get("LITEFLOW_TEST_CHAOS_SECONDS", "50"))
SEED = int(os.environ.get("LITEFLOW_TEST_CHAOS_SEED", "5"))


@pytest.mark.timeout(420)
def test_no_promise_is_broken_while_everything_is_hurt() -> None:
    result = run(Options(seconds=SECONDS, seed=SEED))
    assert not result.violations and not result.problems, report(result)
    evidence = result.evidence
    assert evidence is not None
    # It would all hold if nothing had happened.
    hurt = {one.kind for one in evidence.disturbances if not one.skipped}
    assert len(hurt) > len(KINDS) / 2
    assert {line["workflow"] for line in evidence.lines("started")} >= {"chain", "readings", "steered"}
    assert len(evidence.runs) > 300


def test_a_seed_determines_the_plan_and_every_kind_of_fault_comes() -> None:
    assert plan(3, 100, 2) == plan(3, 100, 2) != plan(4, 100, 2)
    assert {fault.kind for fault in plan(3, 100, 2)} == set(KINDS)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(ConnectionError):
                while data := connection.recv(1024):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(echo: int) -> Iterator[Link]:
    proxy = Proxy()
    yield proxy.link(echo)
    proxy.close()


def connect(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=5)


def asks(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(1024)


def test_a_link_forwards_and_is_cut(link: Link) -> None:
    with connect(link) as connection:
        assert asks(connection) == b"hello"
        link.cut()
        with pytest.raises(ConnectionError):
            assert asks(connection) == b""
            raise ConnectionResetError
    with connect(link) as connection:
        assert asks(connection) == b"hello"


def test_a_link_that_refuses_lets_nobody_through_until_it_is_told_to(link: Link) -> None:
    link.refuse()
    with connect(link) as connection, pytest.raises(ConnectionError):
        assert asks(connection) == b""
        raise ConnectionResetError
    link.refuse(False)
    with connect(link) as connection:
        assert asks(connection) == b"hello"


def test_a_link_that_stalls_holds_everything_back_and_loses_nothing(link: Link) -> None:
    with connect(link) as connection:
        assert asks(connection) == b"hello"
        link.stall()
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asks(connection)
        link.stall(False)
        connection.settimeout(5)
        assert connection.recv(1024) == b"hello"
