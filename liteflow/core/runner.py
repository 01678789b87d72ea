"""The advance loop: one message's way from the lease to the acknowledgement.

One `Runner` serves a process, embedded or in a cluster. Everything it knows is touched on its loop
only; calls to backends are made by stages, bodies run in slots, and both come back to the loop.

    delivered -> lease -> load -> [ bodies -> engine -> commit ]* -> release -> acknowledge

The rules that keep instances from getting stuck are in the design notes under "The wake rule":
a wake-up is acknowledged only after it was seen through, or after `wake_at` was lowered.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from liteflow.core import codec, engine
from liteflow.core.activation import Activation, Phase
from liteflow.core.admission import admit, engine_options
from liteflow.core.bodies import BodyRunner, Check, Job
from liteflow.core.calls import Calls, Loaded, Look
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.engine import EngineOptions
from liteflow.core.errors import DataError, InstanceUnreadableError, StepTimeoutError
from liteflow.core.hooks import Hooks
from liteflow.core.inputs import (
    Archived,
    BodyClaimed,
    BodyEnded,
    ConditionsHeld,
    EventsFound,
    Failure,
    Input,
    OutboxSent,
    Poisoned,
    Refused,
    ended_to_plain,
)
from liteflow.core.long_steps import LongSteps, renewal, renewed
from liteflow.core.loop import Loop
from liteflow.core.models import (
    FIRST_POINTER,
    GIVEN_BACK,
    Claim,
    Event,
    Instance,
    OutboxItem,
    Parked,
    Pointer,
    PointerStatus,
    Request,
    WorkflowStatus,
)
from liteflow.core.providers import (
    ClaimRenewal,
    Delivery,
    Lease,
    LockProvider,
    Message,
    PersistenceProvider,
    QueueProvider,
    RequestOutcome,
    Taken,
    WakeMove,
    workflow_queue,
)
from liteflow.core.registry import WorkflowRegistry
from liteflow.core.settings import Settings
from liteflow.core.slots import Slots
from liteflow.core.transition import Outcome, Transition
from liteflow.core.views import WorkflowInstance

log = logging.getLogger("liteflow.runner")

ARCHIVE_AT = 64
"""So many ended pointers may be in the working document before they are moved to the history."""

OUTBOX_AT = 64
"""With so many items in it, an outbox is sent while the instance goes on."""

TURN = 0.005
"""Seconds that the next item of a for_each gives the one before it to end."""

NEAR = 0.02
"""A due time so near, in seconds, is waited for under the lease instead of being left to the scheduler."""

ALONE_FROM = 2
"""After so many deaths in a row, what may be their cause runs with no other body beside it."""

ENDED_TOPIC = "ended."
"""Broadcast, followed by the instance's id, when it has ended or was suspended."""

CANCEL_TOPIC = "cancel"
"""Broadcast with the token of a claim whose body is not wanted any more."""

DUE_TOPIC = "due"
"""Broadcast with a time (seconds since the epoch) earlier than the scheduler may expect."""

OutboxSender = Callable[[Instance, WorkflowDefinition, Sequence[OutboxItem]], None]


