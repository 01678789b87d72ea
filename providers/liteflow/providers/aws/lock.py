"""Leases on DynamoDB: an item for each, with its holder's token, its end, and a mark.

A lease is got by writing its item on the condition that there is none, or one that has ended. Who is refused
sets the mark, on the condition that the holder is still the one that refused it; the holder deletes the item
and is told in the same act whether it was marked.

When a lease ends is told by DynamoDB's clock: each answer says the server's time, to the second, and the
offset to this process's monotonic clock is measured from several answers. What is not known about it, a
second at most, is added to the end of others' leases. So the clocks of machines need not agree.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from liteflow.core.errors import LockUnavailableError, ProviderError
from liteflow.core.providers import Lease, LockProvider, Taken
from liteflow.core.server_clock import ServerClock
from liteflow.core.wire import plain_name
from liteflow.providers.aws.access import Access, code_of, is_missing

log = logging.getLogger("liteflow.aws")

DRIFT_SHARE = 0.01
DRIFT_LEAST = 0.002
"""The server's clock may run a little faster than ours: a lease counts as that much shorter."""

THREADS = 16
"""So many leases are asked for side by side."""

TURNS = 5
"""So often a lease may change hands under our eyes until we ask to be sent again instead."""

SECOND = 1_000_000
"""The resolution of the server's time, in microseconds."""

FAILED_CONDITION = "ConditionalCheckFailedException"

GARBAGE_AFTER = 24 * 3600
"""Seconds after its end when DynamoDB may remove a dead holder's item."""

T = TypeVar("T")
R = TypeVar("R")


