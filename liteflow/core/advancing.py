"""What an active instance does next: commit what has happened, run what is ready, or leave."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial

from liteflow.core import engine
from liteflow.core.activation import Activation, Phase
from liteflow.core.bodies import Check
from liteflow.core.definition import WAIT_FOR, WorkflowDefinition
from liteflow.core.errors import LiteFlowError
from liteflow.core.hops import Hops
from liteflow.core.inputs import (
    BodyClaimed,
    BodyEnded,
    ConditionsHeld,
    EventsFound,
    Input,
    OutboxSent,
)
from liteflow.core.models import (
    EPOCH,
    Instance,
    WorkflowStatus,
)
from liteflow.core.providers import Lease

log = logging.getLogger("liteflow.runner")

NEAR = 0.02
"""A due time so near, in seconds, is waited for under the lease instead of being left to the scheduler."""


class Advancing(Hops):
    """The choice of the next hop, made again after each."""

    def _go(self, act: Activation) -> None:
        """Commit what has happened; run what is ready; leave when there is nothing left to do.

        A backend in this process answers within this: it is gone on from here then, not deeper and deeper.
        """
        if act.going:
            act.once_more = True
            return
        act.going = act.once_more = True
        inputs, now = act.inputs, self._persistence.now()
        try:
            while act.once_more and act.phase is Phase.ACTIVE and not (act.committing or act.counting):
                act.once_more = False
                inputs = act.inputs
                self._go_on(act, now)
        except Exception as exc:
            if act.instance is None or act.committing or self._under_way(act):
                raise  # what is under way comes back here
            log.exception("workflow %s can't be advanced", act.instance_id)
            act.inputs = inputs
            self._set_aside(act, act.instance, f"it can't be advanced: {type(exc).__name__}: {exc}")
        finally:
            act.going = False

    @staticmethod
    def _under_way(act: Activation) -> bool:
        return bool(act.waiting_for) or any(not job.ended for job in act.busy.values())

    def _set_aside(self, act: Activation, instance: Instance, reason: str) -> None:
        """Its state is none that an engine has made. Unless it is parked, its message is held for ever."""
        act.busy.clear()
        self._park(act, instance.revision, reason, "that its document is mended")

    def _go_on(self, act: Activation, now: datetime) -> None:
        assert act.instance is not None and act.definition is not None and act.lease is not None
        inputs, act.inputs = act.inputs, []
        if act.lost and not any(isinstance(happened, (BodyEnded, BodyClaimed)) for happened in inputs):
            self._leave_what_is_lost(act, inputs)
            return
        if not act.instance.begun and not inputs and not act.instance.inbox:
            self._begin_with_first_body(act, now)
            return
        if act.one_by_one:
            inputs, act.inputs = inputs[:1], inputs[1:]
        certainly = now - self._persistence.clock_uncertainty
        # An event that came in time counts, also if nobody has looked for it before the time-out.
        due = EPOCH if act.looking else certainly
        transition = None
        if inputs and isinstance(inputs[0], EventsFound):
            if self._run_ahead(act, inputs, now, due, certainly):
                return
        if inputs or not engine.at_rest(act.instance, due):
            transition = engine.advance(
                act.instance, act.definition, now, inputs, due=due,
                lease_until=self._lease_until(act, act.lease, now), options=self._options(act.definition),
            )  # fmt: skip
        if transition is not None:
            transition.token = f"{self.id}.{next(self._tokens):x}"
            act.committing = True
            self._commit(act, inputs, transition)
            if not act.committing:
                return  # the store has answered at once, and what comes next is chosen anew
            if transition.fields.get("status", WorkflowStatus.RUNNABLE) is not WorkflowStatus.RUNNABLE:
                self._tell_soon(act)
        elif inputs:
            self._settle_inputs(act, inputs)
        if not (act.definition.has_conditions and self._check_conditions(act, act.instance)):
            self._dispatch(act, act.instance, certainly, transition)
        if not (act.committing or act.busy or act.waiting_for or act.inputs or act.timer or act.once_more):
            self._nothing_to_do(act, now)

    def _leave_what_is_lost(self, act: Activation, inputs: list[Input]) -> None:
        """Without the lease only what bodies have done is stored.

        The rest is found again by who has the lease now. Stored here, it would only spoil their work.
        """
        if act.busy or act.waiting_for:
            act.inputs = inputs  # what has begun may have begun because of it
        else:
            act.again = True
            self._leave(act)

    def _run_ahead(
        self, act: Activation, inputs: list[Input], now: datetime, due: datetime, certainly: datetime
    ) -> bool:
        """Run what events have made ready before it is stored that they are taken.

        That goes into the commit of the first result then, which saves one. Nothing is lost by it: until
        then the events are in the log, and the wake-up is not acknowledged. The end of a step of ours that
        only waits for them need not be stored first either.
        """
        instance, definition = act.instance, act.definition
        assert instance is not None and definition is not None
        if not all(
            isinstance(happened, EventsFound) or self._only_waited(act, definition, happened)
            for happened in inputs
        ):
            return False
        if act.suspect or act.one_by_one or definition.has_conditions or self._under_way(act):
            return False
        if not engine.at_rest(instance, due):
            return False
        transition = engine.advance(
            instance, definition, now, inputs, due=due, options=self._options(definition)
        )
        if transition is None:
            return False
        assert transition.after is not None
        if act.doubted and not self._waits_only(transition.after, certainly, definition):
            return False  # it is stored first then, and the next death counted
        self._dispatch(act, transition.after, certainly, None)
        if not self._under_way(act):
            return False
        act.inputs = [*inputs, *act.inputs]
        return True

    def _waits_only(self, instance: Instance, now: datetime, definition: WorkflowDefinition) -> bool:
        """Are the ends of waits all that is to be run, and nobody's code? No process dies of them."""
        steps = [definition.by_id[pointer.step_id] for pointer in engine.ready(instance, now)]
        waits_only = all(step.kind == WAIT_FOR and not step.outputs for step in steps)
        return waits_only and not self._hooks.step_middleware

    @staticmethod
    def _only_waited(act: Activation, definition: WorkflowDefinition, happened: Input) -> bool:
        """Is it the end of a wait, which may be told once more, should this process die?

        Not when that may have happened already: then deaths have to be counted before the next body runs.
        """
        if not isinstance(happened, BodyEnded) or happened.claim is not None or happened.failure is not None:
            return False
        job = act.busy.get(happened.pointer_id)
        if job is None or act.doubted or not act.deliveries:
            return False
        return definition.by_id[job.pointer.step_id].kind == WAIT_FOR and job.pointer.event_published

    def _lease_until(self, act: Activation, lease: Lease, now: datetime) -> datetime:
        """When the lease ends, by the store's clock. The same value from one renewal to the next.

        Stores have an index of it, which is not touched as long as it stays.
        """
        if act.lease_until is None or act.lease_expires != lease.expires:
            act.lease_expires = lease.expires
            act.lease_until = now + timedelta(seconds=max(0.0, lease.expires - self._clock()))
        return act.lease_until

    def _check_conditions(self, act: Activation, instance: Instance) -> bool:
        """Have the cancel conditions evaluated that the last commit may have made true.

        True while that is under way: until then nothing else is begun, so that they come first.
        """
        assert act.definition is not None
        if act.check is not None or act.committing:
            return True
        if act.leave or self._draining or not act.unchecked:
            return False
        pointers = engine.conditional(instance, act.definition)
        if pointers and (act.suspect or act.doubted):  # they may be what it died of
            if self._has_turn(act, instance):
                self._count_crash(act)
            return True
        act.unchecked = False
        if not pointers:
            return False
        act.check = check = Check(instance, act.definition, pointers)
        act.waiting_for += 1
        self._submit(check, instance)
        self._loop.later(self._settings.long_step, partial(self._check_waits, act, check))
        return True

    def _check_waits(self, act: Activation, check: Check) -> None:
        """No slot was free for it: the instance is given back, to be looked at again."""
        if check.began is None and self._slots.withdraw(check):
            act.leave = act.unchecked = True
            self._checked(act, check, ConditionsHeld([]))

    def _checked(self, act: Activation, check: Check, held: ConditionsHeld) -> None:
        if act.check is not check:
            return
        act.check = None
        act.waiting_for -= 1
        if held.pointer_ids:
            act.inputs.append(held)
        self._go(act)

    def _check_ended(self, check: Check, held: ConditionsHeld) -> None:
        act = self._acts.get(check.instance.id)
        if act is not None:
            self._checked(act, check, held)

    def _begin_with_first_body(self, act: Activation, now: datetime) -> None:
        """An un-begun instance is begun in the commit of its first body.

        The engine gives the first pointer the same id each time, so the body can run on what the begin
        will have made, before that is stored.
        """
        assert act.instance is not None and act.definition is not None
        transition = engine.advance(act.instance, act.definition, now, options=self._options(act.definition))
        assert transition is not None and transition.after is not None
        self._dispatch(act, transition.after, now - self._persistence.clock_uncertainty, None)
        if not act.busy and not act.waiting_for and not act.once_more:
            self._leave(act)

    def _nothing_to_do(self, act: Activation, now: datetime) -> None:
        assert act.instance is not None
        instance = act.instance
        if act.again and not act.leave:
            self._load(act)
        elif instance.outbox and not act.leave and not act.flushing:
            self._flush_outbox(act, instance)
        elif (near := self._near_due(act, instance, now)) is not None:
            act.timer = True
            self._loop.later(near, partial(self._timer, act))
        else:
            self._leave(act)

    def _timer(self, act: Activation) -> None:
        act.timer = False
        self._go(act)

    def _near_due(self, act: Activation, instance: Instance, now: datetime) -> float | None:
        due = instance.next_execution
        if due is None or instance.status is not WorkflowStatus.RUNNABLE:
            return None
        if act.leave or act.lost or self._draining:
            return None
        seconds = (due - now).total_seconds()
        return max(seconds, 0.0005) if seconds < NEAR else None

    def _flush_outbox(self, act: Activation, instance: Instance) -> None:
        assert act.definition is not None
        items = list(instance.outbox)
        act.flushing, visit = True, act.visit

        def sent(result: object) -> None:
            if not act.still(visit):
                return
            act.waiting_for -= 1
            act.flushing = False
            if isinstance(result, Exception):
                if not isinstance(result, LiteFlowError) and not act.committing and not self._under_way(act):
                    reason = f"its outbox can't be sent: {type(result).__name__}: {result}"
                    assert act.instance is not None
                    self._set_aside(act, act.instance, reason)
                    return
                log.warning("workflow %s: its outbox can't be sent now: %s", act.instance_id, result)
                act.leave = act.unsent = True
            else:
                act.inputs.append(OutboxSent(items[-1].sequence))
            self._go(act)

        act.waiting_for += 1
        self._calls.outbox.put(partial(self._send_outbox, instance, act.definition, items), sent)
