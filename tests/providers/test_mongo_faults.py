"""What happens when the server dies, hangs, or its answers get lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pymongo
import pytest
from servers import MongoServer

from liteflow.core.errors import ProviderError, StoreUnavailableError, UnavailableError
from liteflow.core.models import (
    Activity,
    Claim,
    DefinitionRecord,
    ErrorRecord,
    Event,
    Instance,
    Pointer,
    Request,
    Wait,
    WorkflowStatus,
)
from liteflow.core.providers import ClaimRenewal, ListFilter, RequestOutcome
from liteflow.core.testing.persistence_items import large
from liteflow.core.testing.samples import T0, after, created, loaded, new_id, new_instance, step, until
from liteflow.core.transition import Outcome, Transition
from liteflow.providers.mongo import MongoPersistenceProvider
from liteflow.providers.mongo.errors import repeated

IMPATIENT: dict[str, Any] = {
    "serverSelectionTimeoutMS": 300,
    "connectTimeoutMS": 1000,
    "socketTimeoutMS": 1000,
}


@pytest.fixture
def provider(own_mongo: MongoServer) -> Iterator[MongoPersistenceProvider]:
    provider = MongoPersistenceProvider(own_mongo.url, **IMPATIENT)
    provider.open()
    yield provider
    provider.close()


def settle(provider: MongoPersistenceProvider, transition: Transition) -> Outcome:
    """Ask until the outcome is known."""
    outcomes = [Outcome.UNKNOWN]

    def known() -> bool:
        outcomes[:] = provider.commit([transition])
        return outcomes != [Outcome.UNKNOWN]

    until(known, 60)
    return outcomes[0]


def test_what_was_confirmed_survives_a_kill(
    own_mongo: MongoServer, provider: MongoPersistenceProvider
) -> None:
    instance = created(provider)
    pointer = Pointer("1", "a", end_time=T0)
    transition = step(
        instance, data_set={"a": 1}, errors=[ErrorRecord(instance.id, "1", "a", 1, T0, "E", "m")]
    )
    assert provider.commit([transition]) == [Outcome.COMMITTED]
    assert provider.add_event(Event("e", "n", "k", T0))
    provider.archive([(instance.id, pointer)])
    assert provider.request(instance.id, Request("suspend", "r", T0), T0) is RequestOutcome.STORED
    provider.lower_wake({instance.id: after(-5)})
    own_mongo.kill()
    own_mongo.start()
    assert settle(provider, transition) is Outcome.COMMITTED
    stored = loaded(provider, instance.id)
    assert (stored.data, stored.revision, len(stored.inbox)) == ({"a": 1}, 1, 1)
    assert stored.wake_at == after(-5)
    assert provider.event("e") is not None
    assert provider.history(instance.id) == [pointer]
    assert len(provider.errors(instance.id, 10)) == 1


def test_while_the_server_is_away_nothing_else_is_raised(
    own_mongo: MongoServer, provider: MongoPersistenceProvider
) -> None:
    instance = created(provider)
    own_mongo.kill()
    transition = step(instance)
    assert provider.commit([transition, step(new_instance())]) == [Outcome.UNKNOWN] * 2
    failing = step(instance, errors=[ErrorRecord(instance.id, "1", "a", 1, T0, "E", "m")])
    assert provider.commit([failing]) == [Outcome.UNKNOWN]
    for call in (
        lambda: provider.create([new_instance()]),
        lambda: provider.load([instance.id]),
        lambda: provider.request(instance.id, Request("suspend", "r", T0), T0),
        lambda: provider.lower_wake({instance.id: T0}),
        lambda: provider.hold_due(T0, lambda due: T0, 1),
        provider.next_due,
        lambda: provider.add_event(Event("e", "n", "k", T0)),
        lambda: provider.waiting_for("n", "k", "", 1),
        lambda: provider.events([Wait("n", "k", T0, "1")], T0, 1),
        lambda: provider.record_definitions([DefinitionRecord("a", 1, "f")]),
        lambda: provider.list(ListFilter()),
        lambda: provider.offer_activities([Activity("a", "n", None, T0, "i")]),
        lambda: provider.take_activity("n", "me", "t", T0, after(60)),
        lambda: provider.activity("t"),
        lambda: provider.finish_activity("a"),
        lambda: provider.release_activity("t"),
        lambda: provider.withdraw_activities(["a"]),
        lambda: provider.purge(WorkflowStatus.COMPLETE, T0, 1),
        lambda: provider.purge_events(T0, 1),
    ):
        with pytest.raises(StoreUnavailableError):
            call()
    # The clock goes on, and so does work that is under way.
    assert provider.now() <= provider.now()
    own_mongo.start()
    assert settle(provider, transition) is Outcome.COMMITTED
    assert loaded(provider, instance.id).revision == 1


def test_opening_without_a_server(own_mongo: MongoServer) -> None:
    own_mongo.kill()
    provider = MongoPersistenceProvider(own_mongo.url, **IMPATIENT)
    with pytest.raises(StoreUnavailableError):
        provider.open()
    own_mongo.start()
    provider.open()
    assert provider.next_due() is None
    provider.close()


def test_a_server_that_hangs(own_mongo: MongoServer, provider: MongoPersistenceProvider) -> None:
    instance = created(provider)
    transition = step(instance)
    own_mongo.pause()
    while provider.commit([transition]) == [Outcome.COMMITTED]:  # it stops a moment after it is told to
        transition.apply(instance)
        transition = step(instance)
    own_mongo.resume()
    assert settle(provider, transition) is Outcome.COMMITTED
    assert loaded(provider, instance.id).revision == instance.revision + 1


@pytest.mark.parametrize("replica_set", [False, True], ids=["standalone", "replica set"])
def test_nothing_is_lost_or_doubled_while_the_server_comes_and_goes(replica_set: bool) -> None:
    server = MongoServer(replica_set)
    provider = MongoPersistenceProvider(server.url, **IMPATIENT)
    try:
        server.start()
        provider.open()
        _work_while_it_is_killed(server, provider)
    finally:
        provider.close()
        server.close()


def _work_while_it_is_killed(server: MongoServer, provider: MongoPersistenceProvider) -> None:
    instances = [created(provider, data={"count": 0}) for _ in range(4)]
    kills, goal = 3, 60
    progress = threading.Semaphore(0)

    def work(instance: Instance) -> Instance:
        for count in range(1, goal + 1):
            transition = step(instance, data_set={"count": count})
            assert settle(provider, transition) is Outcome.COMMITTED
            transition.apply(instance)
            progress.release()
        return instance

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, instance) for instance in instances]
        for _ in range(kills):
            for _ in range(goal // 2):
                assert progress.acquire(timeout=60)
            if server.replica_set:
                _step_down(server)
            server.kill()
            server.start()
        results = [worker.result(60) for worker in workers]
    for instance in results:
        stored = loaded(provider, instance.id)
        assert (stored.data, stored.revision) == ({"count": goal}, goal)


def _step_down(server: MongoServer) -> None:
    """Let the primary be none for a second."""
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        client.admin.command("replSetStepDown", 1, secondaryCatchUpPeriodSecs=0, force=True)


# ------------------------------------------------------------------------------- the server's errors


class FailingServer(MongoServer):
    """A server that can be told to fail."""

    def commands(self) -> list[list[str]]:
        return [[*super().commands()[0], "--setParameter", "enableTestCommands=1"]]

    def fail(self, command: str, times: int, **how: Any) -> None:
        """Fail the next so many commands of this name."""
        with pymongo.MongoClient[dict[str, Any]](self.url) as client:
            data = {"failCommands": [command], **how}
            client.admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)


@pytest.fixture
def failing() -> Iterator[FailingServer]:
    server = FailingServer()
    server.start()
    yield server
    server.close()


def test_errors_of_the_server_are_told_apart(failing: FailingServer) -> None:
    provider = MongoPersistenceProvider(failing.url)
    provider.open()
    instance = created(provider)

    def commit(**how: Any) -> Outcome:
        failing.fail("update", **how)
        transition = step(instance)
        outcome = provider.commit([transition])[0]
        if outcome is Outcome.COMMITTED:
            transition.apply(instance)
        return outcome

    timed_out, conflicting, forbidden = 50, 112, 13
    late = {"code": 64, "errmsg": "waiting for replication timed out"}
    assert commit(times=1, errorCode=timed_out) is Outcome.UNKNOWN
    assert commit(times=1, errorCode=conflicting) is Outcome.UNKNOWN
    assert commit(times=1, closeConnection=True) is Outcome.COMMITTED
    # Written, but not confirmed: what is read back from the majority decides.
    assert commit(times=1, writeConcernError=late) is Outcome.COMMITTED
    with pytest.raises(ProviderError) as raised:
        commit(times=1, errorCode=forbidden)
    assert not isinstance(raised.value, UnavailableError)

    failing.fail("insert", times=1, writeConcernError=late)
    unconfirmed = new_instance(token=new_id())
    with pytest.raises(StoreUnavailableError):
        provider.create([unconfirmed])
    assert provider.create([unconfirmed]) == [True]
    failing.fail("update", times=1, writeConcernError=late)
    with pytest.raises(StoreUnavailableError):
        provider.lower_wake({unconfirmed.id: T0})
    provider.close()


# ------------------------------------------------------------------------------------- lost answers


class Proxy:
    """Passes everything on between a client and a server, until it is told to lose an answer."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._word = b""
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answer_to(self, command: str) -> None:
        """Cut the connection after the next such command has been done, instead of the answer."""
        self._word = command.encode()

    @property
    def lost(self) -> bool:
        """The answer has been lost."""
        return not self._word

    def close(self) -> None:
        for one in [self._listener, *self._sockets]:
            _shut(one)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                doomed = threading.Event()
                for source, sink, ask in ((client, server, True), (server, client, False)):
                    arguments = (source, sink, doomed, ask)
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, doomed: threading.Event, ask: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if ask and self._word and self._word in data:
                    doomed.set()
                if not ask and doomed.is_set():
                    self._word = b""
                    break
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@pytest.fixture
def proxy(mongo_url: str) -> Iterator[Proxy]:
    proxy = Proxy(int(mongo_url.rpartition(":")[2].partition("/")[0]))
    yield proxy
    proxy.close()


