"""The first hops of a message: it is taken, the lease is got, the instance is loaded and let in."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from liteflow.core import codec, early, engine
from liteflow.core.activation import Activation, Phase
from liteflow.core.admission import admit
from liteflow.core.calls import Loaded
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.errors import DataError, InstanceUnreadableError
from liteflow.core.hops import Hops
from liteflow.core.inputs import (
    BodyEnded,
    EventsFound,
    Refused,
    ended_to_plain,
)
from liteflow.core.models import (
    Instance,
    Parked,
    PointerStatus,
    Request,
    WorkflowStatus,
)
from liteflow.core.parking import InstanceNotice, changed_definition, may_run, not_known_here
from liteflow.core.providers import (
    Delivery,
    Lease,
    RequestOutcome,
    Taken,
)
from liteflow.core.topics import PARKED_TOPIC

log = logging.getLogger("liteflow.runner")

SHORTEST_REST = 0.02
"""Seconds that a lease counts as taken at least, also where its server gives it away later than it says."""


class Taking(Hops):
    """From the wake-up to an active instance."""

    def _delivered(self, delivery: Delivery) -> None:
        act = self._acts.get(delivery.message.body)
        if act is not None:
            act.deliveries.append(delivery)
            act.again = True
        elif self._draining:
            delivery.nack()
        else:
            self._begin(Activation(delivery.message.body, [delivery], clock=self._clock))

    def _delivered_together(self, deliveries: list[Delivery]) -> None:
        """Wake-ups that came in one message, of which the broker's limit knows nothing: they wait here."""
        self._waiting.extend(deliveries)
        self._see_to_waiting()

    def _see_to_waiting(self) -> None:
        """Begin what there is room for; the rest waits for it, unless that may take long."""
        while self._waiting and not self._draining and len(self._acts) < self._room.instances:
            self._delivered(self._waiting.popleft())
        if self._draining or self._room.narrow:
            self._give_back_waiting()

    def _give_back_waiting(self) -> None:
        """Let others have what is not begun. It is sent anew: what comes back looks like a death.

        What has come back already must go on looking so. As long as messages are taken here, it waits, or it
        would come to and fro.
        """
        again = [delivery for delivery in self._waiting if delivery.redelivered]
        waiting = [delivery for delivery in self._waiting if not delivery.redelivered]
        self._waiting.clear()
        if self._draining or self._room.instances == 0:
            for delivery in again:
                delivery.nack()
        else:
            self._waiting.extend(again)
        self._giving_back += len(waiting)

        def sent(delivery: Delivery, result: object) -> None:
            if isinstance(result, Exception):
                delivery.nack()
            else:
                delivery.ack()
            self._giving_back -= 1
            self._check_idle()

        for delivery in waiting:
            self._calls.send.put(delivery.message, partial(sent, delivery))

    def _room_is(self, instances: int) -> None:
        self._room_changed(instances)
        self._loop.at_pause(self._see_to_waiting)

    def _begin(self, act: Activation) -> None:
        self._acts[act.instance_id] = act
        act.phase = Phase.LEASING
        act.again = act.leave = act.committing = act.one_by_one = act.timer = act.archiving = False
        act.committed = act.flushing = act.suspect = act.counting = act.counted = act.doubted = act.unsent = (
            False
        )
        act.unchecked = True
        act.check, act.looking = None, 0
        act.waiting_for = 0
        act.instance = act.definition = None
        act.turns.clear()
        act.asked = len(act.deliveries)
        self._calls.acquire.put(f"workflow:{act.instance_id}", partial(self._leased, act))

    def _leased(self, act: Activation, outcome: Lease | Taken | Exception) -> None:
        if isinstance(outcome, Lease):
            act.lease = outcome
            act.began = self._clock()
            self._load(act)
        elif isinstance(outcome, Taken):
            self._contended(act, outcome)
        else:
            self._pause(act, outcome)

    def _contended(self, act: Activation, taken: Taken) -> None:
        """Another process is at it. Our mark tells it to look again; `wake_at` covers its death."""
        ended = [happened for happened in act.inputs if isinstance(happened, BodyEnded)]
        act.inputs = []
        if ended:
            self._into_inbox(act, ended)
            return
        if taken.resend:  # no mark was left
            self._loop.later(random.uniform(0, 0.05), partial(self._begin, act))
            return
        # What came while we asked may be later than the holder's look: our mark does not speak for it.
        deliveries, act.deliveries = act.deliveries[: act.asked], act.deliveries[act.asked :]
        act.again = bool(act.deliveries)
        at = self._persistence.now() + timedelta(seconds=max(taken.expires_in, SHORTEST_REST))

        def lowered(result: object) -> None:
            if isinstance(result, Exception):
                for delivery in deliveries:
                    delivery.nack()
            else:
                if taken.expires_in < self._settings.lease_ttl / 3:  # who lives has renewed it before that
                    self._tell_scheduler(at, self._persistence.now())
                for delivery in deliveries:
                    delivery.ack()
            if act.deliveries or act.inputs or act.again:
                self._begin(act)
            else:
                self._forget(act)

        self._calls.write.put(partial(self._persistence.lower_wake, {act.instance_id: at}), lowered)

    def _into_inbox(self, act: Activation, ended: list[BodyEnded]) -> None:
        """Hand results of long steps to whoever holds the lease, then try once more, to leave a mark."""
        now = self._persistence.now()
        grace = now + timedelta(seconds=self._settings.wake_grace)

        def store() -> None:
            for one in ended:
                request = Request("result", f"result:{one.claim}", now, self.id, "", ended_to_plain(one))
                outcome = self._persistence.request(act.instance_id, request, grace)
                if outcome in (RequestOutcome.ENDED, RequestOutcome.NOT_FOUND):
                    log.warning(
                        "workflow %s has ended; the late result of pointer %s is dropped",
                        act.instance_id, one.pointer_id,
                    )  # fmt: skip

        def stored(result: object) -> None:
            if isinstance(result, Exception):
                act.inputs = [*ended, *act.inputs]
                self._pause(act, result)
                return
            for one in ended:
                self._long_ended(one)
            self._begin(act)

        self._calls.write.put(store, stored)

    def _pause(self, act: Activation, problem: Exception) -> None:
        """A backend is away. Results are kept and tried again; mere wake-ups go back to the queue."""
        act.attempts += 1
        pause = random.uniform(0.5, 1.0) * min(0.5 * 2 ** min(act.attempts, 5), 5.0)
        log.warning("workflow %s: %s; trying again in %.1f s", act.instance_id, problem, pause)

        def again() -> None:
            keep = act.inputs and not self._abandoned
            if keep or (not self._draining and not act.deliveries):
                self._begin(act)
                return
            for delivery in act.deliveries:
                delivery.nack()
            self._forget(act)

        self._loop.later(0.0 if self._draining and not act.inputs else pause, again)

    def _forget(self, act: Activation) -> None:
        self._acts.pop(act.instance_id, None)
        if self._waiting:
            self._loop.at_pause(self._see_to_waiting)  # whoever forgets it may be about to begin it again
        self._check_idle()

    # ---------------------------------------------------------------------------------------------- load

    def _load(self, act: Activation) -> None:
        act.phase = Phase.LOADING
        act.again = False
        act.visit += 1
        act.looked = self._clock()
        self._calls.load.put(act.instance_id, partial(self._loaded, act))

    def _loaded(self, act: Activation, loaded: Loaded | Exception) -> None:
        if isinstance(loaded, Exception):
            self._release_then(act, partial(self._pause, act, loaded))
            return
        found = loaded.instance
        if isinstance(found, (InstanceUnreadableError, DataError)):
            self._park(act, -1, f"it can't be read: {found}", "a newer release of liteflow")
            return
        if isinstance(found, Exception):
            self._release_then(act, partial(self._pause, act, found))
            return
        if found is None or (found.status.ended and not found.outbox):
            if found is None and self._still_to_come(act):
                return
            if found is None:
                log.warning("workflow %s is not in the store; its wake-up is dropped", act.instance_id)
            self._settle_inputs(act, act.inputs)
            act.inputs, act.instance = [], found
            self._leave(act)
            return
        instance = found
        definition = self._registry.find(instance.workflow_definition_id, instance.version)
        if definition is None:
            self._leave_to_others(act, instance, not_known_here(instance, self._persistence.now()))
            return
        if not may_run(definition, instance.fingerprint):
            self._leave_to_others(act, instance, changed_definition(instance, self._persistence.now()))
            return
        act.suspect = self._seems_crashed(act, instance)
        act.doubted = not act.suspect and self._came_back(act)
        self._activate(act, loaded, instance, definition)

    def _still_to_come(self, act: Activation) -> bool:
        """Was its wake-up sent before it was stored? Then it is looked for again."""
        if not any(delivery.message.early for delivery in act.deliveries):
            return False
        pause = early.pause(act.looked - act.began)
        if pause is None:
            return False
        if self._draining:  # somebody else is to look for it
            act.instance, act.again = None, True
            self._leave(act)
        else:
            self._loop.later(pause, partial(self._load, act))
        return True

    def _seems_crashed(self, act: Activation, instance: Instance) -> bool:
        """Was a process that ran a body of it lost? One too many counted is harmless: a commit clears it."""
        if instance.status is not WorkflowStatus.RUNNABLE:
            return False
        came_back = self._came_back(act)
        if not instance.begun:
            return came_back or not instance.message_sent
        ready = [p for p in engine.ready(instance, self._persistence.now()) if p.id not in instance.claims]
        if came_back:
            return bool(ready)
        # With what has slept until now, no message was sent in the ordinary way.
        return not instance.message_sent and any(p.status is PointerStatus.PENDING for p in ready)

    @staticmethod
    def _came_back(act: Activation) -> bool:
        """Was it in somebody's hands before, who may have died of it?"""
        return any(delivery.redelivered or delivery.message.recalled for delivery in act.deliveries)

    def _activate(
        self, act: Activation, loaded: Loaded, instance: Instance, definition: WorkflowDefinition
    ) -> None:
        if instance.begun:
            self._enter(act, loaded, instance, definition)
            return

        if definition.data_type is None and not self._hooks.workflow_middleware["pre"]:
            self._enter(act, loaded, instance, definition)  # nobody's code is asked
            return

        def admitted(refusal: object) -> None:
            if refusal is not None:
                act.inputs.append(Refused(str(refusal)))
            self._enter(act, loaded, instance, definition)

        self._calls.hooks.put(partial(self._admit, instance, definition), admitted)

    def _admit(self, instance: Instance, definition: WorkflowDefinition) -> str | None:
        """Why an instance that came without its definition must not begin; None if it may."""
        try:
            codec.decode_data(instance.data, definition.data_type)
            admit(instance, definition, self._hooks)
        except Exception as exc:  # the user's middleware refuses with what it likes
            return f"{type(exc).__name__}: {exc}"
        return None

    def _enter(
        self, act: Activation, loaded: Loaded, instance: Instance, definition: WorkflowDefinition
    ) -> None:
        act.attempts = 0
        act.instance, act.definition, act.phase = instance, definition, Phase.ACTIVE
        if loaded.events:
            act.inputs.append(EventsFound(loaded.events))
        self._go(act)

    def _park(self, act: Activation, revision: int, reason: str, needs: str) -> None:
        parked = Parked(reason, self._persistence.now(), needs)
        self._park_then(act, revision, parked, partial(self._leave, act))

    def _leave_to_others(self, act: Activation, instance: Instance, parked: Parked) -> None:
        """Park what can't be run here, and tell the others, who may be able to."""
        # First the lease is given back, or those who are told would find it taken.
        tell = partial(self._tell_of_parked, act, instance)
        self._park_then(act, instance.revision, parked, partial(self._release_then, act, tell))

    def _park_then(self, act: Activation, revision: int, parked: Parked, then: Callable[[], None]) -> None:
        log.warning("workflow %s is parked: %s; it needs %s", act.instance_id, parked.reason, parked.needs)
        ended = [h for h in act.inputs if isinstance(h, BodyEnded) and h.claim is not None]
        if ended and revision != -1:  # what long steps have done is not to be lost
            act.inputs = []
            self._release_then(act, partial(self._into_inbox, act, ended))
            return
        self._settle_inputs(act, act.inputs)
        act.inputs = []

        def done(result: object) -> None:
            if isinstance(result, Exception):
                self._release_then(act, partial(self._pause, act, result))
            else:
                act.instance = None
                then()

        self._calls.write.put(partial(self._persistence.park, act.instance_id, revision, parked), done)

    def _tell_of_parked(self, act: Activation, instance: Instance) -> None:
        """Another process that has the right definition may share this queue. It looks at once."""
        self._queue.notify(PARKED_TOPIC, InstanceNotice.of(instance).encode())
        self._released(act, True)

    def _parked_elsewhere(self, body: str) -> None:
        """Somebody could not go on with an instance. From a thread of the queue provider."""
        notice = InstanceNotice.decode(body)
        if notice.fits(self._registry):
            self._loop.post(partial(self._look_at, notice.instance_id))

    def _requested(self, body: str) -> None:
        """Something is asked of an instance. From a thread of the queue provider.

        Who runs a long step of it looks at once, however many messages are before this one's. So does who
        takes no messages, as all slots have long steps: nobody else may take any either.
        """
        notice = InstanceNotice.decode(body)
        mine = any(job.instance.id == notice.instance_id for job in self._long)
        if mine or (self._room.instances == 0 and notice.fits(self._registry)):
            self._loop.post(partial(self._look_at, notice.instance_id))

    def _look_at(self, instance_id: str) -> None:
        """Like a wake-up, without a message."""
        act = self._acts.get(instance_id)
        if act is not None:
            act.again = True
        elif not self._draining:
            self._begin(Activation(instance_id))
