"""The counts over all instances, each along an index."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from liteflow.core.models import Parked, WorkflowStatus
from liteflow.core.survey import OpenCount, OverdueCount, ParkedCount, Survey
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.records import PARKED
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.values import from_json, from_micros, to_micros


def survey(database: Database, tables: Tables, overdue_since: datetime) -> Survey:
    """See `PersistenceProvider.survey`."""
    i = tables.instances.c
    definition = (i.workflow_definition_id, i.version)
    not_ended = [int(status) for status in WorkflowStatus if not status.ended]
    open_ones = (
        select(*definition, i.status, func.count())
        .where(i.status.in_(not_ended))
        .group_by(*definition, i.status)
    )
    parked = select(*definition, i.parked, i.id).where(i.is_parked == 1)
    overdue = (
        select(*definition, func.count(), func.min(i.wake_at))
        .where(i.wake_at <= to_micros(overdue_since))
        .group_by(*definition)
    )

    def rows(query: Any) -> list[Any]:
        return list(database.read(lambda connection: connection.execute(query).all()))

    return Survey(
        open=sorted(
            (OpenCount(row[0], row[1], WorkflowStatus(row[2]), row[3]) for row in rows(open_ones)),
            key=lambda one: (one.workflow_definition_id, one.version, one.status),
        ),
        parked=_by_reason(rows(parked)),
        overdue=sorted(
            (OverdueCount(row[0], row[1], row[2], from_micros(row[3])) for row in rows(overdue)),
            key=lambda one: (one.workflow_definition_id, one.version),
        ),
    )


def _by_reason(rows: list[Any]) -> list[ParkedCount]:
    """Parked ones should be few, and their reasons are JSON: they are counted here."""
    found: dict[tuple[str, int, str, str], list[tuple[datetime, str]]] = {}
    for workflow, version, stored, instance_id in rows:
        value: Any = from_json(stored)
        parked: Parked = PARKED.read(value)
        key = (workflow, version, parked.reason, parked.needs)
        found.setdefault(key, []).append((parked.since, instance_id))
    return [ParkedCount(*key, len(found[key]), *min(found[key])) for key in sorted(found)]
