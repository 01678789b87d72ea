"""Activities: work that is done outside, by whoever takes it, under a token that expires."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from liteflow.core import codec
from liteflow.core.errors import ActivityTokenError
from liteflow.core.flow import ACTIVITY_EVENT
from liteflow.core.providers import PersistenceProvider, QueueProvider
from liteflow.core.topics import ACTIVITY_TOPIC

LOOK_EVERY = 1.0
"""Seconds after which one who waits looks again, since broadcasts may get lost and leases run out."""


@dataclass(frozen=True, slots=True)
class PendingActivity:
    """An activity that was taken: do it, and submit its outcome under `token` before `expires`."""

    token: str
    name: str
    parameters: Any
    expires: datetime
    workflow_id: str


class Activities:
    """Takes activities and hands in their outcomes, as events that only their waits take."""

    def __init__(
        self,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        lease: float,
        publish: Callable[..., str],
    ) -> None:
        self._persistence = persistence
        self._queue = queue
        self._lease = timedelta(seconds=lease)
        self._publish = publish

    def take(self, name: str, worker_id: str, timeout: float) -> PendingActivity | None:
        """The oldest one that is offered; waits up to `timeout` seconds for it."""
        taken = self._take(name, worker_id)
        if taken is not None or timeout <= 0:
            return taken
        deadline = time.monotonic() + timeout
        offered = threading.Event()
        unsubscribe = self._queue.subscribe(ACTIVITY_TOPIC + name, lambda _: offered.set())
        try:
            while True:
                taken = self._take(name, worker_id)
                left = deadline - time.monotonic()
                if taken is not None or left <= 0:
                    return taken
                offered.wait(min(LOOK_EVERY, left))
                offered.clear()
        finally:
            unsubscribe()

    def _take(self, name: str, worker_id: str) -> PendingActivity | None:
        while True:
            now = self._persistence.now()
            token = uuid.uuid4().hex
            activity = self._persistence.take_activity(name, worker_id, token, now, now + self._lease)
            if activity is None or activity.until is None:
                return None
            if self._is_wanted(activity.id):
                parameters = codec.decode(activity.parameters)
                return PendingActivity(token, name, parameters, activity.until, activity.instance_id)
            self._persistence.withdraw_activities([activity.id])

    def _is_wanted(self, activity_id: str) -> bool:
        """Is it still waited for? What ended the wait withdraws it, but a moment later."""
        return bool(self._persistence.waiting_for(ACTIVITY_EVENT, activity_id, "", 1))

    def submit(self, token: str, outcome: codec.Plain) -> None:
        """Hand in an outcome. The event comes first: a process that dies after it has lost nothing."""
        activity = self._persistence.activity(token)
        if activity is None or activity.until is None or activity.until <= self._persistence.now():
            raise ActivityTokenError(
                "the token is wrong, was given back or has expired; the activity may be offered again"
            )
        if not self._is_wanted(activity.id):
            raise ActivityTokenError("the workflow does not wait for this activity any more")
        key = f"activity:{activity.id}:{token}"
        self._publish(ACTIVITY_EVENT, activity.id, outcome, id_key=key, internal=True)
        self._persistence.finish_activity(activity.id)

    def release(self, token: str) -> None:
        """Give it back undone."""
        activity = self._persistence.activity(token)
        if activity is None or not self._persistence.release_activity(token):
            raise ActivityTokenError("the token is wrong, was given back or has expired")
        self._queue.notify(ACTIVITY_TOPIC + activity.name)
