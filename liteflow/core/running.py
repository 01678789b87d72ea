"""Bodies on their way: into slots, under claims, out of time, and back with a result."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from liteflow.core import engine
from liteflow.core.activation import Activation
from liteflow.core.bodies import Check, Job
from liteflow.core.hops import ALONE_FROM, Hops
from liteflow.core.inputs import (
    BodyClaimed,
    BodyEnded,
    ConditionsHeld,
    Poisoned,
)
from liteflow.core.models import (
    FIRST_POINTER,
    GIVEN_BACK,
    Claim,
    Instance,
    Pointer,
    PointerStatus,
)
from liteflow.core.slots import MOMENT
from liteflow.core.transition import Transition

log = logging.getLogger("liteflow.runner")

MOMENTS = 8 * MOMENT
"""As long as bodies end soon, so many seconds pass before somebody looks once more if they still do."""

LATE = 0.01
"""A look at bodies that is so many seconds late tells of the machine, not of them: they get one more."""

PATIENCE = 20
"""So many times `long_step` a body waits for a slot where short bodies are all that there is."""

TURN = 0.005
"""Seconds that the next item of a for_each gives the one before it to end."""


class Running(Hops):
    """What is between an instance that is ready and the input that its body leaves."""

    def _dispatch(
        self, act: Activation, instance: Instance, now: datetime, pending: Transition | None
    ) -> None:
        if act.leave or self._draining:
            return
        clock = self._clock()
        if act.lost_by(clock):
            return
        if pending is not None and ("status" in pending.fields or instance.inbox):
            return  # what is ready may not be any more once that is stored
        runnable = self._ready(instance, now)
        if act.busy or pending is not None:
            changed = pending.pointers if pending is not None else {}
            runnable = [p for p in runnable if p.id not in act.busy and p.id not in changed]
        if not runnable:
            return
        if act.suspect and any(p.id not in instance.claims for p in runnable):
            # Beside a commit the count would be for a revision that is about to go.
            if pending is None and self._has_turn(act, instance):
                self._count_crash(act)
            return
        if self._slice_is_over(act, clock):
            act.leave = True
            return
        for pointer in runnable:
            if pointer.id in instance.claims:
                self._take_over(act, instance, pointer)
                continue
            turn = self._turn_of(instance, pointer) if pointer.scope else None
            if turn is not None:
                if turn in act.turns:
                    continue
                act.turns[turn] = pointer.id
                self._loop.later(TURN, partial(self._turn_over, act, turn, pointer.id))
            self._run(act, instance, pointer, clock)

    def _slice_is_over(self, act: Activation, clock: float) -> bool:
        """Is it others' turn? Not before something was done here: with a slow store nobody ever would.

        A suspect that was counted runs: else nobody can have died of it, but the next one counts it again.
        """
        if act.counted or not (act.committed or act.busy):
            return False
        return clock - act.began > self._settings.time_slice

    def _has_turn(self, act: Activation, instance: Instance) -> bool:
        # From the second death on they are run one at a time: a process that dies while many of them wait
        # must not count against more than the one that ran.
        if instance.crashes + 1 < ALONE_FROM or self._alone is act:
            return True
        if self._alone is None:
            self._alone = act
            return True
        if act not in self._awaiting:
            self._awaiting.append(act)
            act.waiting_for += 1
        return False

    def _end_turn(self, act: Activation) -> None:
        if act in self._awaiting:
            self._awaiting.remove(act)
            act.waiting_for -= 1
        if self._alone is act:
            self._alone = None
        while self._alone is None and self._awaiting:
            following = self._awaiting.popleft()
            following.waiting_for -= 1
            following.began = self._clock()
            self._go(following)

    def _count_crash(self, act: Activation) -> None:
        instance, visit = act.instance, act.visit
        assert instance is not None
        act.suspect = act.doubted = False
        act.counting = True

        def counted(result: object) -> None:
            if not act.still(visit):
                return
            instance = act.instance
            assert instance is not None
            act.waiting_for -= 1
            act.counting = False
            if isinstance(result, Exception):
                act.suspect = act.leave = True
            else:
                act.counted = True
                instance.crashes += 1
                self._judge(act, instance)
            self._go(act)

        act.waiting_for += 1
        count = partial(self._persistence.count_crash, instance.id, instance.revision, 1)
        self._calls.write.put(count, counted)

    def _judge(self, act: Activation, instance: Instance) -> None:
        if instance.crashes >= self._settings.poison_after:
            pending = [p.id for p in instance.open_pointers() if p.status is PointerStatus.PENDING]
            act.inputs.append(Poisoned(pending[0] if pending else FIRST_POINTER, instance.crashes))
            return
        log.log(
            logging.WARNING if instance.crashes > 1 else logging.INFO,
            "workflow %s: its process seems to have died (%d in a row); it is taken over here",
            instance.id, instance.crashes,
        )  # fmt: skip

    def _withdraw(self, job: Job) -> bool:
        if not self._slots.withdraw(job):
            return False
        job.dropped = True
        if job.watch is not None:
            job.watch.cancel()
        return True

    def _ready(self, instance: Instance, now: datetime) -> list[Pointer]:
        """What may run, and nothing that still runs here. `now` is what no process's clock is short of."""
        ready, claims = engine.ready(instance, now), instance.claims
        if not claims:
            return ready
        return [p for p in ready if p.id not in claims or claims[p.id].token not in self._long]

    def _unfinished(self, instance: Instance, now: datetime) -> bool:
        """True if somebody could go on with it at once."""
        certainly = now - self._persistence.clock_uncertainty
        return not instance.status.ended and (not instance.begun or bool(self._ready(instance, certainly)))

    @staticmethod
    def _turn_of(instance: Instance, pointer: Pointer) -> str | None:
        """The for_each whose item this pointer begins, if it does."""
        container = pointer.scope[-1]
        begins = container in instance.items and pointer.predecessor_id == container
        return container if begins and pointer.retry_count == 0 and pointer.start_time is None else None

    def _turn_over(self, act: Activation, turn: str, pointer_id: str) -> None:
        if act.turns.get(turn) == pointer_id:
            del act.turns[turn]
            self._go(act)

    def _take_over(self, act: Activation, instance: Instance, pointer: Pointer) -> None:
        """Its process died, or gave it back. Our own claim is stored before the body runs."""
        over = instance.claims[pointer.id]
        died = over.until != GIVEN_BACK
        if died:
            log.warning(
                "workflow %s step %s: process %s did not renew its claim; the step is run here",
                instance.id, pointer.step_id, over.by,
            )  # fmt: skip
        if died and instance.crashes + 1 >= self._settings.poison_after:
            act.inputs.append(Poisoned(pointer.id, instance.crashes + 1, over))
        else:
            job = self._job(act, instance, pointer)
            job.claim = self._claim()
            act.inputs.append(BodyClaimed(pointer.id, job.claim, over))
        self._loop.post(partial(self._go, act))

    def _job(self, act: Activation, instance: Instance, pointer: Pointer) -> Job:
        assert act.definition is not None
        job = Job(instance, act.definition, act.definition.by_id[pointer.step_id], pointer)
        act.busy[pointer.id] = job
        return job

    def _claim(self) -> Claim:
        until = self._persistence.now() + timedelta(seconds=self._settings.lease_ttl)
        return Claim(self.id, uuid.uuid4().hex, until)

    def _run(self, act: Activation, instance: Instance, pointer: Pointer, clock: float) -> None:
        job = self._job(act, instance, pointer)
        job.submitted = clock
        self._submit(job, instance)
        self._young.append((clock + self._settings.long_step, act, job))
        if len(self._young) == 1:
            self._loop.later(self._settings.long_step, self._check_young)
        if job.step.timeout is not None:
            self._watch(job)

    def _submit(self, work: Job | Check, instance: Instance) -> None:
        self._slots.submit(work, alone=instance.crashes >= ALONE_FROM)
        self._loop.at_pause(self._begin_bodies)

    def _begin_bodies(self) -> None:
        if not self._slots.begin() and not self._nudging:
            self._nudging = True
            self._loop.later(MOMENT, partial(self._nudge, 2 * MOMENT))

    def _nudge(self, again: float) -> None:
        """Jobs were left to a thread that was to be back in a moment: is it? If so it is asked less often."""
        self._nudging = not self._slots.overdue()
        if self._nudging:
            self._loop.later(again, partial(self._nudge, min(2 * again, MOMENTS)))

    def _check_young(self) -> None:
        """Of the bodies that have begun lately, deal with those that take long. One timer for all."""
        now = self._clock()
        while self._young:
            due, act, job = self._young[0]
            over = job.ended or job.dropped
            if due > now and not over:
                self._loop.later(due - now, self._check_young)
                return
            self._young.popleft()
            if over:
                continue
            if now - due > LATE and not job.spared:
                job.spared = True
                self._young.append((now + self._settings.long_step, act, job))
            else:
                self._check_long(act, job)

    def _watch(self, job: Job) -> None:
        """See to it that the body is told, and its step fails, when its time is up."""
        timeout = job.step.timeout
        if timeout is None or job.ended or job.dropped:
            return
        left = timeout.total_seconds()
        if job.pointer.deadline is not None:
            left = (job.pointer.deadline - self._persistence.now()).total_seconds()
        elif job.began is not None:
            left -= self._clock() - job.began
        if left > 0 or job.began is None:
            again = max(left, 0.001 if job.began is not None else self._settings.long_step)
            job.watch = self._loop.later(again, partial(self._watch, job))
            return
        started = job.started or self._persistence.now()
        self._body_ended(job, BodyEnded(job.pointer.id, started, failure=engine.timed_out(job.step)))
        job.dropped = True
        job.cancellation.set()

    def _check_long(self, act: Activation, job: Job) -> None:
        """A body that still runs is claimed; one that found no slot is given back for others to run."""
        if act.busy.get(job.pointer.id) is not job or job.ended or job.claim is not None:
            return
        if job.began is None:
            waited = self._clock() - job.submitted
            if self._room.bodies_are_short and waited < PATIENCE * self._settings.long_step:
                # Other bodies are not what it waits for: to give it back would only make this process busier.
                self._loop.later(self._settings.long_step, partial(self._check_long, act, job))
                return
            self._room.crowded()
            if self._withdraw(job):
                del act.busy[job.pointer.id]
                act.leave = True
                self._go(act)
                return
            left = self._settings.long_step
        else:
            left = self._settings.long_step - (self._clock() - job.began)
        if left > 0.001:
            self._loop.later(left, partial(self._check_long, act, job))
            return
        job.claim = self._claim()
        act.inputs.append(BodyClaimed(job.pointer.id, job.claim, started=job.started))
        self._go(act)

    def _slot_ended(self, work: Job | Check, outcome: BodyEnded | ConditionsHeld) -> None:
        if work.began is not None:
            self._room.body_took(self._clock() - work.began)
        if isinstance(work, Job) and isinstance(outcome, BodyEnded):
            self._loop.post(partial(self._body_ended, work, outcome))
        elif isinstance(work, Check) and isinstance(outcome, ConditionsHeld):
            self._loop.post(partial(self._check_ended, work, outcome))

    def _body_ended(self, job: Job, ended: BodyEnded) -> None:
        job.ended = True
        if job.watch is not None:
            job.watch.cancel()
        if job.dropped:
            return
        if ended.failure is not None:
            log.warning(
                "workflow %s step %s: attempt %d failed: %s: %s",
                job.instance.id, job.step.id, job.pointer.retry_count + 1,
                ended.failure.type, ended.failure.message,
            )  # fmt: skip
        if job.claim is not None:
            ended = replace(ended, claim=job.claim.token)
        act = self._acts.get(job.instance.id)
        if act is None:
            act = Activation(job.instance.id, inputs=[ended], clock=self._clock)
            self._begin(act)
        else:
            act.inputs.append(ended)
            if act.turns:
                self._end_turns(act, job.pointer.id)
            self._go(act)

    @staticmethod
    def _end_turns(act: Activation, pointer_id: str) -> None:
        for turn in [turn for turn, begun in act.turns.items() if begun == pointer_id]:
            del act.turns[turn]
