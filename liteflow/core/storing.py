"""Commits, what they meet, and what follows them."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from liteflow.core import endings, engine
from liteflow.core.activation import Activation
from liteflow.core.bodies import Job
from liteflow.core.calls import Loaded, Look
from liteflow.core.errors import StepTimeoutError
from liteflow.core.hops import Hops, ignore
from liteflow.core.inputs import (
    Archived,
    BodyClaimed,
    BodyEnded,
    EventsFound,
    Failure,
    Input,
)
from liteflow.core.models import (
    Event,
    Instance,
    Pointer,
    PointerStatus,
    WorkflowStatus,
)
from liteflow.core.topics import CANCEL_TOPIC
from liteflow.core.transition import Outcome, Transition

log = logging.getLogger("liteflow.runner")

OUTBOX_AT = 64
"""With so many items in it, an outbox is sent while the instance goes on."""

ARCHIVE_AT = 64
"""So many ended pointers may be in the working document before they are moved to the history."""


class Storing(Hops):
    """From inputs to a stored transition, and what it sets off."""

    def _commit(self, act: Activation, inputs: list[Input], transition: Transition) -> None:
        self._calls.commit.put(transition, partial(self._committed, act, inputs, transition))

    def _tell_soon(self, act: Activation) -> None:
        """That the end of a lone instance is being stored. Those of many are told together, and once."""
        alone = len(self._acts) == 1 and self._room.instances > 1 and not self._waiting
        if self._queue.prompt and alone:
            self._loop.at_pause(partial(endings.tell_soon, self._queue, act.instance_id))

    def _committed(
        self, act: Activation, inputs: list[Input], transition: Transition, outcome: Outcome | Exception
    ) -> None:
        if outcome is Outcome.COMMITTED:
            act.committing = False
            act.attempts = 0
            self._after_commit(act, inputs, transition)
            self._go(act)
        elif outcome is Outcome.CONFLICT:
            self._calls.load.put(act.instance_id, partial(self._compared, act, inputs, transition))
        elif outcome is Outcome.REJECTED:
            act.committing = False
            self._rejected(act, inputs)
        elif self._abandoned:
            self._give_up(act)
        else:
            act.attempts += 1
            pause = random.uniform(0.5, 1.0) * min(0.1 * 2 ** min(act.attempts, 6), 5.0)
            log.warning(
                "workflow %s: the store did not confirm revision %d; asking again in %.1f s",
                act.instance_id, transition.revision + 1, pause,
            )  # fmt: skip
            self._loop.later(pause, partial(self._commit, act, inputs, transition))

    def _after_commit(self, act: Activation, inputs: list[Input], transition: Transition) -> None:
        instance = act.instance
        assert instance is not None and transition.after is not None
        before = instance.status
        waited = {wait.pointer_id for wait in instance.waits()} if transition.waits else set()
        cancelled = self._cancelled_claims(instance, inputs, transition) if transition.claims_removed else ()
        act.instance = instance = transition.after
        instance.token = transition.token
        act.unchecked = act.committed = True
        act.counted = False
        if act.doubted and any(isinstance(happened, (BodyEnded, EventsFound)) for happened in inputs):
            act.doubted, act.suspect = False, True  # what follows may be what has killed a process
        self._settle_inputs(act, inputs)
        if transition.errors:
            self._tell_time_outs(act, instance, transition)
        for token in cancelled:
            self._queue.notify(CANCEL_TOPIC, token)
        if act.busy:
            self._drop_superseded(act, transition)
        if instance.status is not before and instance.status is not WorkflowStatus.RUNNABLE:
            self._ended.append(instance.id)
            self._loop.at_pause(self._tell_ended)
            log.info(
                "workflow %s (%s version %d) is %s%s", instance.id, instance.workflow_definition_id,
                instance.version, instance.status.name, f": {instance.reason}" if instance.reason else "",
            )  # fmt: skip
        if len(instance.outbox) >= OUTBOX_AT and not act.flushing:
            self._flush_outbox(act, instance)
        if transition.waits or (before is not WorkflowStatus.RUNNABLE and instance.waits()):
            self._look(act, instance, waited if before is WorkflowStatus.RUNNABLE else set())
        if len(instance.pointers) >= ARCHIVE_AT:
            self._archive(act, instance)

    @staticmethod
    def _drop_superseded(act: Activation, transition: Transition) -> None:
        for pointer_id in act.busy.keys() & transition.pointers.keys():
            job = act.busy[pointer_id]
            if not job.ended and _superseded(job, transition.pointers[pointer_id]):
                job.dropped = True
                job.cancellation.set()
                del act.busy[pointer_id]

    def _tell_ended(self) -> None:
        ended, self._ended = self._ended, []
        endings.tell(self._queue, ended)

    def _tell_time_outs(self, act: Activation, instance: Instance, transition: Transition) -> None:
        """The callbacks for failing steps hear of what no body has raised, too."""
        late = [error for error in transition.errors if error.type == StepTimeoutError.__name__]
        if late and act.definition is not None and self._hooks.on_step_error:
            view, steps = self._view(act, instance), act.definition.by_id
            for error in late:
                told = partial(
                    self._hooks.step_failed, view, steps[error.step_id], StepTimeoutError(error.message)
                )
                self._calls.hooks.put(told, ignore)

    @staticmethod
    def _cancelled_claims(instance: Instance, inputs: list[Input], transition: Transition) -> list[str]:
        ours = {happened.pointer_id for happened in inputs if isinstance(happened, BodyEnded)}
        return [
            instance.claims[pointer_id].token
            for pointer_id in transition.claims_removed
            if pointer_id in instance.claims and pointer_id not in ours
        ]

    def _settle_inputs(self, act: Activation, inputs: Sequence[Input]) -> None:
        """These inputs are stored, or were of no effect: forget the jobs they came from."""
        for happened in inputs:
            if isinstance(happened, BodyEnded):
                act.busy.pop(happened.pointer_id, None)
                if happened.claim is not None:
                    self._long_ended(happened)
            elif isinstance(happened, BodyClaimed):
                job = act.busy.pop(happened.pointer_id, None)
                if job is not None and not job.dropped:
                    self._goes_on_claimed(act, job, happened)
            elif isinstance(happened, Archived):
                act.archiving = False

    def _goes_on_claimed(self, act: Activation, job: Job, claimed: BodyClaimed) -> None:
        instance = act.instance
        if instance is None or instance.claims.get(claimed.pointer_id) != claimed.claim:
            job.dropped = True  # another process has it, or nobody wants it any more
            job.cancellation.set()
            return
        self._long.add(job)
        self._slots.claimed(job)
        if claimed.over is not None:
            job.instance, job.pointer = instance, instance.pointers[claimed.pointer_id]
            self._submit(job, instance)
            self._watch(job)

    def _long_ended(self, ended: BodyEnded) -> None:
        if ended.claim is not None and self._long.remove(ended.claim) is not None:
            self._check_idle()

    def _look(self, act: Activation, instance: Instance, known: set[str]) -> None:
        """After the commit that stored a wait, the log: an event came before it, or will find it."""
        waits = instance.waits() if instance.status is WorkflowStatus.RUNNABLE else []
        if any(wait.pointer_id not in known for wait in waits):
            act.waiting_for += 1
            act.looking += 1
            self._calls.look.put(Look(waits, instance), partial(self._looked, act, act.visit))

    def _looked(self, act: Activation, visit: int, events: list[Event] | Exception) -> None:
        if not act.still(visit):
            return
        act.waiting_for -= 1
        act.looking -= 1
        if isinstance(events, Exception):
            act.again = True  # the look is repeated with the next load
        elif events:
            act.inputs.append(EventsFound(events))
        self._go(act)

    def _archive(self, act: Activation, instance: Instance) -> None:
        assert act.definition is not None
        if act.archiving or instance.status.ended:
            return
        ended = engine.archivable(instance, act.definition)
        if len(ended) < ARCHIVE_AT:
            return
        act.archiving, visit = True, act.visit

        def done(result: object) -> None:
            if not act.still(visit):
                return
            if isinstance(result, Exception):
                act.archiving = False
            else:
                act.inputs.append(Archived([pointer.id for pointer in ended]))
                self._go(act)

        self._calls.write.put(partial(self._persistence.archive, [(instance.id, p) for p in ended]), done)

    def _compared(
        self, act: Activation, inputs: list[Input], transition: Transition, loaded: Loaded | Exception
    ) -> None:
        """A commit was refused: because of a new request, or because somebody else has gone on."""
        if isinstance(loaded, Exception):
            if self._abandoned:
                self._give_up(act)
            else:
                self._loop.later(random.uniform(0.2, 0.5), partial(self._commit, act, inputs, transition))
            return
        act.committing = False
        found, instance = loaded.instance, act.instance
        assert instance is not None
        if isinstance(found, Instance) and found.revision == instance.revision:
            instance.inbox, instance.inbox_sequence = found.inbox, found.inbox_sequence
            instance.claims = found.claims
            act.inputs = [*inputs, *act.inputs]
            self._go(act)
            return
        dropped = [
            happened
            for happened in [*inputs, *act.inputs]
            if isinstance(happened, BodyEnded) and happened.claim is None
        ]
        log.warning(
            "workflow %s: somebody else has gone on from revision %d; %d results are dropped here",
            act.instance_id, instance.revision, len(dropped),
        )  # fmt: skip
        kept = [h for h in [*inputs, *act.inputs] if isinstance(h, BodyEnded) and h.claim is not None]
        self._give_up(act, kept)

    def _give_up(self, act: Activation, kept: Sequence[Input] = ()) -> None:
        """Drop what is not committed, and begin anew."""
        for job in act.busy.values():
            if not job.ended:
                job.dropped = True
                job.cancellation.set()
        act.busy.clear()
        act.inputs = list(kept)
        act.committing = False
        act.again = True
        self._leave(act)

    def _rejected(self, act: Activation, inputs: list[Input]) -> None:
        """The store can't hold it: blame falls on one body, under its step's error policy."""
        assert act.instance is not None
        if len(inputs) > 1:
            act.one_by_one = True
            act.inputs = [*inputs, *act.inputs]
        elif inputs and isinstance(inputs[0], BodyEnded) and inputs[0].failure is None:
            failure = Failure("DataError", "the store can't hold what the step produced: too large")
            blamed = replace(inputs[0], result=None, failure=failure, data_set={}, data_removed=())
            act.inputs = [blamed, *act.inputs]
        else:
            self._park(act, act.instance.revision, "the document is too large to be saved", "a smaller one")
            return
        self._go(act)


def _superseded(job: Job, pointer: Pointer) -> bool:
    """Has something happened to the pointer that makes the body's result worthless?"""
    ran = job.pointer
    same = (pointer.sleep_until, pointer.retry_count) == (ran.sleep_until, ran.retry_count)
    return pointer.ended or pointer.compensating or pointer.status is PointerStatus.FAILED or not same
