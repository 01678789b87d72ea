"""From an event in the log to the wake-ups of those who wait for it.

Takes no lease and changes no instance: each one takes the event out of the log itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta

from liteflow.core.bundles import bundled
from liteflow.core.errors import UnavailableError
from liteflow.core.models import Event
from liteflow.core.presence import Runnable
from liteflow.core.providers import (
    EVENTS_QUEUE,
    Delivery,
    Message,
    PersistenceProvider,
    QueueProvider,
    Waiter,
    workflow_queue,
)
from liteflow.core.runtime import THREADS, Runtime
from liteflow.core.stage import Stage
from liteflow.core.topics import DUE_TOPIC

log = logging.getLogger("liteflow.events")

PAGE = 500
"""So many waiting instances are woken at a time."""

FEW = 20
"""So many are woken by whoever publishes the event, in the call."""


class EventDispatcher:
    """Wakes the instances that wait for an event, then marks it as processed.

    Where the store lasts and the queue ends with this process, their messages do not keep the promise of that
    mark: then `wake_at` has to, within `grace` seconds.
    """

    def __init__(
        self,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        grace: float,
        runtime: Runtime = THREADS,
    ) -> None:
        self._runtime = runtime
        self._grace = grace
        self._outlives_messages = persistence.shared and not queue.shared
        self._persistence = persistence
        self._queue = queue
        self._runnable = Runnable(persistence)
        self._stage: Stage[Delivery, None] | None = None
        self._starting = threading.Lock()
        self._marks: Stage[str, None] | None = None
        self._guesses: Stage[Event, list[Waiter]] | None = None

    def start(self) -> None:
        """Begin to take deliveries."""
        self._stage = self._runtime.stage("events", self._deliver_all, lambda action: action(), most=32)

    def stop(self) -> None:
        """Finish what was taken."""
        if self._stage is not None:
            self._stage.close()
            self._stage = None

    def deliver(self, delivery: Delivery) -> None:
        """Take the id of an event from the queue. It is acknowledged when its waiters have been woken."""
        stage = self._stage
        if stage is None:
            delivery.nack()
        else:
            stage.put(delivery, lambda _: None)

    def guess(self, event: Event) -> list[Waiter]:
        """Who waits for an event that is about to be stored. Returns at once: the list is filled later.

        Only a look after the event is stored counts, since who begins to wait before that looks into the
        log. But most were there already, and `announce` wakes them without that look.
        """
        found: list[Waiter] = []

        def answered(result: list[Waiter] | Exception) -> None:
            if not isinstance(result, Exception) and len(result) <= FEW:
                found.extend(result)

        with self._starting:
            if self._guesses is None:
                self._guesses = self._runtime.stage("guesses", self._few, lambda action: action())
            self._guesses.put(event, answered)
        return found

    def _few(self, events: list[Event]) -> list[list[Waiter]]:
        return [self._persistence.waiting_for(event.name, event.key, "", FEW + 1) for event in events]

    def announce(self, event: Event, guessed: Sequence[Waiter] = ()) -> None:
        """Wake the few that wait for a logged event; of many, have a worker wake them.

        For one of the future, tell the scheduler when. That is one that some process's clock may be short of:
        who is woken for it must not find that it is still to come.
        """
        if event.time > self._persistence.now() - self._persistence.clock_uncertainty:
            self._queue.notify(DUE_TOPIC, str(event.time.timestamp()))
            return
        guessed = tuple(guessed) if not self._outlives_messages else ()  # what there is by now
        confirmed = self._queue.begin_send(_wakes(event, guessed))
        (few,) = self._few([event])
        confirmed()
        if len(few) > FEW:
            self._queue.send([Message(EVENTS_QUEUE, event.id, event.traceparent)])
            return
        self._wake(event, few, frozenset(guessed))
        self._mark(event)

    def dispatch(self, event: Event) -> int:
        """Wake all that wait for the event; returns how many instances that were."""
        woken, after = 0, ""
        while True:
            page = self._persistence.waiting_for(event.name, event.key, after, PAGE)
            self._wake(event, page)
            woken += len(page)
            if len(page) < PAGE:
                self._mark(event)
                return woken
            after = page[-1].instance_id

    def _wake(self, event: Event, waiters: Sequence[Waiter], woken: frozenset[Waiter] = frozenset()) -> None:
        if not waiters:
            return
        if self._outlives_messages:
            at = self._persistence.now() + timedelta(seconds=self._grace)
            self._persistence.lower_wake({one.instance_id: at for one in waiters})
        left = [waiter for waiter in waiters if waiter not in woken]
        self._queue.send(bundled(_wakes(event, left), self._runtime.spread))
        runnable = self._runnable.definitions()
        nobody_s = [one for one in waiters if (one.workflow_definition_id, one.version) not in runnable]
        if nobody_s:
            # Their messages may lie for long, and a queue of this process ends with it. The scheduler parks
            # them, so that whoever can run them some day finds them in the store.
            now = self._persistence.now()
            self._persistence.lower_wake({one.instance_id: now for one in nobody_s})
            self._queue.notify(DUE_TOPIC, str(now.timestamp()))

    def _mark(self, event: Event) -> None:
        """Have it marked as processed, with others, soon: nobody waits for that.

        If it is not, the scheduler has the waiters woken once more.
        """
        with self._starting:
            if self._marks is None:
                self._marks = self._runtime.stage("marks", self._mark_all, lambda action: action(), most=500)
            self._marks.put(event.id, lambda _: None)

    def _mark_all(self, event_ids: list[str]) -> list[None]:
        self._persistence.mark_processed(event_ids)
        return [None] * len(event_ids)

    def close(self) -> None:
        """Finish what was begun."""
        with self._starting:
            stages = [stage for stage in (self._marks, self._guesses) if stage is not None]
            self._marks = self._guesses = None
        for stage in stages:
            stage.close()

    def _deliver_all(self, deliveries: list[Delivery]) -> list[None]:
        for delivery in deliveries:
            try:
                event = self._persistence.event(delivery.message.body)
                if event is not None and not event.processed:
                    woken = self.dispatch(event)
                    log.debug("event %s (%s, %s) wakes %d", event.id, event.name, event.key, woken)
            except UnavailableError as exc:
                # The scheduler finds the event as unprocessed: dropping the message loses nothing.
                log.warning("event %s: %s; the scheduler will send it again", delivery.message.body, exc)
            except Exception:
                log.exception("event %s can't be dispatched", delivery.message.body)
            delivery.ack()
        return [None] * len(deliveries)


def _wakes(event: Event, waiters: Sequence[Waiter]) -> list[Message]:
    return [
        Message(
            workflow_queue(waiter.workflow_definition_id, waiter.version),
            waiter.instance_id,
            event.traceparent,
        )
        for waiter in waiters
    ]
