"""The server's clock is known to a part of a millisecond, and never goes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pymongo
import pytest

from liteflow.core.errors import ProviderError, StoreUnavailableError
from liteflow.core.server_clock import EPOCH, MICROSECOND, REFRESH, ServerClock
from liteflow.core.testing.samples import until
from liteflow.providers.mongo import MongoPersistenceProvider


class Simulated:
    """A server whose clock runs `ahead` of the local one, and a way there that takes its time."""

    def __init__(self, ahead: int = 1_000_000_000_123, there: int = 130, back: int = 170) -> None:
        self.local = 5_000
        self.ahead = ahead
        self.there, self.back = there, back
        self.reads = 0
        self.away = False
        self.clock = ServerClock(self.read, 1000, lambda: self.local)

    def read(self) -> datetime:
        self.reads += 1
        if self.away:
            raise StoreUnavailableError("away")
        self.local += self.there
        told = (self.local + self.ahead) // 1000 * 1000
        self.local += self.back
        return EPOCH + told * MICROSECOND

    @property
    def truth(self) -> datetime:
        return EPOCH + (self.local + self.ahead) * MICROSECOND


@pytest.mark.parametrize(("there", "back"), [(130, 170), (37, 211), (1900, 350), (3, 4)])
@pytest.mark.parametrize("ahead", [0, 123, 1_700_000_000_000_987, -4_999])
def test_the_truth_lies_within_the_uncertainty(ahead: int, there: int, back: int) -> None:
    server = Simulated(ahead, there, back)
    server.clock.measure()
    error = abs(server.clock.now() - server.truth)
    assert error * 2 <= server.clock.uncertainty
    assert server.clock.uncertainty <= timedelta(microseconds=there + back + 1000)


def test_several_samples_are_better_than_the_resolution() -> None:
    server = Simulated()
    server.clock.measure()
    assert server.reads > 1
    assert server.clock.uncertainty < timedelta(microseconds=600)


def test_uncertainty_grows_with_time() -> None:
    server = Simulated()
    server.clock.measure()
    fresh = server.clock.uncertainty
    server.local += REFRESH // 2
    assert fresh < server.clock.uncertainty < timedelta(milliseconds=10)


def test_it_is_measured_anew_in_the_background_and_never_goes_back() -> None:
    server = Simulated()
    server.clock.measure()
    before = server.clock.now()
    reads = server.reads
    server.ahead -= 2 * REFRESH  # somebody set the server's clock
    server.local += REFRESH
    assert server.clock.now() > before
    until(lambda: server.reads > reads)
    server.clock.join()
    latest = server.clock.now()
    assert latest > before
    # It stands still until the server has caught up.
    assert latest > server.truth
    server.local += 2 * REFRESH
    server.clock.now()
    server.clock.join()
    assert abs(server.clock.now() - server.truth) < timedelta(milliseconds=1)


def test_a_server_that_is_away_does_not_stop_the_clock() -> None:
    server = Simulated()
    server.clock.measure()
    server.away = True
    server.local += REFRESH
    reads = server.reads
    assert abs(server.clock.now() - server.truth) < timedelta(milliseconds=1)
    until(lambda: server.reads > reads)
    server.clock.join()
    server.away = False
    server.local += REFRESH
    server.clock.now()
    until(lambda: server.reads > reads + 1)
    server.clock.join()
    assert server.clock.uncertainty < timedelta(milliseconds=1)


def test_one_thread_at_a_time_measures() -> None:
    server, go_on = Simulated(), threading.Event()
    server.clock.measure()
    honest, reads = server.clock._read, server.reads

    def slow() -> datetime:
        go_on.wait(20)
        return honest()

    server.clock._read = slow
    server.local += REFRESH
    for _ in range(5):
        server.clock.now()
    measuring = [thread for thread in threading.enumerate() if thread.name == "liteflow-clock"]
    assert len(measuring) == 1
    go_on.set()
    server.clock.join()
    assert server.reads > reads


def test_before_the_first_measurement_there_is_no_time() -> None:
    with pytest.raises(ProviderError, match="not open"):
        Simulated().clock.now()


@pytest.fixture
def provider(mongo_url: str, prefix: str) -> Iterator[MongoPersistenceProvider]:
    provider = MongoPersistenceProvider(mongo_url, prefix=prefix)
    provider.open()
    yield provider
    provider.close()
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        for name in client.get_default_database().list_collection_names():
            if name.startswith(f"{prefix}."):
                client.get_default_database().drop_collection(name)


def test_the_time_is_that_of_the_server(provider: MongoPersistenceProvider, mongo_url: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        for _ in range(20):
            earlier = provider.now()
            told = client.admin.command("hello")["localTime"].replace(tzinfo=timezone.utc)
            slack = provider.clock_uncertainty + timedelta(milliseconds=1)
            assert earlier - slack <= told <= provider.now() + slack
    assert provider.clock_uncertainty < timedelta(milliseconds=20)
