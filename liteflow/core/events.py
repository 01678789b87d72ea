"""From an event in the log to the wake-ups of those who wait for it.

Takes no lease and changes no instance: each one takes the event out of the log itself.
"""

from __future__ import annotations

import logging

from liteflow.core.errors import UnavailableError
from liteflow.core.models import Event
from liteflow.core.providers import (
    EVENTS_QUEUE,
    Delivery,
    Message,
    PersistenceProvider,
    QueueProvider,
    workflow_queue,
)
from liteflow.core.stage import Stage
from liteflow.core.topics import DUE_TOPIC

log = logging.getLogger("liteflow.events")

PAGE = 500
"""So many waiting instances are woken at a time."""


class EventDispatcher:
    """Wakes the instances that wait for an event, then marks it as processed."""

    def __init__(self, persistence: PersistenceProvider, queue: QueueProvider) -> None:
        self._persistence = persistence
        self._queue = queue
        self._stage: Stage[Delivery, None] | None = None

    def start(self) -> None:
        """Begin to take deliveries."""
        self._stage = Stage("events", self._deliver_all, lambda action: action(), most=32)

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

    def announce(self, event: Event) -> None:
        """Send a logged event's id to whoever dispatches; for one of the future, tell the scheduler when."""
        if event.time > self._persistence.now():
            self._queue.notify(DUE_TOPIC, str(event.time.timestamp()))
        else:
            self._queue.send([Message(EVENTS_QUEUE, event.id, event.traceparent)])

    def dispatch(self, event: Event) -> int:
        """Wake all that wait for the event; returns how many instances that were."""
        woken, after = 0, ""
        while True:
            page = self._persistence.waiting_for(event.name, event.key, after, PAGE)
            if page:
                self._queue.send(
                    [
                        Message(
                            workflow_queue(waiter.workflow_definition_id, waiter.version),
                            waiter.instance_id,
                            event.traceparent,
                        )
                        for waiter in page
                    ]
                )
                woken += len(page)
                after = page[-1].instance_id
            if len(page) < PAGE:
                self._persistence.mark_processed([event.id])
                return woken

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
