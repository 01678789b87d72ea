"""The advance loop: one message's way from the lease to the acknowledgement.

One `Runner` serves a process, embedded or in a cluster. Everything it knows is touched on its loop
only; calls to backends are made by stages, bodies run in slots, and both come back to the loop.

    delivered -> lease -> load -> [ bodies -> engine -> commit ]* -> release -> acknowledge

The rules that keep instances from getting stuck are in the design notes under "The wake rule":
a wake-up is acknowledged only after it was seen through, or after `wake_at` was lowered.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

from liteflow.core.activation import Phase
from liteflow.core.advancing import Advancing
from liteflow.core.bodies import Job
from liteflow.core.bundles import unbundled
from liteflow.core.hops import ignore
from liteflow.core.leaving import Leaving
from liteflow.core.long_steps import renewal, renewed
from liteflow.core.models import (
    GIVEN_BACK,
)
from liteflow.core.providers import (
    ClaimRenewal,
    Delivery,
)
from liteflow.core.running import Running
from liteflow.core.storing import Storing
from liteflow.core.taking import Taking
from liteflow.core.topics import CANCEL_TOPIC, PARKED_TOPIC, REQUEST_TOPIC

log = logging.getLogger("liteflow.runner")


class Runner(Taking, Advancing, Running, Storing, Leaving):
    """Advances instances. `deliver` may be called from any thread."""

    # -------------------------------------------------------------------------------- start and stop

    def start(self) -> None:
        """Begin to work."""
        self._loop.start()
        self._unsubscribe = [
            self._queue.subscribe(CANCEL_TOPIC, self._cancelled_elsewhere),
            self._queue.subscribe(PARKED_TOPIC, self._parked_elsewhere),
            self._queue.subscribe(REQUEST_TOPIC, self._requested),
        ]

    def deliver(self, delivery: Delivery) -> None:
        """Take a wake-up from the queue."""
        parts = unbundled(delivery)
        if len(parts) == 1:
            self._loop.hand_over(partial(self._delivered, delivery))
        else:
            self._loop.hand_over(partial(self._delivered_together, parts))

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
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._calls.close()
        self._slots.close()
        self._loop.stop()
        self._bodies.stop()
        return finished

    def _drain(self) -> None:
        self._draining = True
        not_begun = [job for job in self._long if self._withdraw(job)]
        self._give_back([renewal(job, GIVEN_BACK) for job in not_begun])
        for job in not_begun:
            assert job.claim is not None
            self._long.remove(job.claim.token)
        for act in self._awaiting:
            act.waiting_for -= 1
        self._awaiting.clear()
        self._give_back_waiting()
        for act in list(self._acts.values()):
            act.leave = True
            for job in list(act.busy.values()):
                if self._withdraw(job):
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
            self._calls.write.put(partial(self._persistence.renew_claims, claims), ignore)

    # --------------------------------------------------------------------------------------- heartbeat

    def renew_leases(self) -> None:
        """Renew all leases in one batch. From a thread of its own: no other backend must keep it waiting."""
        self._loop.post(self._room.look)
        held = [(act, lease) for act in list(self._acts.values()) if (lease := act.lease) is not None]
        if held:
            outcomes = self._lock.renew([lease for _, lease in held], self._settings.lease_ttl)
            for (act, lease), ours in zip(held, outcomes, strict=True):
                if not ours and act.lease is lease:  # else it was given back meanwhile
                    log.warning("%s: the lease was lost; nothing new is begun under it", lease.name)

    def renew_claims(self) -> None:
        """Renew all claims of long steps in one batch. From a thread of its own, too."""
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
            self._withdraw(job)
        self._check_idle()

    def _cancelled_elsewhere(self, token: str) -> None:
        job = self._long.get(token)
        if job is not None:
            self._loop.hand_over(partial(self._claim_gone, job))
