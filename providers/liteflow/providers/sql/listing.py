"""Listings: filters as queries that an index serves, in order, from where the page before ended."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, or_, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from liteflow.core.models import WorkflowStatus, WorkflowSummary
from liteflow.core.paging import decode_cursor, encode_cursor
from liteflow.core.providers import ListFilter, Page
from liteflow.providers.sql.database import Database
from liteflow.providers.sql.schema import Tables
from liteflow.providers.sql.values import from_json, from_micros, to_micros


def list_page(database: Database, tables: Tables, query: ListFilter) -> Page:
    """See `PersistenceProvider.list`."""
    statement = listing_query(tables, query)
    rows = database.read(lambda connection: connection.execute(statement).all())
    items = [_summary(row) for row in rows[: query.limit]]
    more = len(rows) > query.limit
    return Page(items, encode_cursor(items[-1].create_time, items[-1].id) if more else None)


def listing_query(tables: Tables, query: ListFilter) -> Any:
    """The rows of a page, and one more if there is one."""
    i = tables.instances.c
    columns = (
        i.id, i.status, i.workflow_definition_id, i.version, i.reference,
        i.create_time, i.complete_time, i.parked,
    )  # fmt: skip
    conditions = list(_conditions(i, query))
    page = query.limit + 1
    if query.reference is not None or query.parked or query.status is not None:
        if query.status is not None:
            conditions.append(i.status == int(query.status))
        return select(*columns).where(*conditions).order_by(i.create_time.desc(), i.id.desc()).limit(page)
    # The indexes are in order of time for each status, so a page is merged from one of each.
    by_status = [
        select(*columns)
        .where(i.status == int(status), *conditions)
        .order_by(i.create_time.desc(), i.id.desc())
        .limit(page)
        .subquery()
        for status in WorkflowStatus
    ]
    merged = union_all(*(select(one) for one in by_status)).subquery()
    m = merged.c
    return select(merged).order_by(m.create_time.desc(), m.id.desc()).limit(page)


def _conditions(i: Any, query: ListFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.workflow is not None:
        conditions.append(i.workflow_definition_id == query.workflow)
    if query.reference is not None:
        conditions.append(i.reference == query.reference)
    if query.parked is not None:
        conditions.append(i.is_parked == 1 if query.parked else i.is_parked.is_(None))
    if query.created_after is not None:
        conditions.append(i.create_time >= to_micros(query.created_after))
    if query.created_before is not None:
        conditions.append(i.create_time < to_micros(query.created_before))
    if query.cursor is not None:
        create_time, instance_id = decode_cursor(query.cursor)
        at = to_micros(create_time)
        # The first condition alone is what the index is entered by.
        conditions.append(and_(i.create_time <= at, or_(i.create_time < at, i.id < instance_id)))
    return conditions


def _summary(row: Any) -> WorkflowSummary:
    parked: Any = None if row.parked is None else from_json(row.parked)
    return WorkflowSummary(
        row.id,
        WorkflowStatus(row.status),
        row.workflow_definition_id,
        row.version,
        row.reference,
        from_micros(row.create_time),
        None if row.complete_time is None else from_micros(row.complete_time),
        None if parked is None else parked["reason"],
    )
