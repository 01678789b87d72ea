"""The counts of the memory provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from liteflow.core.models import Instance
from liteflow.core.survey import OpenCount, OverdueCount, ParkedCount, Survey


def survey(instances: Sequence[Instance], parked: Sequence[Instance], overdue_since: datetime) -> Survey:
    """See `PersistenceProvider.survey`."""
    return Survey(_open(instances), _parked(parked), _overdue(instances, overdue_since))


def _open(instances: Sequence[Instance]) -> list[OpenCount]:
    counts = Counter(
        (one.workflow_definition_id, one.version, one.status) for one in instances if not one.status.ended
    )
    return [OpenCount(*key, counts[key]) for key in sorted(counts)]


def _parked(instances: Sequence[Instance]) -> list[ParkedCount]:
    found: dict[tuple[str, int, str, str], list[tuple[datetime, str]]] = {}
    for one in instances:
        if one.parked is not None:
            key = (one.workflow_definition_id, one.version, one.parked.reason, one.parked.needs)
            found.setdefault(key, []).append((one.parked.since, one.id))
    return [ParkedCount(*key, len(found[key]), *min(found[key])) for key in sorted(found)]


def _overdue(instances: Sequence[Instance], since: datetime) -> list[OverdueCount]:
    found: dict[tuple[str, int], list[datetime]] = {}
    for one in instances:
        if one.wake_at is not None and one.wake_at <= since:
            found.setdefault((one.workflow_definition_id, one.version), []).append(one.wake_at)
    return [OverdueCount(*key, len(found[key]), min(found[key])) for key in sorted(found)]
