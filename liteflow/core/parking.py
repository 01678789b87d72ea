"""Parked instances: set aside because nobody can go on with them, and looked at again when somebody can.

Nothing is due for a parked instance. So whoever can go on with it has to be found by one of these:

- A process that begins to run a definition tells so by its heartbeat, then sends all that is parked of it.
  So does one whose heartbeat was late.
- The scheduler, when it has parked what nobody runs, asks once more who is there.
- A process that parks what it can't run itself, but others may, tells the others.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime

from liteflow.core.definition import WorkflowDefinition
from liteflow.core.models import Instance, Parked
from liteflow.core.providers import Message, PersistenceProvider, QueueProvider, workflow_queue
from liteflow.core.registry import WorkflowRegistry

log = logging.getLogger("liteflow.parking")

REDRIVE_AT_ONCE = 1000
"""So many parked instances of a definition are sent at a time."""


def nobody_runs(workflow_definition_id: str, version: int, now: datetime) -> Parked:
    """Parked since no process that lives has the definition."""
    what = f"{workflow_definition_id} version {version}"
    return Parked(f"no worker with {what} is alive", now, f"a worker with {what}")


def not_known_here(instance: Instance, now: datetime) -> Parked:
    """Parked by a process that has not, or not any more, the definition."""
    what = f"{instance.workflow_definition_id} version {instance.version}"
    return _since(instance, Parked(f"workflow {what} is not known here", now, f"a worker with {what}"))


def changed_definition(instance: Instance, now: datetime) -> Parked:
    """Parked by a process that has another definition under the same id and version."""
    what = f"{instance.workflow_definition_id} version {instance.version}"
    return _since(
        instance,
        Parked(
            f"the definition of {what} has changed since this instance began",
            now,
            f"the definition with fingerprint {instance.fingerprint}",
        ),
    )


def _since(instance: Instance, parked: Parked) -> Parked:
    """The same if it was parked for this before, since then."""
    before = instance.parked
    return before if before is not None and before.reason == parked.reason else parked


def redrive(
    persistence: PersistenceProvider, queue: QueueProvider, workflow_definition_id: str, version: int
) -> None:
    """Send the ids of all parked instances of a definition to whoever runs it."""
    name, after = workflow_queue(workflow_definition_id, version), ""
    while parked := persistence.parked(workflow_definition_id, version, after, REDRIVE_AT_ONCE):
        log.info(
            "looking again at %d parked instances of %s version %d",
            len(parked), workflow_definition_id, version,
        )  # fmt: skip
        queue.send([Message(name, found.instance_id) for found in parked])
        after = parked[-1].instance_id


@dataclass(frozen=True, slots=True)
class InstanceNotice:
    """What is broadcast of an instance, for those who can run it."""

    instance_id: str
    workflow_definition_id: str
    version: int
    fingerprint: str

    @staticmethod
    def of(instance: Instance) -> InstanceNotice:
        """The notice of an instance."""
        return InstanceNotice(
            instance.id, instance.workflow_definition_id, instance.version, instance.fingerprint
        )

    def encode(self) -> str:
        """As the body of a broadcast."""
        return json.dumps([self.instance_id, self.workflow_definition_id, self.version, self.fingerprint])

    @staticmethod
    def decode(body: str) -> InstanceNotice:
        """The reverse of `encode`."""
        return InstanceNotice(*json.loads(body))

    def fits(self, registry: WorkflowRegistry) -> bool:
        """True if a process with this registry can go on with the instance."""
        definition = registry.find(self.workflow_definition_id, self.version)
        return definition is not None and may_run(definition, self.fingerprint)


def may_run(definition: WorkflowDefinition, fingerprint: str) -> bool:
    """True if an instance with this fingerprint, or one that has not begun, can be run on a definition."""
    return not fingerprint or fingerprint == definition.fingerprint
