from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from servers import RedisServer, free_port

from liteflow.core import LockProvider, LockUnavailableError
from liteflow.core.errors import SettingsError
from liteflow.core.findings import Severity
from liteflow.core.providers import Lease, Taken
from liteflow.core.testing.lock import LockContract, got, until
from liteflow.providers.redis import RedisLockProvider


class OnRedis(LockContract):
    @pytest.fixture
    def provider(self, urls: list[str], prefix: str) -> Iterator[LockProvider]:
        made = RedisLockProvider(urls, prefix=prefix)
        made.open()
        yield made
        made.close()

    @pytest.fixture
    def second(self, provider: LockProvider, urls: list[str], prefix: str) -> Iterator[LockProvider]:
        made = RedisLockProvider(",".join(urls), prefix=prefix)
        made.open()
        yield made
        made.close()

    def test_prefixes_are_apart(self, provider: LockProvider, urls: list[str]) -> None:
        got(provider.acquire(["a"], 5)[0])
        other = RedisLockProvider(urls, prefix="somebody-else")
        other.open()
        lease = got(other.acquire(["a"], 5)[0])
        other.release([lease])
        other.close()


class TestOneMaster(OnRedis):
    @pytest.fixture
    def urls(self, redis_url: str) -> list[str]:
        return [redis_url]


class TestThreeMasters(OnRedis):
    @pytest.fixture
    def urls(self, redis_urls: list[str]) -> list[str]:
        return redis_urls


@pytest.fixture
def masters() -> Iterator[list[RedisServer]]:
    servers = [RedisServer() for _ in range(3)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def redlock(masters: list[RedisServer]) -> Iterator[RedisLockProvider]:
    made = RedisLockProvider([master.url for master in masters], timeout=0.3)
    made.open()
    yield made
    made.close()


def test_one_of_three_may_be_dead(masters: list[RedisServer], redlock: RedisLockProvider) -> None:
    masters[0].kill()
    lease = got(redlock.acquire(["a"], 5)[0])
    assert isinstance(redlock.acquire(["a"], 5)[0], Taken)
    assert redlock.renew([lease], 5) == [True]
    assert redlock.release([lease]) == [False], "it was marked"
    assert redlock.release([got(redlock.acquire(["a"], 5)[0])]) == [True]


def test_two_of_three_dead_decide_nothing(masters: list[RedisServer], redlock: RedisLockProvider) -> None:
    lease = got(redlock.acquire(["held"], 5)[0])
    masters[0].kill()
    masters[1].kill()
    with pytest.raises(LockUnavailableError, match="1 of 3"):
        redlock.acquire(["a"], 5)
    assert redlock.renew([lease], 5) == [True], "nobody can have taken it before it ends"
    assert redlock.release([lease]) == [False]
    masters[0].start()
    until("it works again", lambda: works(redlock))


def works(provider: RedisLockProvider) -> bool:
    try:
        return isinstance(provider.acquire(["works"], 0.05)[0], Lease)
    except LockUnavailableError:
        return False


def test_a_hanging_master_costs_its_timeout_only(
    masters: list[RedisServer], redlock: RedisLockProvider
) -> None:
    masters[2].pause()
    try:
        assert redlock.release([got(redlock.acquire(["a"], 5)[0])]) == [True]
    finally:
        masters[2].resume()


def test_emptied_masters_are_an_unclean_release(
    masters: list[RedisServer], redlock: RedisLockProvider
) -> None:
    lease = got(redlock.acquire(["a"], 5)[0])
    import redis

    for master in masters[:2]:
        with redis.Redis(port=master.port) as client:
            client.flushall()
    assert redlock.renew([lease], 5) == [False]
    assert redlock.release([lease]) == [False]


def test_the_server_comes_back(own_redis: RedisServer, prefix: str) -> None:
    provider = RedisLockProvider(own_redis.url, prefix=prefix, timeout=0.3)
    provider.open()
    own_redis.kill()
    with pytest.raises(LockUnavailableError):
        provider.acquire(["a"], 5)
    own_redis.start()
    until("it works again", lambda: works(provider))
    provider.close()


def test_secrets_are_not_shown() -> None:
    provider = RedisLockProvider(f"redis://:s3cret@127.0.0.1:{free_port()}/0")
    provider.open()
    with pytest.raises(LockUnavailableError) as caught:
        provider.acquire(["a"], 1)
    assert "s3cret" not in repr(provider) + str(caught.value)
    provider.close()


@pytest.mark.parametrize("url", ["", "http://x", "redis://a,,redis://b"])
def test_impossible_urls_are_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        RedisLockProvider(url)


# ----------------------------------------------------------------------------------------------- check


def checked(*urls: str) -> tuple[Severity, str]:
    """The worst that a check finds, and all that it says."""
    found = RedisLockProvider(list(urls), prefix="checked").check()
    return max(finding.severity for finding in found), "\n".join(f"{finding}" for finding in found)


def test_check_of_masters_that_are_well(redis_url: str, redis_urls: list[str]) -> None:
    for urls in ([redis_url], redis_urls):
        severity, text = checked(*urls)
        assert severity is Severity.OK
        assert "version" in text


def test_check_tells_whether_a_majority_answers(masters: list[RedisServer]) -> None:
    urls = [master.url for master in masters]
    masters[0].kill()
    severity, text = checked(*urls)
    assert severity is Severity.PROBLEM
    assert "2 of 3 masters answer, 2 are needed" in text
    assert checked(*urls[:2])[0] is Severity.PROBLEM
    assert "1 of 2 masters answer, 2 are needed: nothing can be advanced" in checked(*urls[:2])[1]
    assert "even number" in checked(*urls[1:])[1]


def test_check_sees_what_would_cost_leases(own_redis: RedisServer) -> None:
    with redis.Redis(port=own_redis.port) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "may evict leases" in checked(own_redis.url)[1]
        client.config_set("maxmemory-policy", "noeviction")
        assert checked(own_redis.url)[0] is Severity.OK
        client.execute_command("ACL SETUSER guest on >s3cret ~* +@all -eval")
        limited = own_redis.url.replace("redis://", "redis://guest:s3cret@")
        severity, text = checked(limited)
        assert (severity, "refuses a lease" in text, "s3cret" in text) == (Severity.PROBLEM, True, False)
        assert "refuses the user name" in checked(limited.replace("s3cret", "wrong"))[1]
        client.replicaof("127.0.0.1", free_port())
        assert "is a replica" in checked(own_redis.url)[1]
