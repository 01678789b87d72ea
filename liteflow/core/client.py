"""What anybody can ask of workflows, whether they run in this process or elsewhere.

Starts, events, control requests, activities, and looking: by the definitions that are registered here,
else by those that are recorded in the store.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from liteflow.core import codec, early, engine
from liteflow.core.activities import Activities, PendingActivity
from liteflow.core.admission import admit, engine_options
from liteflow.core.endings import Endings
from liteflow.core.errors import (
    DataError,
    DefinitionNotFoundError,
    UnavailableError,
    WorkflowNotFoundError,
)
from liteflow.core.events import EventDispatcher
from liteflow.core.hooks import Hooks
from liteflow.core.models import (
    ErrorRecord,
    Event,
    Instance,
    Request,
    WorkflowStatus,
)
from liteflow.core.parking import InstanceNotice
from liteflow.core.providers import (
    ListFilter,
    LockProvider,
    Message,
    Page,
    PersistenceProvider,
    QueueProvider,
    RequestOutcome,
    workflow_queue,
)
from liteflow.core.registry import WorkflowRegistry
from liteflow.core.runtime import THREADS, Runtime
from liteflow.core.settings import Settings
from liteflow.core.topics import REQUEST_TOPIC
from liteflow.core.views import WorkflowInstance

log = logging.getLogger("liteflow.host")

_START_IDS = uuid.UUID("8d9c2a54-0a2c-4b0e-9a53-6f1f2b7f4c11")
_EVENT_IDS = uuid.UUID("f2a1f7de-7d53-4a55-8a64-0f6a2f1c0f5e")

RESERVED = "liteflow."
"""So begin the names of the events by which LiteFlow itself ends waits."""

PURGE_AT_ONCE = 500
"""So many instances are deleted in one call."""

FIRST_LOOK = 0.05
"""Seconds after which an instance that was started here is looked at, if its end has not been heard."""

RECORDED_FOR = 1.0
"""Seconds for which the recorded definitions are not read again, so that a burst of starts is cheap."""


def start_id(idempotency_key: str) -> str:
    """The instance id that a start with this key gets, whoever makes it: the store's ids are unique."""
    return str(uuid.uuid5(_START_IDS, idempotency_key))


def event_id(idempotency_key: str) -> str:
    """The same for events."""
    return str(uuid.uuid5(_EVENT_IDS, idempotency_key))


C = TypeVar("C", bound="WorkflowClient")


