"""What an application does with workflows in a history: starts, events, control requests, activities."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, TypeVar

from liteflow.core.client import WorkflowClient, start_id
from liteflow.core.commands import Command
from liteflow.core.errors import ActivityTokenError, UnavailableError
from liteflow.core.models import WorkflowStatus
from liteflow.core.testing.simulation.queue import NodeQueue
from liteflow.core.testing.simulation.world import SECOND, Node

R = TypeVar("R")

COMPLETE = frozenset([WorkflowStatus.COMPLETE])

Scenario = Callable[["Producer"], None]
"""What a producer does. It is begun anew when its process dies, with the same keys and the same `random`."""


class Accepted:
    """What producers were promised: the statuses in which each instance may end up, by its id."""

    def __init__(self) -> None:
        self.statuses: dict[str, frozenset[WorkflowStatus]] = {}
        self.keys: dict[str, set[str]] = {}

    def start(self, instance_id: str, statuses: frozenset[WorkflowStatus], key: str) -> None:
        """An instance was accepted."""
        self.statuses.setdefault(instance_id, statuses)
        self.keys.setdefault(key, set()).add(instance_id)

    def expect(self, instance_id: str, *statuses: WorkflowStatus) -> None:
        """From now on it is to end up in one of these."""
        self.statuses[instance_id] = frozenset(statuses)


class Producer:
    """A client in a process of its own, which may die and be begun anew.

    Calls are made again until they are answered, each with an idempotency key of its own. With `by_command`
    starts, events and terminations are sent as commands, as by a producer in any language.
    """

    def __init__(self, node: Node, client: WorkflowClient, accepted: Accepted, *, by_command: bool) -> None:
        self.random = Random(f"{node.name.partition('#')[0]} of {node.world.seed}")
        """For choices; begins anew with the scenario."""
        self._node = node
        self._client = client
        self._accepted = accepted
        self._by_command = by_command
        self._calls = 0

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._node.world.actor().wait(int(seconds * SECOND), counts=False)

    def start(
        self,
        workflow: str,
        data: Any = None,
        *,
        version: int | None = None,
        key: str | None = None,
        expect: Iterable[WorkflowStatus] = COMPLETE,
    ) -> str:
        """Start an instance; returns its id. In the end it has to be in one of the `expect`ed statuses."""
        key = key or self._key()
        if self._by_command:
            body = {"workflow": workflow, "version": version, "data": data or {}}
            self._command("workflow.start", body, key)
            instance_id = start_id(f"message:{key}")
        else:
            instance_id = self._insist(
                lambda: self._client.start_workflow(workflow, version, data, idempotency_key=key)
            )
        self._accepted.start(instance_id, frozenset(expect), f"{workflow}:{key}")
        return instance_id

    def publish(
        self, name: str, key: str, data: Any = None, *, delay: float | None = None, id_key: str | None = None
    ) -> None:
        """Publish an event, with `delay` one of the future."""
        id_key = id_key or self._key()
        if self._by_command and delay is None:
            self._command("event.publish", {"name": name, "key": key, "data": data}, id_key)
            return
        time = None if delay is None else self._client.persistence.now() + timedelta(seconds=delay)
        self._insist(
            lambda: self._client.publish_event(name, key, data, effective_date=time, idempotency_key=id_key)
        )

    def suspend(self, instance_id: str) -> None:
        """Ask for a suspension. Unless it is resumed or has ended before, it stays suspended."""
        if self._request(instance_id, "suspend"):
            self._accepted.expect(instance_id, WorkflowStatus.SUSPENDED, *_ENDED)

    def resume(self, instance_id: str) -> None:
        """Ask for it to go on, after which it has to end."""
        if self._request(instance_id, "resume"):
            self._accepted.expect(instance_id, *_ENDED)

    def terminate(self, instance_id: str) -> None:
        """Ask for its end."""
        if self._request(instance_id, "terminate"):
            self._accepted.expect(instance_id, *_ENDED)

    def work(self, activity: str, result: Callable[[Any], Any], seconds: float = 60.0) -> bool:
        """Do one activity of this name, once there is one; False if there is none for so long."""
        until = self._node.world.micros + int(seconds * SECOND)
        while self._node.world.micros < until:
            taken = self._insist(lambda: self._client.get_pending_activity(activity, self._node.name))
            if taken is not None:
                done = partial(self._client.submit_activity_success, taken.token, result(taken.parameters))
                try:
                    self._insist(done)
                except ActivityTokenError:
                    continue  # it took too long; somebody gets it again
                return True
            self.sleep(0.5)
        return False

    def status(self, instance_id: str) -> WorkflowStatus | None:
        """The status of an instance as it is now; None as long as there is none."""
        found = self._insist(lambda: self._client.persistence.load([instance_id])).get(instance_id)
        return None if found is None or isinstance(found, Exception) else found.status

    def _request(self, instance_id: str, kind: str) -> bool:
        request_id = self._key()
        while self._by_command and self.status(instance_id) is None:  # the start is still on its way
            self.sleep(0.1)
        if self._by_command and kind == "terminate":
            self._command(f"workflow.{kind}", {"id": instance_id}, request_id)
            return True
        return self._insist(lambda: self._client.request(instance_id, kind, request_id=request_id))

    def _command(self, routing_key: str, body: dict[str, Any], message_id: str) -> None:
        queue = self._client.queue
        assert isinstance(queue, NodeQueue)
        encoded = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
        self._insist(lambda: queue.command(Command(routing_key, encoded, message_id=message_id)))

    def _key(self) -> str:
        self._calls += 1
        return f"{self._node.name.partition('#')[0]}:{self._calls}"

    def _insist(self, call: Callable[[], R]) -> R:
        while True:
            try:
                return call()
            except UnavailableError:
                self.sleep(self._node.world.random.random())


_ENDED = (WorkflowStatus.COMPLETE, WorkflowStatus.TERMINATED)
