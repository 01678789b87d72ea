"""What commits have put into outboxes, and how it gets out: after the commit, in order, at least once."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from liteflow.core import codec
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.errors import UnavailableError, WorkflowNotFoundError
from liteflow.core.flow import CHILD_EVENT
from liteflow.core.hooks import Hooks, LifecycleEvent
from liteflow.core.lifecycle import LifecycleMessage, LifecyclePublisher, routing_key
from liteflow.core.models import Activity, Instance, OutboxItem
from liteflow.core.providers import PersistenceProvider, QueueProvider
from liteflow.core.topics import ACTIVITY_TOPIC
from liteflow.core.views import WorkflowInstance

log = logging.getLogger("liteflow.outbox")


class Client(Protocol):
    """What the outbox needs of the host: to do for an instance what others ask of it."""

    def start_child(
        self,
        child_id: str,
        workflow: str,
        version: int | None,
        data: dict[str, codec.Plain],
        parent: str | None,
    ) -> None:
        """Start an instance under a given id."""

    def publish_encoded(self, name: str, key: str, data: codec.Plain, *, id_key: str, internal: bool) -> str:
        """Publish an event once."""

    def request(self, workflow_id: str, kind: str, reason: str, *, request_id: str, by: str) -> bool:
        """Ask something of an instance."""


class Outbox:
    """Sends the items of outboxes, for one instance from one thread at a time."""

    def __init__(
        self,
        client: Client,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        hooks: Hooks,
        *,
        publish_lifecycle: bool,
    ) -> None:
        self._client = client
        self._persistence = persistence
        self._queue = queue
        self._hooks = hooks
        publishes = publish_lifecycle and isinstance(queue, LifecyclePublisher)
        self._publisher = queue if publishes and isinstance(queue, LifecyclePublisher) else None

    def send(self, instance: Instance, definition: WorkflowDefinition, items: Sequence[OutboxItem]) -> None:
        """Returns when all are where they belong; raises `UnavailableError` if that has to be tried again."""
        events: list[LifecycleEvent] = []
        for item in items:
            what, _, kind = item.kind.partition(".")
            if what == "lifecycle":
                events.append(_event(instance, item, kind))
            elif what == "activity":
                self._activity(instance, item, kind)
            else:
                self._child(instance, item, kind)
        if events and self._publisher is not None:
            self._publisher.publish_lifecycle([lifecycle_message(event) for event in events])
        for event in events:  # what is called here must not be called again because something failed before
            self._tell(instance, definition, event)

    # ------------------------------------------------------------------------------- lifecycle events

    def _tell(self, instance: Instance, definition: WorkflowDefinition, event: LifecycleEvent) -> None:
        self._hooks.tell(event)
        if event.kind in ("completed", "terminated"):
            self._hooks.observe("post", WorkflowInstance(instance.copy(), definition.data_type))

    # ------------------------------------------------------------------------------------- activities

    def _activity(self, instance: Instance, item: OutboxItem, kind: str) -> None:
        body: Any = item.body
        if kind == "withdraw":
            self._persistence.withdraw_activities([body["id"]])
            return
        offered = datetime.fromisoformat(body["time"])
        activity = Activity(body["id"], body["name"], body["parameters"], offered, instance.id)
        self._persistence.offer_activities([activity])
        self._queue.notify(ACTIVITY_TOPIC + activity.name)

    # --------------------------------------------------------------------------------------- children

    def _child(self, instance: Instance, item: OutboxItem, kind: str) -> None:
        body: Any = item.body
        if kind == "start":
            self._start_child(instance, body)
        elif kind == "ended":
            data: codec.Plain = {codec.MARKER: "object", **instance.data}
            self._child_ended(instance.id, instance.status.name, instance.reason, data)
        else:
            reason = f"its parent {instance.id} has ended"
            try:
                self._client.request(
                    body["id"], "terminate", reason, request_id=f"parent:{instance.id}", by="parent"
                )
            except WorkflowNotFoundError:
                log.info("workflow %s: its child %s was never started", instance.id, body["id"])

    def _start_child(self, instance: Instance, body: dict[str, Any]) -> None:
        parent = instance.id if body["wait"] else None
        try:
            self._client.start_child(body["id"], body["workflow"], body["version"], body["data"], parent)
        except UnavailableError:
            raise
        except Exception as exc:  # unknown, bad data, or refused by a middleware: that is the step's error
            reason = f"{type(exc).__name__}: {exc}"
            log.warning("workflow %s: child %s can't be started: %s", instance.id, body["workflow"], reason)
            if parent is not None:
                self._child_ended(body["id"], "REFUSED", reason, None)

    def _child_ended(self, child_id: str, status: str, reason: str | None, data: codec.Plain) -> None:
        answer: codec.Plain = {"status": status, "reason": reason, "data": data}
        self._client.publish_encoded(CHILD_EVENT, child_id, answer, id_key=f"child:{child_id}", internal=True)


def _event(instance: Instance, item: OutboxItem, kind: str) -> LifecycleEvent:
    details: Any = item.body or {}
    return LifecycleEvent(
        kind=kind,
        workflow_id=instance.id,
        workflow_definition_id=instance.workflow_definition_id,
        version=instance.version,
        reference=instance.reference,
        time=item.time,
        sequence=item.sequence,
        step_id=details.get("step_id"),
        error=details.get("error"),
        reason=details.get("reason"),
    )


def lifecycle_message(event: LifecycleEvent) -> LifecycleMessage:
    """An event in the form of the public contract."""
    body = {
        "kind": event.kind,
        "id": event.workflow_id,
        "workflow": event.workflow_definition_id,
        "version": event.version,
        "reference": event.reference,
        "time": event.time.isoformat().replace("+00:00", "Z"),
        "sequence": event.sequence,
        "step": event.step_id,
        "error": event.error,
        "reason": event.reason,
    }
    return LifecycleMessage(
        routing_key(event.workflow_definition_id, event.version, event.kind),
        json.dumps({name: value for name, value in body.items() if value is not None}).encode(),
        f"{event.workflow_id}:{event.sequence}",
    )