@pytest.fixture
def through(proxy: Proxy, prefix: str) -> Iterator[MongoPersistenceProvider]:
    """A provider whose answers the proxy may lose."""
    url = f"mongodb://127.0.0.1:{proxy.port}/liteflow?directConnection=true"
    provider = MongoPersistenceProvider(url, prefix=prefix, **{**IMPATIENT, "serverSelectionTimeoutMS": 5000})
    provider.open()
    yield provider
    provider.close()


def test_a_commit_whose_answer_is_lost_is_settled(proxy: Proxy, through: MongoPersistenceProvider) -> None:
    one, two = created(through), created(through)
    late = step(two)
    assert through.commit([step(two, data_set={"a": 1})]) == [Outcome.COMMITTED]
    proxy.lose_answer_to("update")
    transition = step(one, data_set={"a": 1})
    assert through.commit([transition, late]) == [Outcome.COMMITTED, Outcome.CONFLICT]
    assert proxy.lost
    assert (loaded(through, one.id).revision, loaded(through, two.id).revision) == (1, 1)


def test_errors_whose_answer_is_lost_are_stored_once(proxy: Proxy, through: MongoPersistenceProvider) -> None:
    instance = created(through)
    proxy.lose_answer_to("insert")
    errors = [ErrorRecord(instance.id, "1", "a", 1, T0, "E", "m")]
    assert through.commit([step(instance, errors=errors)]) == [Outcome.COMMITTED]
    assert proxy.lost
    assert through.errors(instance.id, 10) == errors


