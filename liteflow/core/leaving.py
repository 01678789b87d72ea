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

log = logging.getLogger("liteflow.runner")


class Leaving(Hops):
    """Out of an instance, in the order that loses nothing.

    Commit, look, clear `wake_at`, release, say that it is sent on, send, acknowledge.
    """

    def _leave(self, act: Activation) -> None:
        """Give the lease back; what happens then depends on whether somebody was turned away by it."""
        act.phase = Phase.LEAVING
        if act.counted and act.instance is not None:  # what is parked stays counted
            self._count_back(act)
            return
        self._end_turn(act)
        if act.committed and act.instance is not None and self._hooks.workflow_middleware["execute"]:
            act.committed = False
            view = self._view(act, act.instance)
            observe = partial(self._hooks.observe, "execute", view)
            self._calls.hooks.put(observe, lambda _: self._settle(act))
        else:
            self._settle(act)

    def _settle(self, act: Activation) -> None:
        """If all is done, `wake_at` need not cover this holder's death any more.

        Before the release, and with the message in hand: who is turned away meanwhile relies on
        `wake_at`, also where it was early enough already, which no comparison tells. But they leave a
        mark, and if this process dies its message comes back; either way somebody looks again.
        Who has no message in hand, as after a long step, only lowers it: the scheduler's look is the last.
        """
        instance, now = act.instance, self._persistence.now()
        left = act.lease is None or act.inputs or act.again
        if instance is None or left or self._left_undone(act, instance, now):
            self._give_lease_back(act)
            return
        at = engine.wake_at(instance, now, None)
        if act.unsent and at is not None:
            at = max(at, now + timedelta(seconds=self._settings.wake_grace))  # not again at once
        if not act.deliveries and instance.wake_at is not None and (at is None or at > instance.wake_at):
            at = instance.wake_at
        if at == instance.wake_at and instance.parked is None:
            self._give_lease_back(act)
            return
        move = WakeMove(instance.id, instance.revision, instance.inbox_sequence, instance.wake_at, at)

        def moved(result: object) -> None:
            if isinstance(result, Exception):  # it may come true later: the message must not be gone by then
                self._release_then(act, partial(self._pause, act, result))
                return
            instance.wake_at, instance.parked = at, None
            self._give_lease_back(act)

        self._calls.move.put(move, moved)

    def _left_undone(self, act: Activation, instance: Instance, now: datetime) -> bool:
        """Could somebody go on at once, or was a look into the event log cut off?"""
        return self._unfinished(instance, now) or self._unchecked(act) or act.looking > 0

    def _count_back(self, act: Activation) -> None:
        """What was counted has not come true: this process lives. Stored before anybody else can look."""
        assert act.instance is not None
        act.counted, act.suspect = False, True  # what it is suspected of has not been tried
        back = partial(self._persistence.count_crash, act.instance_id, act.instance.revision, -1)
        self._calls.write.put(back, lambda _: self._leave(act))

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
        # Who was turned away from one that was still to come relies on its being looked for once more.
        gone = instance is None and not any(delivery.message.early for delivery in act.deliveries)
        over = gone or (instance is not None and instance.status.ended)
        now = self._persistence.now()
        look_again = bool(act.inputs) or act.again or (clean is not True and not over)
        unfinished = instance is not None and self._left_undone(act, instance, now)
        if self._draining and not act.inputs:
            unseen = look_again or unfinished
            self._hand_back(act, instance, unseen)
        elif look_again:
            self._begin(act)
        elif instance is not None and unfinished:
            self._send_on(act, instance)
        else:
            if instance is not None:
                self._tell_scheduler(instance.wake_at, now)
            self._done(act)

    @staticmethod
    def _unchecked(act: Activation) -> bool:
        """Are there cancel conditions that nobody has looked at since the last commit?"""
        if not act.unchecked or act.instance is None or act.definition is None:
            return False
        return bool(engine.conditional(act.instance, act.definition))

    def _send_on(self, act: Activation, instance: Instance) -> None:
        """There is more to do, for anybody: send the id, then acknowledge what came before that.

        With a message in hand, which comes back if this process dies, it is stored first that the id is sent:
        who gets it would take this process for dead else. Without one that would hide that it was not sent.
        """
        message = Message(
            workflow_queue(instance.workflow_definition_id, instance.version), instance.id,
            instance.traceparent, recalled=act.suspect or act.doubted,
        )  # fmt: skip
        deliveries, act.deliveries, act.again = act.deliveries, [], False
        grace = self._persistence.now() + timedelta(seconds=self._settings.wake_grace)
        move = WakeMove(
            instance.id, instance.revision, instance.inbox_sequence, instance.wake_at, grace,
            message_sent=not act.suspect,  # who is sent a suspect has to know
        )  # fmt: skip
        # Not with other moves, which need not wait until all can see them.
        store = partial(self._persistence.move_wake, [move])

        def sent(result: object) -> None:
            for delivery in deliveries:
                if isinstance(result, Exception):
                    delivery.nack()
                else:
                    delivery.ack()
            if not deliveries and not isinstance(result, Exception):
                self._calls.write.put(store, ignore)
            self._done(act)

        if deliveries:
            self._calls.write.put(store, lambda _: self._calls.send.put(message, sent))
        else:
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
            self._tell_scheduler(instance.wake_at, self._persistence.now())
        act.deliveries, act.again = [], False
        self._done(act)

    def _done(self, act: Activation) -> None:
        if act.inputs or act.again:
            self._begin(act)  # what came meanwhile is acknowledged when somebody has looked
            return
        for delivery in act.deliveries:
            delivery.ack()
        act.deliveries = []
        self._forget(act)
