"""An instance as a person, or a program, wants to read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from liteflow.core import codec
from liteflow.core.flow import CHILD_EVENT
from liteflow.core.models import (
    ErrorRecord,
    Instance,
    Pointer,
    PointerStatus,
    WorkflowStatus,
    WorkflowSummary,
)
from liteflow.core.views import WorkflowInstance
from liteflow.worker.examination import Definition
from liteflow.worker.tree import in_tree_order


def instance_json(view: WorkflowInstance) -> dict[str, Any]:
    """All of an instance in plain JSON, with the field names of the Python API."""
    record = view.record
    return {
        "id": record.id,
        "workflow_definition_id": record.workflow_definition_id,
        "version": record.version,
        "status": record.status.name,
        "reason": record.reason,
        "reference": record.reference,
        "description": record.description,
        "create_time": time_json(record.create_time),
        "complete_time": time_json(record.complete_time),
        "next_execution": time_json(record.next_execution),
        "deadline": time_json(record.deadline),
        "parent": record.parent,
        "revision": record.revision,
        "blocked_on": blocked_on(record),
        "data": codec.to_json(dict(record.data)),
        "execution_pointers": [
            {
                "id": pointer.id,
                "step_id": pointer.step_id,
                "status": pointer.status.name,
                "active": pointer.active,
                "start_time": time_json(pointer.start_time),
                "end_time": time_json(pointer.end_time),
                "sleep_until": time_json(pointer.sleep_until),
                "persistence_data": _plain(pointer.persistence_data),
                "event_name": pointer.event_name,
                "event_key": pointer.event_key,
                "event_data": _plain(pointer.event_data),
                "context_item": _plain(pointer.context_item),
                "outcome": _plain(pointer.outcome),
                "retry_count": pointer.retry_count,
                "error": pointer.error,
                "predecessor_id": pointer.predecessor_id,
                "children": pointer.children,
                "scope": pointer.scope,
            }
            for pointer in view.execution_pointers
        ],
    }


def summary_json(summary: WorkflowSummary) -> dict[str, Any]:
    """One row of a listing in plain JSON."""
    return {
        "id": summary.id,
        "status": summary.status.name,
        "workflow_definition_id": summary.workflow_definition_id,
        "version": summary.version,
        "reference": summary.reference,
        "create_time": time_json(summary.create_time),
        "complete_time": time_json(summary.complete_time),
        "parked": summary.parked,
    }


def blocked_on(record: Instance) -> list[dict[str, Any]]:
    """What an instance waits for: empty when it has ended or is just being advanced."""
    if record.status.ended:
        return []
    if record.parked is not None:
        parked = record.parked
        return [
            {
                "kind": "parked",
                "reason": parked.reason,
                "since": time_json(parked.since),
                "needs": parked.needs,
            }
        ]
    if record.status is WorkflowStatus.SUSPENDED:
        return [{"kind": "suspended", "reason": record.reason}]
    if not record.begun:
        return [{"kind": "worker", "needs": f"a worker with {record.workflow_definition_id}"}]
    return [why for pointer in record.open_pointers() if (why := _pointer_blocked_on(record, pointer))]


def _pointer_blocked_on(record: Instance, pointer: Pointer) -> dict[str, Any] | None:
    why = _pointer_waits(record, pointer)
    if why is None:
        return None
    where = {"kind": why.pop("kind"), "step_id": pointer.step_id, "pointer_id": pointer.id}
    # The time of a step that is being compensated has ceased to run.
    late = (
        {} if pointer.deadline is None or pointer.compensating else {"deadline": time_json(pointer.deadline)}
    )
    return {**where, **why, **late}


def _pointer_waits(record: Instance, pointer: Pointer) -> dict[str, Any] | None:
    claim = record.claims.get(pointer.id)
    if claim is not None:
        return {"kind": "running", "by": claim.by, "until": time_json(claim.until)}
    if pointer.compensating:
        return {"kind": "compensating", "error": pointer.error, "left": len(pointer.undo)}
    if pointer.status is PointerStatus.WAITING_FOR_EVENT:
        until = {} if pointer.sleep_until is None else {"until": time_json(pointer.sleep_until)}
        return {**_awaited(pointer), **until}
    if pointer.status is PointerStatus.SLEEPING:
        kind = "retry" if pointer.retry_count else "timer"
        return {"kind": kind, "until": time_json(pointer.sleep_until), "error": pointer.error}
    return None


def _awaited(pointer: Pointer) -> dict[str, Any]:
    if pointer.activity is not None:
        return {"kind": "activity", "name": pointer.activity, "since": time_json(pointer.start_time)}
    if pointer.event_name == CHILD_EVENT:
        return {"kind": "child", "id": pointer.event_key, "since": time_json(pointer.start_time)}
    since = time_json(pointer.event_since)
    return {"kind": "event", "name": pointer.event_name, "key": pointer.event_key, "since": since}


# ------------------------------------------------------------------------------------------- for people


def instance_text(view: WorkflowInstance, errors: Iterable[ErrorRecord], now: datetime) -> str:
    """Status, why it is not moving, steps as a tree with times and attempts, data, last error."""
    record = view.record
    lines = [
        f"{record.workflow_definition_id} version {record.version}  {record.id}",
        f"  status     {record.status.name}{f'  ({record.reason})' if record.reason else ''}",
    ]
    if record.reference:
        lines.append(f"  reference  {record.reference}")
    if record.parent is not None:
        lines.append(f"  parent     {record.parent}")
    lines.append(f"  created    {_moment(record.create_time, now)}")
    if record.complete_time is not None:
        took = (record.complete_time - record.create_time).total_seconds()
        lines.append(f"  ended      {_moment(record.complete_time, now)}, after {_seconds(took)}")
    if record.deadline is not None:
        lines.append(f"  deadline   {_moment(record.deadline, now)}")
    lines.append(f"  revision   {record.revision}")
    waits = blocked_on(record)
    if waits:
        lines += ["", "waits for"]
        lines += [f"  {_wait_text(wait)}" for wait in waits]
    elif not record.status.ended:
        lines += ["", "  a wake-up is under way, or a worker is at it"]
    lines += ["", "steps"]
    lines += _tree(view, now)
    lines += ["", "data"]
    lines += [f"  {line}" for line in json.dumps(codec.to_json(dict(record.data)), indent=2).splitlines()]
    last = list(errors)[-1:]
    for error in last:
        lines += [
            "",
            f"last error  (step {error.step_id}, attempt {error.attempt}, {_moment(error.time, now)})",
        ]
        lines += [f"  {error.type}: {error.message}"]
        lines += [f"  {line}" for line in error.traceback.strip().splitlines()[-6:]]
    return "\n".join(lines)


def summary_lines(summaries: Iterable[WorkflowSummary]) -> list[str]:
    """A listing as a table."""
    rows = [("ID", "STATUS", "WORKFLOW", "REFERENCE", "CREATED")]
    for s in summaries:
        status = s.status.name + (" (parked)" if s.parked else "")
        created = s.create_time.strftime("%Y-%m-%d %H:%M:%S")
        rows.append((s.id, status, f"{s.workflow_definition_id}.{s.version}", s.reference or "-", created))
    return _table(rows)


def definition_lines(definitions: Iterable[Definition]) -> list[str]:
    """What is known of definitions as a table."""
    rows = [("WORKFLOW", "VERSION", "WORKERS", "RUNNABLE", "SUSPENDED", "PARKED", "")]
    for one in definitions:
        note = "waits for a worker" if one.waits_for_worker else "" if one.recorded else "not recorded"
        counts = (one.version, one.workers, one.runnable, one.suspended, one.parked)
        rows.append((one.id, *(str(count) for count in counts), note))  # type: ignore[arg-type]
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _wait_text(wait: dict[str, Any]) -> str:
    step = f"step {wait['step_id']}: " if "step_id" in wait else ""
    late = f"; its time is up at {wait['deadline']}" if "deadline" in wait else ""
    return f"{step}{_reason_text(wait)}{late}"


def _reason_text(wait: dict[str, Any]) -> str:
    until = f", until {wait['until']} at the latest" if wait.get("until") else ""
    match wait["kind"]:
        case "event":
            return f"event {wait['name']!r} with key {wait['key']!r}, since {wait['since']}{until}"
        case "activity":
            return f"activity {wait['name']!r} to be done, since {wait['since']}{until}"
        case "child":
            return f"child workflow {wait['id']}, since {wait['since']}"
        case "compensating":
            return f"is being undone, {wait['left']} compensations are left, after {wait['error']}"
        case "timer":
            return f"sleeps until {wait['until']}"
        case "retry":
            return f"runs again at {wait['until']} after {wait['error']}"
        case "running":
            return f"runs in process {wait['by']}, which renews its claim (now until {wait['until']})"
        case "suspended":
            return f"a resume: {wait['reason']}"
        case "parked":
            return f"{wait['needs']}: parked since {wait['since']}, because {wait['reason']}"
        case _:
            return str(wait.get("needs", wait["kind"]))


_MARKS = {
    PointerStatus.COMPLETE: "+",
    PointerStatus.FAILED: "!",
    PointerStatus.CANCELLED: "x",
    PointerStatus.COMPENSATED: "<",
}


def _tree(view: WorkflowInstance, now: datetime) -> list[str]:
    lines = []
    for pointer in in_tree_order(view.execution_pointers):
        parts = [pointer.status.name.lower().replace("_", " ")]
        if pointer.start_time is not None and pointer.end_time is not None:
            parts.append(_seconds((pointer.end_time - pointer.start_time).total_seconds()))
        elif pointer.start_time is not None:
            parts.append(f"since {_moment(pointer.start_time, now)}")
        if pointer.retry_count:
            parts.append(f"{pointer.retry_count} failed attempts")
        if pointer.context_item is not None:
            parts.append(f"item {_short(_plain(pointer.context_item))}")
        if (record := view.record.pointers.get(pointer.id)) is not None and record.compensating:
            parts.append("being undone")
        if pointer.error and pointer.active:
            parts.append(pointer.error)
        mark = _MARKS.get(pointer.status, "-")
        lines.append(f"  {'  ' * len(pointer.scope)}{mark} {pointer.step_id}  ({', '.join(parts)})")
    return lines or ["  (not begun)"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _plain(value: Any) -> Any:
    return codec.to_json(codec.encode(value))


def time_json(value: datetime | None) -> str | None:
    """A time as it stands in JSON."""
    return None if value is None else value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def _moment(value: datetime, now: datetime) -> str:
    age = (now - value).total_seconds()
    distance = f"{_seconds(age)} ago" if age >= 0 else f"in {_seconds(-age)}"
    return f"{value.strftime('%Y-%m-%d %H:%M:%S')} UTC ({distance})"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
