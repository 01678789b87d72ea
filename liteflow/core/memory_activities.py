"""The activities of the memory provider. Its methods are called under the provider's lock."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable
from datetime import datetime

from liteflow.core.memory_copy import own
from liteflow.core.models import Activity


class ActivityPool:
    """Activities by id, by token, and by name in the order in which they are taken."""

    def __init__(self) -> None:
        self._activities: dict[str, Activity] = {}
        self._tokens: dict[str, str] = {}
        self._offered: dict[str, list[tuple[datetime, str]]] = {}

    def offer(self, activities: Iterable[Activity]) -> None:
        """Insert copies of those whose id is not there."""
        for activity in activities:
            if activity.id not in self._activities:
                self._activities[activity.id] = own(activity)
                offered = self._offered.setdefault(activity.name, [])
                bisect.insort(offered, (activity.time, activity.id))

    def take(self, name: str, worker: str, token: str, now: datetime, until: datetime) -> Activity | None:
        """Lease the oldest of this name that is free."""
        for _, activity_id in self._offered.get(name, []):
            activity = self._activities[activity_id]
            if activity.until is None or activity.until <= now:
                self._lease(activity, token, worker, until)
                return own(activity)
        return None

    def of_token(self, token: str) -> Activity | None:
        """The one that is leased under this token."""
        activity_id = self._tokens.get(token)
        return own(self._activities[activity_id]) if activity_id is not None else None

    def finish(self, activity_id: str) -> None:
        """Keep only a mark of it."""
        activity = self._activities.get(activity_id)
        if activity is not None:
            self._close(activity)
            activity.done = True
            activity.parameters = None

    def release(self, token: str) -> bool:
        """End a lease; False if there is none."""
        activity_id = self._tokens.get(token)
        if activity_id is not None:
            self._lease(self._activities[activity_id])
        return activity_id is not None

    def withdraw(self, activity_ids: Iterable[str]) -> None:
        """Delete these."""
        for activity_id in activity_ids:
            activity = self._activities.pop(activity_id, None)
            if activity is not None:
                self._close(activity)

    def withdraw_all_of(self, instance_ids: Collection[str]) -> None:
        """Delete all activities of these instances."""
        self.withdraw([one.id for one in self._activities.values() if one.instance_id in instance_ids])

    def _lease(
        self, activity: Activity, token: str = "", worker: str = "", until: datetime | None = None
    ) -> None:
        """Put another lease, or none, in the place of the one that there is."""
        self._tokens.pop(activity.token, None)
        activity.token, activity.worker, activity.until = token, worker, until
        if token:
            self._tokens[token] = activity.id

    def _close(self, activity: Activity) -> None:
        """Nobody takes it any more."""
        self._lease(activity)
        if not activity.done:
            offered = self._offered[activity.name]
            del offered[bisect.bisect_left(offered, (activity.time, activity.id))]
            if not offered:
                del self._offered[activity.name]