def test_inserts_whose_answer_is_lost_are_ours(proxy: Proxy, through: MongoPersistenceProvider) -> None:
    known = created(through)
    proxy.lose_answer_to("insert")
    assert through.create([new_instance(token=new_id()), known]) == [True, False]
    assert proxy.lost
    proxy.lose_answer_to("insert")
    assert through.add_event(Event(new_id(), "n", "k", T0))
    assert proxy.lost
    proxy.lose_answer_to("insert")
    through.archive([(known.id, Pointer("1", "a"))])
    assert proxy.lost
    assert len(through.history(known.id)) == 1


def test_updates_whose_answer_is_lost_are_done_once(proxy: Proxy, through: MongoPersistenceProvider) -> None:
    claim = Claim("me", "t", after(10))
    instance = created(through, claims={"1": claim}, wake_at=after(10))
    proxy.lose_answer_to("update")
    assert through.request(instance.id, Request("suspend", "r", T0), after(30)) is RequestOutcome.STORED
    assert proxy.lost
    proxy.lose_answer_to("update")
    assert through.renew_claims([ClaimRenewal(instance.id, "1", claim, after(20))]) == [True]
    assert proxy.lost
    stored = loaded(through, instance.id)
    assert (len(stored.inbox), stored.inbox_sequence, stored.wake_at) == (1, 1, after(20))
    assert stored.claims["1"].until == after(20)


