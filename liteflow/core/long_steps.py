"""The bodies that this process runs under a claim of their own, outside their instances' leases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from liteflow.core.bodies import Job
from liteflow.core.models import GIVEN_BACK
from liteflow.core.providers import ClaimRenewal


class LongSteps:
    """Claimed jobs by their claims' tokens. Changed on the runner's loop only, read from any thread.

    `changed` is called with how many there are.
    """

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._jobs: dict[str, Job] = {}
        self._changed = changed

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, token: str) -> bool:
        return token in self._jobs

    def get(self, token: str) -> Job | None:
        """The job that runs under the claim with this token."""
        return self._jobs.get(token)

    def add(self, job: Job) -> None:
        """The job's claim is stored."""
        assert job.claim is not None
        self._jobs[job.claim.token] = job
        self._changed(len(self._jobs))

    def remove(self, token: str) -> Job | None:
        """The claim with this token is over."""
        job = self._jobs.pop(token, None)
        if job is not None:
            self._changed(len(self._jobs))
        return job

    def renewals(self, until: datetime) -> list[tuple[Job, ClaimRenewal]]:
        """What to ask the store for, so that nobody takes these jobs over before `until`."""
        return [(job, renewal(job, until)) for job in self if job.claim is not None]

    def give_back(self) -> list[ClaimRenewal]:
        """Forget all of them; returns what makes their claims anybody's."""
        given = [renewal(job, GIVEN_BACK) for job in self if job.claim is not None]
        self._jobs.clear()
        return given


def renewal(job: Job, until: datetime) -> ClaimRenewal:
    """Moves the end of a job's claim."""
    assert job.claim is not None
    return ClaimRenewal(job.instance.id, job.pointer.id, job.claim, until)


def renewed(job: Job, until: datetime) -> None:
    """The store has moved the end of the job's claim."""
    if job.claim is not None:
        job.claim = replace(job.claim, until=until)
