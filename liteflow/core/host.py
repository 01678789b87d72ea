"""The host: what an application talks to.

A host that was not started is a client: it starts workflows, publishes events and looks, by the
definitions that are recorded in the store. A started one also advances instances, and schedules.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from liteflow.core.client import WorkflowClient
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.errors import (
    SettingsError,
)
from liteflow.core.hooks import Hooks, LifecycleEvent, Phase, StepFactory, StepMiddleware, WorkflowMiddleware
from liteflow.core.memory_lock import LocalLockProvider
from liteflow.core.memory_queue import SingleNodeQueueProvider
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.models import (
    DefinitionRecord,
)
from liteflow.core.outbox import Outbox
from liteflow.core.parking import redrive
from liteflow.core.periodic import Periodic
from liteflow.core.poller import Poller
from liteflow.core.presence import Presence
from liteflow.core.providers import (
    EVENTS_QUEUE,
    Consumer,
    LockProvider,
    PersistenceProvider,
    QueueProvider,
    workflow_queue,
)
from liteflow.core.runner import Runner
from liteflow.core.runtime import THREADS, Runtime
from liteflow.core.settings import Settings
from liteflow.core.views import WorkflowInstance
from liteflow.core.workflow import Workflow

log = logging.getLogger("liteflow.host")


class WorkflowHost(WorkflowClient):
    """Registers workflows, starts and steers instances and, once started, runs them.

    `scheduler=False` leaves waking what is due to other processes. `step_factory` makes the objects of the
    user's step classes. `runtime` is for tests that have a clock of their own.
    """

    def __init__(
        self,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        lock: LockProvider,
        settings: Settings,
        *,
        scheduler: bool = True,
        step_factory: StepFactory | None = None,
        runtime: Runtime = THREADS,
    ) -> None:
        _check_sharing(persistence, queue, lock, settings)
        if settings.lease_ttl > lock.longest_ttl:
            raise SettingsError(
                f"option lease_ttl is {settings.lease_ttl:g} s, but the leases of {type(lock).__name__} last"
                f" {lock.longest_ttl:g} s at most"
            )
        super().__init__(persistence, queue, lock, settings, Hooks(step_factory), runtime)
        self._steering = threading.RLock()  # one start or stop at a time
        self._with_scheduler = scheduler
        self._runner: Runner | None = None
        self._poller: Poller | None = None
        self._heartbeats: list[Periodic] = []
        self._presence: Presence | None = None
        self._consumers: list[Consumer] = []
        self._event_consumer: Consumer | None = None
        self._prefetch = 0

    # ------------------------------------------------------------------------------------- definitions

    def register_workflow(self, workflow: Workflow | type[Workflow]) -> WorkflowDefinition:
        """Make a workflow known to this host. `DefinitionError` if it is not valid or known already."""
        definition = self.registry.register_workflow(workflow)
        if self._runner is not None:
            self._take_over([definition])
        return definition

    def is_registered(self, workflow_id: str, version: int | None = None) -> bool:
        """True if this version is registered here, or any if none is given."""
        return self.registry.is_registered(workflow_id, version)

    # ------------------------------------------------------------------------------------------- hooks

    def add_step_middleware(self, middleware: StepMiddleware) -> None:
        """Run ``middleware(context, body, next)`` around each body; ``next()`` gives the result.

        The first that was added is outermost.
        """
        self._hooks.step_middleware.append(middleware)

    def add_workflow_middleware(self, phase: Phase, middleware: WorkflowMiddleware) -> None:
        """Run ``middleware(instance, next)`` in a phase of an instance's life.

        ``pre``: before anything of it is stored; what it raises refuses the start. ``post``: when it has
        ended, however it did. ``execute``: each time that it was advanced.
        """
        if phase not in self._hooks.workflow_middleware:
            raise SettingsError(f"there is no phase {phase!r}; phases are 'pre', 'post' and 'execute'")
        self._hooks.workflow_middleware[phase].append(middleware)

    def on_lifecycle_event(self, callback: Callable[[LifecycleEvent], Any]) -> None:
        """Call back with what happens to instances, after it was stored, in order for each instance.

        Called in the process that advanced the instance.
        """
        self._hooks.on_lifecycle_event.append(callback)

    def on_step_error(self, callback: Callable[[WorkflowInstance, Any, BaseException], Any]) -> None:
        """Call back with (instance, step, exception) when a step has failed, also if it is tried again."""
        self._hooks.on_step_error.append(callback)

    # ----------------------------------------------------------------------------------- start and stop

    def start(self) -> None:
        """Begin to run workflows, in threads of this process. Does nothing if it runs."""
        with self._steering:
            if self._runner is not None:
                return
            self.open()
            self._runner = Runner(
                self.registry,
                self.persistence,
                self.queue,
                self.lock,
                self.settings,
                hooks=self._hooks,
                send_outbox=Outbox(
                    self,
                    self.persistence,
                    self.queue,
                    self._hooks,
                    publish_lifecycle=self.settings.lifecycle is not False,
                ).send,
                room_changed=self._room_changed,
                runtime=self._runtime,
            )
            self._runner.start()
            self._events.start()
            for name, renew in (
                ("leases", self._runner.renew_leases),
                ("claims", self._runner.renew_claims),
            ):
                self._heartbeats.append(self._runtime.periodic(name, partial(self._beat, renew)))
                self._heartbeats[-1].start()
            if self._with_scheduler:
                self._poller = Poller(
                    self.persistence, self.queue, self.lock, self.settings, self._runtime,
                    leads_now=self._tell_of_leading,
                )  # fmt: skip
            self._presence = Presence(
                self.persistence,
                self.registry.get_all,
                leading=lambda: None if self._poller is None else self._poller.leads,
                revived=lambda: self._redrive(self.registry.get_all()),
                runtime=self._runtime,
            )
            self._presence.start()
            self._prefetch = self._runner.room
            self._event_consumer = self.queue.consume([EVENTS_QUEUE], 32, self._events.deliver)
            self._take_over(self.registry.get_all())
            if self._poller is not None:
                self._poller.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Stop taking work, wait for running bodies up to `timeout` (`shutdown_timeout`), give back the rest.

        True if all running bodies ended in time. The host can be started again.
        """
        with self._steering:
            runner, self._runner = self._runner, None
            finished = True
            if runner is not None:
                for consumer in [*self._consumers, self._event_consumer]:
                    if consumer is not None:
                        consumer.cancel()
                self._consumers, self._event_consumer = [], None
                if self._poller is not None:
                    self._poller.stop()
                self._events.stop()
                finished = runner.stop(self.settings.shutdown_timeout if timeout is None else timeout)
                for heartbeat in self._heartbeats:
                    heartbeat.stop()
                if self._presence is not None:
                    self._presence.stop()
                self._heartbeats = []
                self._poller = self._presence = None
            with self._state:
                if self._open:
                    self._open = False
                    self._events.close()
                    self.queue.close()
                    self._endings.forget()
                    self.lock.close()
                    self.persistence.close()
            return finished

    def __enter__(self) -> WorkflowHost:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _beat(self, renew: Callable[[], None]) -> float:
        renew()
        return self.settings.lease_ttl / 3

    def _take_over(self, definitions: list[WorkflowDefinition]) -> None:
        """Let the world know of the definitions, take their work, and look again at what was parked."""
        runner, presence = self._runner, self._presence
        if runner is None or presence is None or not definitions:
            return
        self.persistence.record_definitions(
            [DefinitionRecord(d.id, d.version, d.fingerprint) for d in definitions]
        )
        # Told before it is looked for what is parked: nobody parks for want of a worker after that.
        presence.beat()
        queues = [workflow_queue(d.id, d.version) for d in definitions]
        self._consumers.append(self.queue.consume(queues, self._prefetch, runner.deliver))
        self._redrive(definitions)

    def _tell_of_leading(self) -> None:
        if self._presence is not None:
            self._presence.nudge()

    def _redrive(self, definitions: list[WorkflowDefinition]) -> None:
        for definition in definitions:
            redrive(self.persistence, self.queue, definition.id, definition.version)

    def _room_changed(self, instances: int) -> None:
        """Take no more messages than can be dealt with."""
        self._prefetch = instances
        for consumer in list(self._consumers):
            consumer.limit(instances)


