"""Are the Redis masters fit to hold leases?"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from liteflow.core.findings import Finding, problem, warning, well
from liteflow.providers.redis.master import Master
from liteflow.providers.redis.scripts import ACQUIRE, EXTEND, RELEASE
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

AREA = "lock"


def check(masters: Sequence[Master], prefix: str) -> list[Finding]:
    """See `Provider.check`: each master, and whether enough of them are well."""
    found = [finding for master in masters for finding in _check(master, prefix)]
    if len(masters) > 1:
        found.append(_majority(len(masters), sum(_answers(master) for master in masters)))
    return found


def _majority(count: int, answering: int) -> Finding:
    needed = count // 2 + 1
    if answering < needed:
        return problem(
            AREA,
            f"{answering} of {count} masters answer, {needed} are needed: nothing can be advanced",
            "bring masters back",
        )
    if count % 2 == 0:
        return warning(
            AREA,
            f"an even number of masters ({count}) survives the loss of no more than {count - 1} do",
            "use an odd number",
        )
    return well(AREA, f"{answering} of {count} masters answer, {needed} are needed")


def _answers(master: Master) -> bool:
    try:
        master.client.ping()
    except RedisError:
        return False
    return True


def _check(master: Master, prefix: str) -> list[Finding]:
    where = f"redis {master.name}"
    try:
        information = master.client.info()
        found = [well(AREA, f"{where} answers, version {information.get('redis_version', 'unknown')}")]
    except AuthenticationError:
        return [problem(AREA, f"{where} refuses the user name or password", "correct --lock")]
    except NoPermissionError:
        information, found = {}, [well(AREA, f"{where} answers")]
    except RedisError as exc:
        advice = "start the server, or check host and port in --lock"
        return [problem(AREA, f"{where} does not answer: {type(exc).__name__}", advice)]
    if information.get("role", "master") != "master":
        found.append(
            problem(AREA, f"{where} is a replica, which can't hold leases", "name masters in --lock")
        )
    policy = str(information.get("maxmemory_policy", "noeviction"))
    if information.get("maxmemory") and policy.startswith(("allkeys", "volatile")):
        found.append(
            warning(
                AREA,
                f"{where} may evict leases when its memory is full (maxmemory-policy {policy})",
                "set maxmemory-policy to noeviction; what loses its lease may be done twice",
            )
        )
    return [*found, *_try_a_lease(master, where, prefix)]


def _try_a_lease(master: Master, where: str, prefix: str) -> list[Finding]:
    """Get, renew and give back a lease that nobody else knows."""
    key, token = f"{prefix}:lease:check-{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        answers = [
            master.client.eval(ACQUIRE, 1, key, token, "1000"),
            master.client.eval(EXTEND, 1, key, token, "1000"),
            master.client.eval(RELEASE, 1, key, token),
        ]
    except (NoPermissionError, ResponseError) as exc:
        return [
            problem(
                AREA,
                f"{where} refuses a lease: {exc}",
                f"allow this user EVAL, HGET, HMGET, HSET, PTTL, PEXPIRE and DEL on '{prefix}:*'",
            )
        ]
    except RedisError as exc:
        return [problem(AREA, f"{where} does not answer: {type(exc).__name__}", "look into its log")]
    if answers != [[-1], [1], [1]]:
        return [problem(AREA, f"{where} gives no leases: {answers}", "look into its log")]
    return [well(AREA, f"{where} gives leases")]