def test_a_lease_whose_answer_is_lost_is_the_only_one(
    proxy: Proxy, through: MongoPersistenceProvider
) -> None:
    through.offer_activities([Activity(key, "paint", None, T0, "i") for key in "ab"])
    proxy.lose_answer_to("findAndModify")
    taken = through.take_activity("paint", "me", "t1", T0, after(60))
    assert proxy.lost
    assert taken is not None
    assert (taken.id, taken.token) == ("a", "t1")
    proxy.lose_answer_to("update")
    assert through.release_activity("t1")
    assert proxy.lost
    left = [through.take_activity("paint", "me", f"t{n}", T0, after(60)) for n in range(2, 5)]
    assert [one and one.id for one in left] == ["a", "b", None]


def test_what_is_purged_is_counted_if_the_answer_is_lost(
    proxy: Proxy, through: MongoPersistenceProvider
) -> None:
    for number in range(5):
        through.add_event(Event(str(number), "n", "k", T0, processed=after(number)))
        created(through, status=WorkflowStatus.COMPLETE, complete_time=after(number))
    for purge in (
        lambda: through.purge_events(after(9), 3),
        lambda: through.purge(WorkflowStatus.COMPLETE, after(9), 3),
    ):
        proxy.lose_answer_to("delete")
        assert [purge(), purge(), purge()] == [3, 2, 0]
        assert proxy.lost


def test_large_collections_whose_answer_is_lost_are_stored_once(
    proxy: Proxy, through: MongoPersistenceProvider
) -> None:
    items = {"1": large("a", 1000)}
    proxy.lose_answer_to("insert")
    instance = created(through, items=items)
    assert proxy.lost
    proxy.lose_answer_to("insert")
    transition = step(instance, items_set={"2": large("b", 1000)})
    assert through.commit([transition]) == [Outcome.COMMITTED]
    assert proxy.lost
    transition.apply(instance)
    assert loaded(through, instance.id) == instance


def test_who_reads_before_the_server_knows_what_the_majority_has_may_try_again(
    failing: FailingServer,
) -> None:
    provider = MongoPersistenceProvider(failing.url)
    provider.open()
    instance = created(provider)
    failing.fail("find", times=2, errorCode=134)  # the driver tries twice
    with pytest.raises(StoreUnavailableError):
        provider.load([instance.id])
    assert loaded(provider, instance.id) == instance
    provider.close()


@pytest.mark.parametrize(
    ("error", "times"), [(pymongo.errors.AutoReconnect, 2), (pymongo.errors.ServerSelectionTimeoutError, 1)]
)
def test_what_was_waited_for_in_vain_is_not_waited_for_again(error: type[Exception], times: int) -> None:
    """A lost connection is worth another try at once."""
    tries = []

    def act() -> None:
        tries.append(1)
        raise error("away")

    with pytest.raises(error):
        repeated(act)
    assert len(tries) == times


def test_a_removal_of_chunks_that_fails_does_not_matter(failing: FailingServer) -> None:
    provider = MongoPersistenceProvider(failing.url)
    provider.open()
    instance = created(provider, items={"1": large("a", 1000)})
    failing.fail("delete", times=1, errorCode=13)
    assert provider.commit([step(instance, items_removed=["1"])]) == [Outcome.COMMITTED]
    assert loaded(provider, instance.id).items == {}
    provider.close()