class DynamoLockProvider(LockProvider):
    """Leases in a table that it creates, paid by request.

    `url` is ``dynamodb://REGION``; see `SqsQueueProvider` for it, `session` and `prefix`.
    """

    def __init__(
        self, url: str = "dynamodb://", prefix: str = "liteflow", *, session: boto3.Session | None = None
    ) -> None:
        self._access = Access(url, "dynamodb", session)
        self._table = plain_name(prefix, "leases", 255)
        self._client: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._clock: ServerClock | None = None

    def __repr__(self) -> str:
        return f"DynamoLockProvider({self._access!r})"

    def open(self) -> None:
        """Raises `ProviderError` if AWS refuses us. If it is away, that is waited for in use."""
        if self._client is None:
            self._client = self._access.client("dynamodb")
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="liteflow-dynamodb")
        try:
            with self._access.errors(LockUnavailableError):
                self._create_table()
            self._measured()
        except LockUnavailableError as exc:
            log.warning("%s; it is waited for", exc)

    def close(self) -> None:
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.join()
        pool, self._pool = self._pool, None
        client, self._client = self._client, None
        if pool is not None:
            pool.shutdown()
        if client is not None:
            client.close()

    # ------------------------------------------------------------------------------------------ leases

    def acquire(self, names: Sequence[str], ttl: float) -> list[Lease | Taken]:
        if not names:
            return []
        clock = self._measured()
        outcomes = self._each(lambda name: self._acquire(name, ttl, clock), names)
        problem = next((one for one in outcomes if isinstance(one, ProviderError)), None)
        decided = [one for one in outcomes if not isinstance(one, ProviderError)]
        if problem is not None:
            self.release([one for one in decided if isinstance(one, Lease)])
            raise problem
        return decided

    def _acquire(self, name: str, ttl: float, clock: ServerClock) -> Lease | Taken:
        token = secrets.token_hex(16)
        for _ in range(TURNS):
            began, now = time.monotonic(), clock.now()
            item = {"name": {"S": name}, "holder": {"S": token}, **_times(now, ttl)}
            holder = self._put(item, now - clock.uncertainty)
            if holder is None or holder["holder"]["S"] == token:
                # Ours by an earlier try whose answer got lost, if it is not by this one; the mark is kept.
                return Lease(name, token, _expires(began, ttl))
            if self._mark(name, holder["holder"]["S"]):
                # It is given away when it has ended by any clock.
                left = _milliseconds(holder, "ends") - _since_1970(clock.now() - clock.uncertainty)
                return Taken(min(max(left, 1), _milliseconds(holder, "ttl")) / 1000)
        return Taken(0.001, resend=True)

    def _put(self, item: dict[str, Any], now: datetime) -> dict[str, Any] | None:
        """Write the item of a lease. None if that was done, else the item of its holder."""
        try:
            self._require().put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression="attribute_not_exists(holder) OR ends < :now",
                ExpressionAttributeValues={":now": {"N": str(_since_1970(now))}},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as exc:
            if code_of(exc) != FAILED_CONDITION:
                raise
            return dict(exc.response["Item"])
        return None

    def _mark(self, name: str, holder: str) -> bool:
        return self._update(name, holder, "SET marked = :true", {":true": {"BOOL": True}})

    def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        if not leases:
            return []
        outcomes = self._each(lambda lease: self._renew(lease, ttl), leases)
        for lease, outcome in zip(leases, outcomes, strict=True):
            if outcome is False or time.monotonic() >= lease.expires:
                lease.held = False
            if isinstance(outcome, ProviderError):
                log.warning("lease %s could not be renewed: %s", lease.name, outcome)
        return [lease.held for lease in leases]

    def _renew(self, lease: Lease, ttl: float) -> bool:
        began = time.monotonic()
        if began >= lease.expires:
            return False
        times = {f":{name}": value for name, value in _times(self._measured().now(), ttl).items()}
        # "ttl" is a reserved word there.
        change = "SET ends = :ends, #ttl = :ttl, garbage = :garbage"
        if not self._update(lease.name, lease.token, change, times, {"#ttl": "ttl"}):
            return False
        lease.expires = _expires(began, ttl)
        return True

    def _update(
        self,
        name: str,
        holder: str,
        change: str,
        values: dict[str, Any],
        names: dict[str, str] | None = None,
    ) -> bool:
        """Change the item of a lease, if it is still this holder's."""
        try:
            self._require().update_item(
                TableName=self._table,
                Key={"name": {"S": name}},
                UpdateExpression=change,
                ConditionExpression="holder = :holder",
                ExpressionAttributeValues={**values, ":holder": {"S": holder}},
                **({"ExpressionAttributeNames": names} if names else {}),
            )
        except ClientError as exc:
            if code_of(exc) != FAILED_CONDITION:
                raise
            return False
        return True

    def release(self, leases: Sequence[Lease]) -> list[bool]:
        for lease in leases:
            lease.held = False
        outcomes = self._each(self._release, leases)
        for lease, outcome in zip(leases, outcomes, strict=True):
            if isinstance(outcome, ProviderError):
                log.info("lease %s could not be given back: %s", lease.name, outcome)
        return [outcome is True for outcome in outcomes]

    def _release(self, lease: Lease) -> bool:
        try:
            answer = self._require().delete_item(
                TableName=self._table,
                Key={"name": {"S": lease.name}},
                ConditionExpression="holder = :holder",
                ExpressionAttributeValues={":holder": {"S": lease.token}},
                ReturnValues="ALL_OLD",
            )
        except ClientError as exc:
            if code_of(exc) != FAILED_CONDITION:
                raise
            return False
        return "marked" not in answer["Attributes"]

    def _each(self, act: Callable[[T], R], items: Sequence[T]) -> list[R | ProviderError]:
        """The outcomes or errors of all, asked for side by side."""

        def one(item: T) -> R | ProviderError:
            try:
                return act(item)
            except (ClientError, BotoCoreError) as exc:
                if isinstance(exc, ClientError) and is_missing(exc):
                    return self._table_is_gone()
                return self._access.translated(exc, LockUnavailableError)
            except ProviderError as exc:
                return exc

        pool = self._pool
        if pool is None or len(items) <= 1:
            return [one(item) for item in items]
        return list(pool.map(one, items))

    # ------------------------------------------------------------------------------- the table, the clock

    def _require(self) -> Any:
        client = self._client
        if client is None:
            raise LockUnavailableError("the lock provider is not open")
        return client

    def _create_table(self) -> None:
        client = self._require()
        try:
            client.describe_table(TableName=self._table)
            return
        except ClientError as exc:
            if not is_missing(exc):
                raise
        try:
            client.create_table(
                TableName=self._table,
                AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except ClientError as exc:
            if code_of(exc) != "ResourceInUseException":  # another process was faster
                raise
        try:
            client.get_waiter("table_exists").wait(
                TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
            )
        except WaiterError as exc:
            raise LockUnavailableError(f"the table {self._table} is not ready yet") from exc
        self._remove_garbage()

    def _remove_garbage(self) -> None:
        """Have DynamoDB remove what dead holders leave. Without the permission it stays, and costs little."""
        try:
            self._require().update_time_to_live(
                TableName=self._table,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": "garbage"},
            )
        except ClientError as exc:
            log.info("items of dead holders are not removed from %s: %s", self._table, code_of(exc))

    def _table_is_gone(self) -> ProviderError:
        try:
            with self._access.errors(LockUnavailableError):
                self._create_table()
        except ProviderError as exc:
            return exc
        return LockUnavailableError(f"the table {self._table} was missing; it is made anew")

    def _measured(self) -> ServerClock:
        clock = self._clock
        if clock is None:
            clock = ServerClock(self._server_time, SECOND)
            clock.measure()
            self._clock = clock
        return clock

    def _server_time(self) -> datetime:
        with self._access.errors(LockUnavailableError):
            try:
                answer = self._require().get_item(TableName=self._table, Key={"name": {"S": "clock"}})
            except ClientError as exc:
                if not is_missing(exc):
                    raise
                raise self._table_is_gone() from exc
        headers = {name.lower(): value for name, value in answer["ResponseMetadata"]["HTTPHeaders"].items()}
        if "date" not in headers:
            raise LockUnavailableError(f"{self._access!r} does not tell the time in its answers")
        return parsedate_to_datetime(headers["date"]).astimezone(timezone.utc)


def _since_1970(time: datetime) -> int:
    """In milliseconds."""
    return (time - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)


def _times(now: datetime, ttl: float) -> dict[str, Any]:
    """The attributes of an item that depend on when its lease ends."""
    ends = _since_1970(now) + int(ttl * 1000)
    garbage = ends // 1000 + GARBAGE_AFTER
    return {
        "ends": {"N": str(ends)},
        "ttl": {"N": str(int(ttl * 1000))},
        "garbage": {"N": str(garbage)},
    }


def _milliseconds(item: dict[str, Any], name: str) -> int:
    return int(item[name]["N"])


def _expires(began: float, ttl: float) -> float:
    return began + ttl - (ttl * DRIFT_SHARE + DRIFT_LEAST)
