"""The last hops: the lease is given back, and then the message is acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from liteflow.core import engine
from liteflow.core.activation import Activation, Phase
from liteflow.core.hops import Hops, ignore
from liteflow.core.models import (
    Instance,
)
from liteflow.core.providers import (
    Message,
    WakeMove,
    workflow_queue,
)
from liteflow.core.topics import DUE_TOPIC

log = logging.getLogger("liteflow.runner")


class Leaving(Hops):
    """Out of an instance, in the order that loses nothing: commit, look, release, send, acknowledge."""

    def _leave(self, act: Activation) -> None:
        """Give the lease back; what happens then depends on whether somebody was turned away by it."""
        act.phase = Phase.LEAVING
        self._end_turn(act)
        if act.committed and act.instance is not None and self._hooks.workflow_middleware["execute"]:
            act.committed = False
            view = self._view(act, act.instance)
            observe = partial(self._hooks.observe, "execute", view)
            self._calls.hooks.put(observe, lambda _: self._give_lease_back(act))
        else:
            self._give_lease_back(act)

    def _give_lease_back(self, act: Activation) -> None:
        lease, act.lease = act.lease, None
        if lease is None:
            self._released(act, True)
        else:
            self._calls.release.put(lease, partial(self._released, act))

    def _release_then(self, act: Activation, action: Callable[[], None]) -> None:
        act.phase = Phase.LEAVING
        self._end_turn(act)
        lease, act.lease = act.lease, None
        if lease is None:
            action()
        else:
            self._calls.release.put(lease, lambda _: action())

    def _released(self, act: Activation, clean: bool | Exception) -> None:
        instance = act.instance
        over = instance is None or instance.status.ended
        now = self._persistence.now()
        look_again = bool(act.inputs) or act.again or (clean is not True and not over)
        unfinished = instance is not None and (self._unfinished(instance, now) or self._unchecked(act))
        if self._draining and not act.inputs:
            unseen = look_again or unfinished
            self._hand_back(act, instance, unseen)
        elif look_again:
            self._begin(act)
        elif instance is not None and unfinished:
            self._send_on(act, instance)
        else:
            if instance is not None:
                self._settle(act, instance, now)
            self._done(act)

    @staticmethod
    def _unchecked(act: Activation) -> bool:
        """Are there cancel conditions that nobody has looked at since the last commit?"""
        if not act.unchecked or act.instance is None or act.definition is None:
            return False
        return bool(engine.conditional(act.instance, act.definition))

    def _settle(self, act: Activation, instance: Instance, now: datetime) -> None:
        """The lease was given back cleanly: `wake_at` need not cover its holder's death any more."""
        at = engine.wake_at(instance, now, None)
        if act.unsent and at is not None:
            at = max(at, now + timedelta(seconds=self._settings.wake_grace))  # not again at once
        if at != instance.wake_at or instance.parked is not None:
            self._calls.move.put(WakeMove(instance.id, instance.revision, instance.wake_at, at), ignore)
        if at is not None and (at - now).total_seconds() < self._settings.poll_interval:
            self._queue.notify(DUE_TOPIC, str(at.timestamp()))

    def _send_on(self, act: Activation, instance: Instance) -> None:
        """There is more to do, for anybody: send the id, then acknowledge."""
        message = Message(
            workflow_queue(instance.workflow_definition_id, instance.version), instance.id,
            instance.traceparent,
        )  # fmt: skip

        def sent(result: object) -> None:
            if isinstance(result, Exception):  # wake_at is the lease's end: nothing is lost
                for delivery in act.deliveries:
                    delivery.nack()
                act.deliveries = []
            else:
                grace = self._persistence.now() + timedelta(seconds=self._settings.wake_grace)
                move = WakeMove(instance.id, instance.revision, instance.wake_at, grace, message_sent=True)
                self._calls.move.put(move, ignore)
            self._done(act)

        self._calls.send.put(message, sent)

    def _hand_back(self, act: Activation, instance: Instance | None, unseen: bool) -> None:
        if unseen and instance is not None:
            self._send_on(act, instance)  # a message that comes back looks like a death
            return
        for delivery in act.deliveries:
            if unseen:
                delivery.nack()
            else:
                delivery.ack()
        if not unseen and instance is not None:
            self._settle(act, instance, self._persistence.now())
        act.deliveries = []
        self._done(act)

    def _done(self, act: Activation) -> None:
        for delivery in act.deliveries:
            delivery.ack()
        act.deliveries = []
        if act.inputs or act.again:
            self._begin(act)
        else:
            self._forget(act)