def configure_workflow_host(
    persistence_service: PersistenceProvider | None = None,
    queue_service: QueueProvider | None = None,
    lock_service: LockProvider | None = None,
    **options: Any,
) -> WorkflowHost:
    """Make a host. Without providers it runs in this process alone, in memory.

    Options are those of `Settings`: concurrency, lease_ttl, poll_interval, shutdown_timeout,
    max_data_size, on_error, ... `SettingsError` names what is wrong with them. `step_factory` makes the
    objects of step classes: ``step_factory(cls, context)``.
    """
    step_factory = options.pop("step_factory", None)
    return WorkflowHost(
        persistence_service or MemoryPersistenceProvider(),
        queue_service or SingleNodeQueueProvider(),
        lock_service or LocalLockProvider(),
        Settings.of(options),
        step_factory=step_factory,
    )


def _check_sharing(
    persistence: PersistenceProvider, queue: QueueProvider, lock: LockProvider, settings: Settings
) -> None:
    if not persistence.shared or persistence.embedded or settings.allow_local_lock:
        return
    for what, provider in (("queue", queue), ("lock", lock)):
        if not provider.shared:
            raise SettingsError(
                f"the store is shared between processes, but the {what} provider"
                f" ({type(provider).__name__}) works in this process only, so that two processes would"
                f" get in each other's way; give a shared {what}, or insist with allow_local_lock=True"
            )