class WorkflowClient:
    """Talks to workflows through the three providers, and connects to them when first used."""

    def __init__(
        self,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        lock: LockProvider,
        settings: Settings,
        hooks: Hooks,
        runtime: Runtime = THREADS,
    ) -> None:
        self._runtime = runtime
        self.registry = WorkflowRegistry()
        self.settings = settings
        self.persistence = persistence
        self.queue = queue
        self.lock = lock
        self._hooks = hooks
        self._state = threading.RLock()
        self._open = False
        self._events = EventDispatcher(persistence, queue, settings.wake_grace, runtime)
        self._endings = Endings(queue)
        self._create: Callable[[Instance], bool] = runtime.together(persistence.create)
        self._wake: Callable[[Message], None] = runtime.together(self._send_all)
        self._activities = Activities(persistence, queue, settings.activity_lease, self.publish_encoded)
        self._recorded: dict[str, tuple[float, frozenset[int]]] = {}
        self._starting = 0  # starts that are under way
        self._publishing = 0  # and events

    def open(self: C) -> C:
        """Connect to the providers without running anything: enough for a client. Repeatable."""
        if self._open:
            return self  # also while `stop` waits for bodies, which may want this
        with self._state:
            if not self._open:
                self.persistence.open()
                self.queue.open()
                self.lock.open()
                self._open = True
        return self

    # ------------------------------------------------------------------------------------------ instances

    def start_workflow(
        self,
        workflow_id: str,
        version: int | None = None,
        data: Any = None,
        reference: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Store a new instance durably and have it run; returns its id.

        Without `version` the highest is taken: of those registered here, else of those recorded in the
        store. The same `idempotency_key` gives the same instance. `DefinitionNotFoundError` for an
        unknown definition, `DataError` for data that can't be stored or doesn't fit the `data_type`,
        `TypeError` for a version that is no number.
        """
        if version is not None and not isinstance(version, int):
            raise TypeError(f"version is a number, not {type(version).__name__}; data goes to data=")
        plain = codec.encode_data(data)
        key = None if idempotency_key is None else f"{workflow_id}:{idempotency_key}"
        return self.start_encoded(workflow_id, version, plain, reference=reference, key=key)

    def start_encoded(
        self,
        workflow_id: str,
        version: int | None,
        data: dict[str, codec.Plain],
        *,
        reference: str | None = None,
        key: str | None = None,
        traceparent: str | None = None,
        child_id: str | None = None,
        parent: str | None = None,
    ) -> str:
        """`start_workflow` with data that is encoded already. `key` makes the id, or `child_id` is it."""
        self.open()
        if (size := codec.size(data)) > self.settings.max_data_size:
            raise DataError("data", f"it has {size} bytes, over {self.settings.max_data_size}")
        definition = self.registry.find(workflow_id, version)
        if definition is not None:
            version = definition.version
        else:
            version = self._recorded_version(workflow_id, version)
        now, drawn = self.persistence.now(), uuid.uuid4()
        instance = Instance(
            id=child_id or (str(drawn) if key is None else start_id(key)),
            workflow_definition_id=workflow_id,
            version=version,
            create_time=now,
            data=data,
            reference=reference,
            traceparent=traceparent,
            token=drawn.hex,
            begun=False,
            parent=parent,
        )
        if definition is not None:
            codec.decode_data(data, definition.data_type)  # bad data is the caller's to learn of
            admit(instance, definition, self._hooks)
            options = engine_options(self.settings, self._hooks, self.queue, definition)
            begun = engine.advance(instance, definition, now, options=options)
            assert begun is not None
            begun.token = instance.token
            begun.apply(instance)
            instance.revision = 0
        instance.wake_at = now + timedelta(seconds=self.settings.wake_grace)
        instance.message_sent = True
        self._store_and_wake(instance, workflow_queue(workflow_id, version))
        return instance.id

    def _store_and_wake(self, instance: Instance, queue: str) -> None:
        """Store a new instance and send its wake-up: at the same time, if no other start is under way.

        Together with others the trips are shared, and what is sent early is looked for in vain more often.
        """
        message = Message(queue, instance.id, instance.traceparent)
        self._endings.starts(instance.id)
        with self._state:
            alone = not self._starting
            self._starting += 1
        began, confirmed = self._runtime.monotonic(), None
        try:
            if alone:
                confirmed = self.queue.begin_send([replace(message, early=True)])
            new = self._create(instance)
            in_time = self._runtime.monotonic() - began <= early.IN_TIME
        finally:
            with self._state:
                self._starting -= 1
        if not new:
            self._endings.was_there(instance.id)
            return
        if confirmed is not None:
            self._told(instance.id, confirmed)
        if confirmed is None or not in_time:
            self._send(message)

    def start_child(
        self,
        child_id: str,
        workflow: str,
        version: int | None,
        data: dict[str, codec.Plain],
        parent: str | None,
    ) -> None:
        """Start an instance as the child of another one. For LiteFlow; workflows have a verb for it."""
        self.start_encoded(workflow, version, data, child_id=child_id, parent=parent)

    def _recorded_version(self, workflow_id: str, version: int | None) -> int:
        known, now = self._recorded.get(workflow_id), self._runtime.monotonic()
        if known is None or now > known[0] or (version is not None and version not in known[1]):
            versions = frozenset(d.version for d in self.persistence.definitions(workflow_id))
            known = (now + RECORDED_FOR, versions)
            if versions:
                self._recorded[workflow_id] = known
        versions = known[1]
        if version is None and versions:
            return max(versions)
        if version in versions and version is not None:
            return version
        what = f"workflow {workflow_id}" + ("" if version is None else f" version {version}")
        raise DefinitionNotFoundError(
            f"{what} is neither registered here nor known to any worker of this store"
        )

    def publish_event(
        self,
        name: str,
        key: object,
        data: Any = None,
        effective_date: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Store an event durably and have it delivered to every instance that waits for it.

        Returns the event's id. `effective_date` is its time, by default now; one in the future holds
        it until then.
        """
        return self.publish_encoded(
            name,
            str(key),
            codec.encode(data, "data"),
            time=effective_date,
            id_key=None if idempotency_key is None else f"{name}:{idempotency_key}",
        )

    def publish_encoded(
        self,
        name: str,
        key: str,
        data: codec.Plain,
        *,
        time: datetime | None = None,
        id_key: str | None = None,
        traceparent: str | None = None,
        internal: bool = False,
    ) -> str:
        """`publish_event` with data that is encoded already. `id_key` makes the id."""
        self.open()
        if name.startswith(RESERVED) and not internal:
            raise DataError("name", f"names that begin with {RESERVED!r} are LiteFlow's own")
        if time is not None and time.tzinfo is None:
            raise DataError("effective_date", "has no time zone; use datetime.now(timezone.utc) and the like")
        try:
            # Of now is what is past by any process's clock: else one that is behind would not see it yet.
            now = self.persistence.now() - self.persistence.clock_uncertainty
            at = (time or now).astimezone(timezone.utc)
        except OverflowError as exc:
            raise DataError("effective_date", "is beyond the years 1 to 9999 in UTC") from exc
        event = Event(
            id=str(uuid.uuid4()) if id_key is None else event_id(id_key),
            name=name,
            key=key,
            time=at,
            data=data,
            traceparent=traceparent,
        )
        with self._state:
            alone = not self._publishing
            self._publishing += 1
        try:
            # A lone one can afford a look more; together they would only be in each other's way.
            guessed = self._events.guess(event) if alone and self.persistence.shared else ()
            new = self.persistence.add_event(event)
        finally:
            with self._state:
                self._publishing -= 1
        if new:
            try:
                self._events.announce(event, guessed)
            except UnavailableError as exc:
                log.warning(
                    "event %s is stored; its announcement failed (%s); the scheduler sends it", event.id, exc
                )
        return event.id

    def suspend_workflow(self, workflow_id: str, reason: str = "") -> bool:
        """Ask for an instance to be suspended. False if it has ended."""
        return self.request(workflow_id, "suspend", reason)

    def resume_workflow(self, workflow_id: str, reason: str = "") -> bool:
        """Ask for a suspended instance to go on; a step that failed runs again. False if it has ended."""
        return self.request(workflow_id, "resume", reason)

    def terminate_workflow(self, workflow_id: str, reason: str = "") -> bool:
        """Ask for an instance to be ended for good. False if it has ended."""
        return self.request(workflow_id, "terminate", reason)

    def request(
        self, workflow_id: str, kind: str, reason: str = "", *, request_id: str | None = None, by: str = ""
    ) -> bool:
        """Store a control request. It is applied at the instance's next commit."""
        self.open()
        now = self.persistence.now()
        request = Request(kind, request_id or uuid.uuid4().hex, now, by, reason)
        grace = now + timedelta(seconds=self.settings.wake_grace)
        outcome = self.persistence.request(workflow_id, request, grace)
        if outcome is RequestOutcome.NOT_FOUND:
            raise WorkflowNotFoundError(f"there is no workflow with the id {workflow_id}")
        if outcome is RequestOutcome.STORED:
            found = self.persistence.load([workflow_id]).get(workflow_id)
            if isinstance(found, Instance):
                self._send(Message(workflow_queue(found.workflow_definition_id, found.version), workflow_id))
                self.queue.notify(REQUEST_TOPIC, InstanceNotice.of(found).encode())
        return outcome is not RequestOutcome.ENDED

    def _send_all(self, messages: list[Message]) -> list[None]:
        self.queue.send(messages)
        return [None] * len(messages)

    def _send(self, message: Message) -> None:
        self._told(message.body, partial(self._wake, message))

    @staticmethod
    def _told(instance_id: str, send: Callable[[], None]) -> None:
        try:
            send()
        except UnavailableError as exc:
            log.warning(
                "workflow %s is stored; its wake-up could not be sent (%s); the scheduler sends it",
                instance_id, exc,
            )  # fmt: skip

    # ------------------------------------------------------------------------------------------ activities

    def get_pending_activity(
        self, name: str, worker_id: str = "", timeout: float = 0.0
    ) -> PendingActivity | None:
        """Take the oldest activity of this name that is offered, for `activity_lease` seconds.

        Waits up to `timeout` seconds for one; None if there is none. Unless its outcome is submitted before
        it expires, it is offered again.
        """
        self.open()
        return self._activities.take(name, worker_id, timeout)

    def submit_activity_success(self, token: str, result: Any = None) -> None:
        """The activity is done. `ActivityTokenError` if the token is wrong or has expired."""
        self.open()
        self._activities.submit(token, {"result": codec.encode(result, "result")})

    def submit_activity_failure(self, token: str, error: object) -> None:
        """The activity has failed: its step fails with `ActivityFailedError`, under its policy."""
        self.open()
        self._activities.submit(token, {"error": str(error)})

    def release_activity_token(self, token: str) -> None:
        """Give an activity back undone, to be offered again at once."""
        self.open()
        self._activities.release(token)

    # ------------------------------------------------------------------------------------------- cleaning

    def purge_workflows(self, status: WorkflowStatus, older_than: datetime) -> int:
        """Delete instances of an ended status that ended before a point in time, with all that is theirs.

        In batches; returns how many.
        """
        if not status.ended:
            raise ValueError(f"only ended workflows can be purged, not {status.name} ones")
        if older_than.tzinfo is None:
            raise ValueError("older_than has no time zone; use datetime.now(timezone.utc) and the like")
        self.open()
        purged = 0
        while batch := self.persistence.purge(status, older_than, PURGE_AT_ONCE):
            purged += batch
        return purged

    # --------------------------------------------------------------------------------------------- looking

    def get_workflow(self, workflow_id: str) -> WorkflowInstance:
        """An instance as it is now, history included. `WorkflowNotFoundError` for an unknown id."""
        self.open()
        return self._shown(self._found(workflow_id))

    def _shown(self, found: Instance) -> WorkflowInstance:
        definition = self.registry.find(found.workflow_definition_id, found.version)
        data_type = definition.data_type if definition is not None else None
        in_history = len(found.pointers) < found.pointer_sequence
        history = self.persistence.history(found.id) if in_history else ()
        return WorkflowInstance(found, data_type, history)

    def _found(self, workflow_id: str) -> Instance:
        """The working document, without the history, which may be long."""
        found = self.persistence.load([workflow_id]).get(workflow_id)
        if found is None:
            raise WorkflowNotFoundError(f"there is no workflow with the id {workflow_id}")
        if isinstance(found, Exception):
            raise found
        return found

    def wait_for_workflow(self, workflow_id: str, timeout: float | None = None) -> WorkflowInstance:
        """Block until the instance has ended or is suspended. `TimeoutError` after `timeout` seconds."""
        self.open()
        deadline = None if timeout is None else monotonic() + timeout
        with self._endings.of(workflow_id) as ending:
            if ending.runs:  # the first look would be in vain, most likely
                ending.wait(FIRST_LOOK if timeout is None else min(FIRST_LOOK, timeout))
            while True:
                try:
                    found = self._found(workflow_id)
                except UnavailableError:
                    if not ending.soon:
                        raise
                    ending.not_soon()  # as if it had not been told ahead: then this look had not been taken
                else:
                    if found.status is not WorkflowStatus.RUNNABLE:
                        return self._shown(found)
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"workflow {workflow_id} still runs after {timeout} s")
                # The broadcast may get lost: look now and then all the same.
                ending.wait(min(1.0, left) if left is not None else 1.0)

    def get_errors(self, workflow_id: str, limit: int = 100) -> list[ErrorRecord]:
        """The kept errors of an instance, oldest first."""
        self.open()
        return self.persistence.errors(workflow_id, limit)

    def list_workflows(
        self,
        status: WorkflowStatus | None = None,
        workflow: str | None = None,
        reference: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Summaries of instances, newest first; `page.next` is the cursor of the next page, or None."""
        self.open()
        return self.persistence.list(
            ListFilter(
                status=status,
                workflow=workflow,
                reference=reference,
                created_after=created_after,
                created_before=created_before,
                limit=limit,
                cursor=cursor,
            )
        )