class Runner:
    """Advances instances. `deliver` and `wake` may be called from any thread."""

    def __init__(
        self,
        registry: WorkflowRegistry,
        persistence: PersistenceProvider,
        queue: QueueProvider,
        lock: LockProvider,
        settings: Settings,
        *,
        hooks: Hooks,
        send_outbox: OutboxSender,
        slots_changed: Callable[[int], None] = lambda free: None,
    ) -> None:
        self.id = f"{uuid.uuid4().hex[:12]}"
        self._registry = registry
        self._persistence = persistence
        self._queue = queue
        self._lock = lock
        self._settings = settings
        self._hooks = hooks
        self._send_outbox = send_outbox
        self._loop = Loop("liteflow-runner")
        bodies = BodyRunner(persistence.now, settings, hooks, lambda: persistence.clock_uncertainty)
        self._bodies = bodies
        self._slots = Slots(settings.concurrency, bodies, self._slot_ended)
        self._acts: dict[str, Activation] = {}
        self._long = LongSteps(lambda count: slots_changed(max(0, settings.concurrency - count)))
        self._draining = False
        self._abandoned = False
        self._idle = threading.Event()
        self._calls = Calls(persistence, queue, lock, settings.lease_ttl, self._loop.post)
        self._unsubscribe: Callable[[], None] = lambda: None

    # -------------------------------------------------------------------------------- start and stop

    def start(self) -> None:
        """Begin to work."""
        self._loop.start()
        self._unsubscribe = self._queue.subscribe(CANCEL_TOPIC, self._cancelled_elsewhere)

    def deliver(self, delivery: Delivery) -> None:
        """Take a wake-up from the queue."""
        self._loop.post(partial(self._delivered, delivery))

    def wake(self, instance_id: str) -> None:
        """Look at an instance without a message, because of something that this process knows."""
        self._loop.post(partial(self._wake, instance_id))

    def stop(self, timeout: float) -> bool:
        """Drain: begin nothing, let running bodies end for up to `timeout` seconds, give back the rest.

        False if bodies had to be left behind; they are told by their cancellation token, and their
        steps run again elsewhere.
        """
        self._loop.post(self._drain)
        finished = self._idle.wait(timeout)
        if not finished:
            self._idle.clear()
            self._loop.post(self._abandon)
            self._idle.wait(5)
        self._unsubscribe()
        self._calls.close()
        self._slots.close()
        self._loop.stop()
        self._bodies.stop()
        return finished

    def _drain(self) -> None:
        self._draining = True
        not_begun = [job for job in self._long if self._slots.withdraw(job)]
        self._give_back([renewal(job, GIVEN_BACK) for job in not_begun])
        for job in not_begun:
            assert job.claim is not None
            self._long.remove(job.claim.token)
        for act in list(self._acts.values()):
            act.leave = True
            for job in list(act.busy.values()):
                if self._slots.withdraw(job):
                    del act.busy[job.pointer.id]
            self._go(act)
        self._check_idle()

    def _abandon(self) -> None:
        """Time is up: what still runs is told to stop and its work will be done again elsewhere."""
        self._abandoned = True
        for job in [*self._long, *(j for act in self._acts.values() for j in act.busy.values())]:
            log.warning(
                "workflow %s step %s: still running at the end of the shutdown time; it is cancelled"
                " here and will run again elsewhere", job.instance.id, job.step.id,
            )  # fmt: skip
            job.cancellation.set()
            job.dropped = True
        self._give_back(self._long.give_back())
        for act in list(self._acts.values()):
            act.busy.clear()
            if act.phase is Phase.ACTIVE and not act.committing:
                self._leave(act)
        self._check_idle()

    def _give_back(self, claims: list[ClaimRenewal]) -> None:
        """Let anybody take these over at once."""
        if claims:
            self._calls.write.put(partial(self._persistence.renew_claims, claims), _ignore)

    def _check_idle(self) -> None:
        if self._draining and not self._acts and not self._long:
            self._idle.set()

    # --------------------------------------------------------------------------------------- heartbeat

    def heartbeat(self) -> None:
        """Renew all leases and claims in one batch each. Called from the heartbeat's thread."""
        try:
            self._renew_claims()
        finally:
            self._renew_leases()

    def _renew_leases(self) -> None:
        leases = [act.lease for act in list(self._acts.values()) if act.lease is not None]
        if leases:
            for lease, held in zip(leases, self._lock.renew(leases, self._settings.lease_ttl), strict=True):
                if not held:
                    log.warning("%s: the lease was lost; nothing new is begun under it", lease.name)

    def _renew_claims(self) -> None:
        until = self._persistence.now() + timedelta(seconds=self._settings.lease_ttl)
        asked = self._long.renewals(until)
        if asked:
            held = self._persistence.renew_claims([renewal for _, renewal in asked])
            for (job, _), ours in zip(asked, held, strict=True):
                if ours:
                    renewed(job, until)
                else:
                    self._loop.post(partial(self._claim_gone, job))

    def _claim_gone(self, job: Job) -> None:
        if job.claim is not None and self._long.remove(job.claim.token) is not None and not job.ended:
            log.info(
                "workflow %s step %s: the running body is not wanted any more; it is cancelled",
                job.instance.id, job.step.id,
            )  # fmt: skip
            job.dropped = True
            job.cancellation.set()
            self._slots.withdraw(job)
        self._check_idle()

    def _cancelled_elsewhere(self, token: str) -> None:
        job = self._long.get(token)
        if job is not None:
            self._loop.post(partial(self._claim_gone, job))

    # ------------------------------------------------------------------------------------ take and lease

    def _delivered(self, delivery: Delivery) -> None:
        act = self._acts.get(delivery.message.body)
        if act is not None:
            act.deliveries.append(delivery)
            act.again = True
        elif self._draining:
            delivery.nack()
        else:
            self._begin(Activation(delivery.message.body, [delivery]))

    def _wake(self, instance_id: str) -> None:
        act = self._acts.get(instance_id)
        if act is not None:
            act.again = True
        elif not self._draining:
            self._begin(Activation(instance_id))

    def _begin(self, act: Activation) -> None:
        self._acts[act.instance_id] = act
        act.phase = Phase.LEASING
        act.again = act.leave = act.committing = act.one_by_one = act.timer = act.archiving = False
        act.checking = act.committed = act.flushing = False
        act.unchecked = True
        act.waiting_for = 0
        act.instance = act.definition = None
        act.turns.clear()
        self._calls.acquire.put(f"workflow:{act.instance_id}", partial(self._leased, act))

    def _leased(self, act: Activation, outcome: Lease | Taken | Exception) -> None:
        if isinstance(outcome, Lease):
            act.lease = outcome
            act.began = time.monotonic()
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
        deliveries, act.deliveries, act.again = act.deliveries, [], False
        at = self._persistence.now() + timedelta(seconds=taken.expires_in)

        def lowered(result: object) -> None:
            if isinstance(result, Exception):
                for delivery in deliveries:
                    delivery.nack()
            elif taken.resend:
                act.deliveries = deliveries + act.deliveries
                self._loop.later(random.uniform(0, 0.05), partial(self._begin, act))
                return
            else:
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
        self._check_idle()

    # ---------------------------------------------------------------------------------------------- load

    def _load(self, act: Activation) -> None:
        act.phase = Phase.LOADING
        act.again = False
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
            if found is None:
                log.warning("workflow %s is not in the store; its wake-up is dropped", act.instance_id)
            self._settle_inputs(act, act.inputs)
            act.inputs, act.instance = [], found
            self._leave(act)
            return
        instance = found
        definition = self._registry.find(instance.workflow_definition_id, instance.version)
        what = f"{instance.workflow_definition_id} version {instance.version}"
        if definition is None:
            self._park(act, instance.revision, f"workflow {what} is not known here", f"a worker with {what}")
            return
        if instance.fingerprint and instance.fingerprint != definition.fingerprint:
            reason = f"the definition of {what} has changed since this instance began"
            self._park(
                act, instance.revision, reason, f"the definition with fingerprint {instance.fingerprint}"
            )
            return
        if self._seems_crashed(act, instance):
            self._count_crash(act, loaded, instance, definition)
        else:
            self._activate(act, loaded, instance, definition)

    def _seems_crashed(self, act: Activation, instance: Instance) -> bool:
        """Was a process that ran a body of it lost? One too many counted is harmless: a commit clears it."""
        if instance.status is not WorkflowStatus.RUNNABLE:
            return False
        ready = not instance.begun or any(
            p.status is PointerStatus.PENDING and p.id not in instance.claims
            for p in instance.open_pointers()
        )
        redelivered = any(delivery.redelivered for delivery in act.deliveries)
        return ready and (redelivered or not instance.message_sent)

    def _count_crash(
        self, act: Activation, loaded: Loaded, instance: Instance, definition: WorkflowDefinition
    ) -> None:
        def counted(result: object) -> None:
            if isinstance(result, Exception):
                self._release_then(act, partial(self._pause, act, result))
                return
            instance.crashes += 1
            if instance.crashes >= self._settings.poison_after:
                pending = [p.id for p in instance.open_pointers() if p.status is PointerStatus.PENDING]
                act.inputs.append(Poisoned(pending[0] if pending else FIRST_POINTER, instance.crashes))
            else:
                log.log(
                    logging.WARNING if instance.crashes > 1 else logging.INFO,
                    "workflow %s: its process seems to have died (%d in a row); it is taken over here",
                    instance.id, instance.crashes,
                )  # fmt: skip
            self._activate(act, loaded, instance, definition)

        count = partial(self._persistence.count_crash, instance.id, instance.revision)
        self._calls.write.put(count, counted)

    def _activate(
        self, act: Activation, loaded: Loaded, instance: Instance, definition: WorkflowDefinition
    ) -> None:
        if instance.begun:
            self._enter(act, loaded, instance, definition)
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
        log.warning("workflow %s is parked: %s; it needs %s", act.instance_id, reason, needs)
        parked = Parked(reason, self._persistence.now(), needs)
        act.inputs = []

        def done(result: object) -> None:
            if isinstance(result, Exception):
                self._release_then(act, partial(self._pause, act, result))
            else:
                act.instance = None
                self._leave(act)

        self._calls.write.put(partial(self._persistence.park, act.instance_id, revision, parked), done)

    # ------------------------------------------------------------------------------------------- advance

    def _go(self, act: Activation) -> None:
        """Commit what has happened; run what is ready; leave when there is nothing left to do."""
        if act.phase is not Phase.ACTIVE or act.committing:
            return
        assert act.instance is not None and act.definition is not None and act.lease is not None
        now = self._persistence.now()
        inputs, act.inputs = act.inputs, []
        if not act.instance.begun and not inputs:
            self._begin_with_first_body(act, now)
            return
        if act.one_by_one:
            inputs, act.inputs = inputs[:1], inputs[1:]
        lease_until = now + timedelta(seconds=max(0.0, act.lease.expires - time.monotonic()))
        due = now - self._persistence.clock_uncertainty
        transition = engine.advance(
            act.instance, act.definition, now, inputs, due=due, lease_until=lease_until, options=self._options
        )
        if transition is not None:
            transition.token = uuid.uuid4().hex
            act.committing = True
            self._commit(act, inputs, transition)
        else:
            self._settle_inputs(act, inputs)
        if not any(isinstance(happened, Poisoned) for happened in inputs):
            if not self._check_conditions(act, act.instance):
                self._dispatch(act, act.instance, now)
        if not (act.committing or act.busy or act.waiting_for or act.inputs or act.timer):
            self._nothing_to_do(act, now)

    @property
    def _options(self) -> EngineOptions:
        return engine_options(self._settings, self._hooks, self._queue)

    def _check_conditions(self, act: Activation, instance: Instance) -> bool:
        """Have the cancel conditions evaluated that the last commit may have made true.

        True while that is under way: until then nothing else is begun, so that they come first.
        """
        assert act.definition is not None
        if not act.definition.has_conditions:
            return False
        if act.checking or act.committing:
            return True
        if act.leave or not act.unchecked:
            return False
        act.unchecked = False
        pointers = engine.conditional(instance, act.definition)
        if not pointers or self._draining:
            return False
        check = Check(instance.copy(), act.definition, pointers)
        act.checking = True
        act.waiting_for += 1
        self._slots.submit(check)
        self._loop.later(self._settings.long_step, partial(self._check_waits, act, check))
        return True

    def _check_waits(self, act: Activation, check: Check) -> None:
        """No slot was free for it: the instance is given back, and looked at again later."""
        if check.began is None and self._slots.withdraw(check):
            act.leave = True
            self._checked(act, check, ConditionsHeld([]))

    def _checked(self, act: Activation, check: Check, held: ConditionsHeld) -> None:
        if act.instance is None or not act.checking:
            return
        act.checking = False
        act.waiting_for -= 1
        if held.pointer_ids:
            act.inputs.append(held)
        self._go(act)

    def _begin_with_first_body(self, act: Activation, now: datetime) -> None:
        """An un-begun instance is begun in the commit of its first body.

        The engine gives the first pointer the same id each time, so the body can run on what the begin
        will have made, before that is stored.
        """
        assert act.instance is not None and act.definition is not None
        begun = act.instance.copy()
        transition = engine.advance(begun, act.definition, now, options=self._options)
        assert transition is not None
        transition.apply(begun)
        self._dispatch(act, begun, now)
        if not act.busy:
            self._leave(act)

    def _nothing_to_do(self, act: Activation, now: datetime) -> None:
        assert act.instance is not None
        instance = act.instance
        if act.again and not act.leave:
            self._load(act)
        elif instance.outbox and not act.leave and not act.flushing:
            self._flush_outbox(act, instance)
        elif not act.leave and not act.lost and (near := self._near_due(instance, now)) is not None:
            act.timer = True
            self._loop.later(near, partial(self._timer, act))
        else:
            self._leave(act)

    def _timer(self, act: Activation) -> None:
        act.timer = False
        self._go(act)

    @staticmethod
    def _near_due(instance: Instance, now: datetime) -> float | None:
        due = instance.next_execution
        if due is None or instance.status is not WorkflowStatus.RUNNABLE:
            return None
        seconds = (due - now).total_seconds()
        return max(seconds, 0.0005) if seconds < NEAR else None

    def _flush_outbox(self, act: Activation, instance: Instance) -> None:
        assert act.definition is not None
        items = list(instance.outbox)
        act.flushing = True

        def sent(result: object) -> None:
            if act.instance is not instance:
                return
            act.waiting_for -= 1
            act.flushing = False
            if isinstance(result, Exception):
                log.warning("workflow %s: its outbox can't be sent now: %s", act.instance_id, result)
                act.leave = True  # wake_at is still the lease's end: somebody sends it then
            else:
                act.inputs.append(OutboxSent(items[-1].sequence))
            self._go(act)

        act.waiting_for += 1
        self._calls.outbox.put(partial(self._send_outbox, instance.copy(), act.definition, items), sent)

    # -------------------------------------------------------------------------------------------- bodies

    def _dispatch(self, act: Activation, instance: Instance, now: datetime) -> None:
        if act.leave or act.lost or self._draining:
            return
        runnable = [p for p in self._ready(instance, now) if p.id not in act.busy]
        if runnable and time.monotonic() - act.began > self._settings.time_slice:
            act.leave = True
            return
        for pointer in runnable:
            if pointer.id in instance.claims:
                self._take_over(act, instance, pointer)
                continue
            turn = self._turn_of(instance, pointer)
            if turn is not None:
                if turn in act.turns:
                    continue
                act.turns[turn] = pointer.id
                self._loop.later(TURN, partial(self._turn_over, act, turn, pointer.id))
            self._run(act, instance, pointer)

    def _ready(self, instance: Instance, now: datetime) -> list[Pointer]:
        """What may run now: never early by any process's clock, and nothing that still runs here."""
        ready = engine.ready(instance, now - self._persistence.clock_uncertainty)
        return [
            p for p in ready if p.id not in instance.claims or instance.claims[p.id].token not in self._long
        ]

    def _unfinished(self, instance: Instance, now: datetime) -> bool:
        """True if somebody could go on with it at once."""
        return not instance.status.ended and (not instance.begun or bool(self._ready(instance, now)))

    @staticmethod
    def _turn_of(instance: Instance, pointer: Pointer) -> str | None:
        """The for_each whose item this pointer begins, if it does."""
        container = pointer.scope[-1] if pointer.scope else None
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
            act.inputs.append(Poisoned(pointer.id, instance.crashes + 1))
        else:
            job = self._job(act, instance, pointer)
            job.claim = self._claim()
            act.inputs.append(BodyClaimed(pointer.id, job.claim, over))
        self._loop.post(partial(self._go, act))

    def _job(self, act: Activation, instance: Instance, pointer: Pointer) -> Job:
        assert act.definition is not None
        job = Job(instance.copy(), act.definition, act.definition.by_id[pointer.step_id], pointer)
        act.busy[pointer.id] = job
        return job

    def _claim(self) -> Claim:
        until = self._persistence.now() + timedelta(seconds=self._settings.lease_ttl)
        return Claim(self.id, uuid.uuid4().hex, until)

    def _run(self, act: Activation, instance: Instance, pointer: Pointer) -> None:
        job = self._job(act, instance, pointer)
        self._slots.submit(job, alone=instance.crashes >= ALONE_FROM)
        self._loop.later(self._settings.long_step, partial(self._check_long, act, job))
        self._watch(job)

    def _watch(self, job: Job) -> None:
        """See to it that the body is told, and its step fails, when its time is up."""
        timeout = job.step.timeout
        if timeout is None or job.ended or job.dropped:
            return
        left = timeout.total_seconds()
        if job.pointer.deadline is not None:
            left = (job.pointer.deadline - self._persistence.now()).total_seconds()
        elif job.began is not None:
            left -= time.monotonic() - job.began
        if left > 0 or job.began is None:
            self._loop.later(max(left, 0.001), partial(self._watch, job))
            return
        failure = engine.timed_out(job.step)
        self._body_ended(job, BodyEnded(job.pointer.id, self._persistence.now(), failure=failure))
        job.dropped = True
        job.cancellation.set()

    def _check_long(self, act: Activation, job: Job) -> None:
        """A body that still runs is claimed; one that found no slot is given back for others to run."""
        if act.busy.get(job.pointer.id) is not job or job.ended or job.claim is not None:
            return
        if job.began is None:
            if self._slots.withdraw(job):
                del act.busy[job.pointer.id]
                act.leave = True
                self._go(act)
                return
            left = self._settings.long_step
        else:
            left = self._settings.long_step - (time.monotonic() - job.began)
        if left > 0.001:
            self._loop.later(left, partial(self._check_long, act, job))
            return
        job.claim = self._claim()
        act.inputs.append(BodyClaimed(job.pointer.id, job.claim))
        self._go(act)

    def _slot_ended(self, work: Job | Check, outcome: BodyEnded | ConditionsHeld) -> None:
        if isinstance(work, Job) and isinstance(outcome, BodyEnded):
            self._loop.post(partial(self._body_ended, work, outcome))
        elif isinstance(work, Check) and isinstance(outcome, ConditionsHeld):
            self._loop.post(partial(self._check_ended, work, outcome))

    def _check_ended(self, check: Check, held: ConditionsHeld) -> None:
        act = self._acts.get(check.instance.id)
        if act is not None:
            self._checked(act, check, held)

    def _body_ended(self, job: Job, ended: BodyEnded) -> None:
        job.ended = True
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
            act = Activation(job.instance.id, inputs=[ended])
            self._begin(act)
        else:
            act.inputs.append(ended)
            for turn in [t for t, pointer_id in act.turns.items() if pointer_id == job.pointer.id]:
                del act.turns[turn]
            self._go(act)

    # -------------------------------------------------------------------------------------------- commit

    def _commit(self, act: Activation, inputs: list[Input], transition: Transition) -> None:
        self._calls.commit.put(transition, partial(self._committed, act, inputs, transition))

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
        assert instance is not None
        before = instance.status
        waited = {p.id for p in instance.pointers.values() if p.status is PointerStatus.WAITING_FOR_EVENT}
        cancelled = self._cancelled_claims(instance, inputs, transition)
        transition.apply(instance)
        act.unchecked = act.committed = True
        self._settle_inputs(act, inputs)
        self._tell_time_outs(act, instance, transition)
        for token in cancelled:
            self._queue.notify(CANCEL_TOPIC, token)
        for pointer in transition.pointers.values():
            job = act.busy.get(pointer.id)
            if job is not None and not job.ended and _superseded(job, pointer):
                job.dropped = True
                job.cancellation.set()
                del act.busy[pointer.id]
        if instance.status is not before and instance.status is not WorkflowStatus.RUNNABLE:
            self._queue.notify(ENDED_TOPIC + instance.id, instance.status.name)
            log.info(
                "workflow %s (%s version %d) is %s%s", instance.id, instance.workflow_definition_id,
                instance.version, instance.status.name, f": {instance.reason}" if instance.reason else "",
            )  # fmt: skip
        if len(instance.outbox) >= OUTBOX_AT and not act.flushing:
            self._flush_outbox(act, instance)
        self._look(act, instance, waited if before is WorkflowStatus.RUNNABLE else set())
        self._archive(act, instance)

    def _tell_time_outs(self, act: Activation, instance: Instance, transition: Transition) -> None:
        """The callbacks for failing steps hear of what no body has raised, too."""
        late = [error for error in transition.errors if error.type == StepTimeoutError.__name__]
        if late and act.definition is not None and self._hooks.on_step_error:
            view, steps = self._view(act, instance), act.definition.by_id
            for error in late:
                told = partial(
                    self._hooks.step_failed, view, steps[error.step_id], StepTimeoutError(error.message)
                )
                self._calls.hooks.put(told, _ignore)

    @staticmethod
    def _view(act: Activation, instance: Instance) -> WorkflowInstance:
        data_type = act.definition.data_type if act.definition is not None else None
        return WorkflowInstance(instance.copy(), data_type)

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
            job.instance, job.pointer = instance.copy(), instance.pointers[claimed.pointer_id]
            self._slots.submit(job, alone=instance.crashes >= ALONE_FROM)
            self._watch(job)

    def _long_ended(self, ended: BodyEnded) -> None:
        if ended.claim is not None and self._long.remove(ended.claim) is not None:
            self._check_idle()

    def _look(self, act: Activation, instance: Instance, known: set[str]) -> None:
        """After the commit that stored a wait, the log: an event came before it, or will find it."""
        waits = instance.waits() if instance.status is WorkflowStatus.RUNNABLE else []
        if any(wait.pointer_id not in known for wait in waits):
            act.waiting_for += 1
            self._calls.look.put(Look(waits, instance), partial(self._looked, act, instance))

    def _looked(self, act: Activation, instance: Instance, events: list[Event] | Exception) -> None:
        if act.instance is not instance:
            return
        act.waiting_for -= 1
        if isinstance(events, Exception):
            act.again = True  # the look is repeated with the next load
        elif events:
            act.inputs.append(EventsFound(events))
        self._go(act)

    def _archive(self, act: Activation, instance: Instance) -> None:
        assert act.definition is not None
        if act.archiving or instance.status.ended or len(instance.pointers) < ARCHIVE_AT:
            return
        ended = engine.archivable(instance, act.definition)
        if len(ended) < ARCHIVE_AT:
            return
        act.archiving = True

        def done(result: object) -> None:
            if act.instance is not instance:
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

    # --------------------------------------------------------------------------------------------- leave

    def _leave(self, act: Activation) -> None:
        """Give the lease back; what happens then depends on whether somebody was turned away by it."""
        act.phase = Phase.LEAVING
        if act.committed and act.instance is not None and self._hooks.workflow_middleware["execute"]:
            act.committed = False
            view = self._view(act, act.instance)
            observe = partial(self._hooks.observe, "execute", view)
            self._calls.hooks.put(observe, lambda _: self._give_lease_back(act))
        else:
            self._give_lease_back(act)

    def _give_lease_back(self, act: Activation) -> None:
        lease, act.lease = act.lease, None
        if lease is None:
            self._released(act, True)
        else:
            self._calls.release.put(lease, partial(self._released, act))

    def _release_then(self, act: Activation, action: Callable[[], None]) -> None:
        act.phase = Phase.LEAVING
        lease, act.lease = act.lease, None
        if lease is None:
            action()
        else:
            self._calls.release.put(lease, lambda _: action())

    def _released(self, act: Activation, clean: bool | Exception) -> None:
        instance = act.instance
        over = instance is None or instance.status.ended
        now = self._persistence.now()
        look_again = bool(act.inputs) or act.again or (clean is not True and not over)
        if self._draining and not act.inputs:
            unseen = look_again or (instance is not None and self._unfinished(instance, now))
            self._hand_back(act, instance, unseen)
        elif look_again:
            self._begin(act)
        elif instance is not None and self._unfinished(instance, now):
            self._send_on(act, instance)
        else:
            if instance is not None:
                self._settle(instance, now)
            self._done(act)

    def _settle(self, instance: Instance, now: datetime) -> None:
        """The lease was given back cleanly: `wake_at` need not cover its holder's death any more."""
        at = engine.wake_at(instance, now, None)
        if at != instance.wake_at:
            self._calls.move.put(WakeMove(instance.id, instance.revision, instance.wake_at, at), _ignore)
        if at is not None and (at - now).total_seconds() < self._settings.poll_interval:
            self._queue.notify(DUE_TOPIC, str(at.timestamp()))

    def _send_on(self, act: Activation, instance: Instance) -> None:
        """There is more to do, for anybody: send the id, then acknowledge."""
        message = Message(
            workflow_queue(instance.workflow_definition_id, instance.version), instance.id,
            instance.traceparent,
        )  # fmt: skip

        def sent(result: object) -> None:
            if isinstance(result, Exception):  # wake_at is the lease's end: nothing is lost
                for delivery in act.deliveries:
                    delivery.nack()
                act.deliveries = []
            else:
                grace = self._persistence.now() + timedelta(seconds=self._settings.wake_grace)
                move = WakeMove(instance.id, instance.revision, instance.wake_at, grace, message_sent=True)
                self._calls.move.put(move, _ignore)
            self._done(act)

        self._calls.send.put(message, sent)

    def _hand_back(self, act: Activation, instance: Instance | None, unseen: bool) -> None:
        if unseen and not act.deliveries and instance is not None:
            self._send_on(act, instance)
            return
        for delivery in act.deliveries:
            if unseen:
                delivery.nack()
            else:
                delivery.ack()
        if not unseen and instance is not None:
            self._settle(instance, self._persistence.now())
        act.deliveries = []
        self._done(act)

    def _done(self, act: Activation) -> None:
        for delivery in act.deliveries:
            delivery.ack()
        act.deliveries = []
        if act.inputs or act.again:
            self._begin(act)
        else:
            self._forget(act)


def _superseded(job: Job, pointer: Pointer) -> bool:
    """Has something happened to the pointer that makes the body's result worthless?"""
    ran = job.pointer
    same = (pointer.sleep_until, pointer.retry_count) == (ran.sleep_until, ran.retry_count)
    return pointer.ended or pointer.compensating or pointer.status is PointerStatus.FAILED or not same


def _ignore(result: object) -> None:
    """For writes that only save a needless look when they get through."""
