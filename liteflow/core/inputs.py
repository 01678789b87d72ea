"""What can happen to an instance: the engine's inputs, a closed set of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from liteflow.core import codec
from liteflow.core.codec import Plain
from liteflow.core.models import Claim, Event
from liteflow.core.result import NEXT, ChildRequest, ExecutionResult


@dataclass(frozen=True, slots=True)
class Failure:
    """A body raised: what an error record and the error policy need.

    `permanent`: trying again is no use. `afresh`: the next attempt waits anew instead of going on with
    what this one had got.
    """

    type: str
    message: str
    traceback: str = ""
    permanent: bool = False
    afresh: bool = False


@dataclass(slots=True)  # not frozen: each body leaves one, and that would make it three times as dear
class BodyEnded:
    """A body has run. Either `result`, its values encoded, or `failure` is there. Nobody changes it.

    `started` is when it began, by the store's clock. `data_set` and `data_removed` are the top-level
    attributes of the data that it changed. `claim` is the token of the claim it ran under, if any.
    """

    pointer_id: str
    started: datetime
    result: ExecutionResult | None = None
    failure: Failure | None = None
    data_set: dict[str, Plain] = field(default_factory=dict)
    data_removed: tuple[str, ...] = ()
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class BodyClaimed:
    """A body goes on, or will run, outside the lease, under this claim.

    `over` is the claim whose holder did not renew it in time, if this one takes its place. `started` is
    when the body began, if it has.
    """

    pointer_id: str
    claim: Claim
    over: Claim | None = None
    started: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventsFound:
    """Logged events that may fit open waits, in order of time, then id."""

    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class ConditionsHeld:
    """The cancel conditions of these open pointers are true."""

    pointer_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Archived:
    """Ended pointers that are in the history now and can leave the working document."""

    pointer_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class OutboxSent:
    """The outbox has been sent up to this sequence."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Poisoned:
    """The process of whoever ran this step has died `crashes` times in a row: it is not run once more.

    `over` is the claim that was not renewed, if it ran under one.
    """

    pointer_id: str
    crashes: int
    over: Claim | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The instance must not run at all: it ends as TERMINATED, with this reason."""

    reason: str


Input = BodyEnded | BodyClaimed | EventsFound | ConditionsHeld | Archived | OutboxSent | Poisoned | Refused


def encode_result(result: ExecutionResult) -> ExecutionResult:
    """The same result with its values encoded. `DataError` names what can't be."""
    if result is NEXT:
        return result
    branch = result.branch_values
    values = (branch, result.outcome_value, result.persistence_data, result.activity_parameters)
    if values == (None, None, None, None):
        return result
    return replace(
        result,
        outcome_value=codec.encode(result.outcome_value, "outcome"),
        persistence_data=codec.encode(result.persistence_data, "persistence_data"),
        activity_parameters=codec.encode(result.activity_parameters, "parameters"),
        branch_values=None
        if branch is None
        else tuple(codec.encode(value, f"items[{index}]") for index, value in enumerate(branch)),
    )


def ended_to_plain(ended: BodyEnded) -> Plain:
    """A `BodyEnded` as the arguments of an inbox request, for when the lease is somebody else's."""
    result = ended.result
    plain: dict[str, Any] = {
        "pointer_id": ended.pointer_id,
        "started": codec.encode(ended.started),
        "data_set": dict(ended.data_set),
        "data_removed": list(ended.data_removed),
        "claim": ended.claim,
    }
    if ended.failure is not None:
        failure = ended.failure
        plain["failure"] = list(astuple(failure))
    if result is not None:
        plain["result"] = {
            "proceed": result.proceed,
            "outcome_value": result.outcome_value,
            "persistence_data": result.persistence_data,
            "sleep_for": codec.encode(result.sleep_for),
            "branch_values": None if result.branch_values is None else list(result.branch_values),
            "item_window": result.item_window,
            "event_name": result.event_name,
            "event_key": result.event_key,
            "event_since": codec.encode(result.event_since),
            "blocks": None if result.blocks is None else list(result.blocks),
            "timeout": codec.encode(result.timeout),
            "activity_name": result.activity_name,
            "activity_parameters": result.activity_parameters,
            "child": None if result.child is None else asdict(result.child),
        }
    return plain


def ended_from_plain(plain: Any) -> BodyEnded:
    """The reverse of `ended_to_plain`."""
    result = None
    if "result" in plain:
        values = dict(plain["result"])
        sleep_for: timedelta | None = codec.decode(values["sleep_for"])
        since: datetime | None = codec.decode(values["event_since"])
        branch = values["branch_values"]
        timeout: timedelta | None = codec.decode(values["timeout"])
        blocks, child = values["blocks"], values["child"]
        values.update(
            sleep_for=sleep_for,
            event_since=since,
            branch_values=None if branch is None else tuple(branch),
            timeout=timeout,
            blocks=None if blocks is None else tuple(blocks),
            child=None if child is None else ChildRequest(**child),
        )
        result = ExecutionResult(**values)
    failure = Failure(*plain["failure"]) if "failure" in plain else None
    return BodyEnded(
        pointer_id=plain["pointer_id"],
        started=codec.decode(plain["started"]),
        result=result,
        failure=failure,
        data_set=dict(plain["data_set"]),
        data_removed=tuple(plain["data_removed"]),
        claim=plain["claim"],
    )
