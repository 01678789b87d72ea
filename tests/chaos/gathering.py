"""Takes the evidence from where a run has left it: histories, the store and its log, queues, logs."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pika
import pymongo
from chaos import oplog
from chaos.evidence import Evidence, Refused
from chaos.fleet import Exit, Fleet
from chaos.history import read
from chaos.nemesis import Disturbance

from liteflow.core.providers import EVENTS_QUEUE, workflow_queue
from liteflow.providers.rabbitmq.topology import Topology

INTERNAL = re.compile(r"^Traceback|the loop goes on|failed for \d+ items|can't be dispatched", re.M)
"""What a process logs when something has happened to it that it has no answer to."""

GRACE = 20.0
"""Seconds that the end of a server's absence may be behind when a process gives up because of it."""


def gather(fleet: Fleet, disturbances: Sequence[Disturbance], wall: float, workflows: list[str]) -> Evidence:
    """All evidence of a fleet whose workers have ended and whose servers still run."""
    with fleet.store() as client:
        database = client["liteflow"]
        documents: dict[str, Any] = {d["_id"]: d for d in database[f"{fleet.prefix}.instances"].find()}
        logs = oplog.read(client, "liteflow", f"{fleet.prefix}.instances")
        errors = list(_errors(database[f"{fleet.prefix}.errors"]))
    leftovers, dead = _queues(fleet, workflows)
    return Evidence(
        history=read(fleet.folder),
        documents=documents,
        logs=logs,
        disturbances=disturbances,
        wall=wall,
        leftovers=leftovers,
        dead=dead,
        exits=[text for one in fleet.exits if (text := _exit(one, disturbances))],
        noise=list(_noise(fleet.folder)),
        errors=errors,
    )


def _errors(collection: pymongo.collection.Collection[dict[str, Any]]) -> Iterator[str]:
    for record in collection.find({"type": {"$ne": "Declined"}}):
        yield f"{record['_id']} {record.get('step_id')}: {record['type']}: {record['message']}"


def _queues(fleet: Fleet, workflows: list[str]) -> tuple[dict[str, int], list[Refused]]:
    topology = Topology(fleet.prefix, "quorum")
    names = [topology.queue(workflow_queue(workflow, 1)) for workflow in workflows]
    names += [topology.queue(EVENTS_QUEUE), topology.commands_queue]
    dead = []
    with pika.BlockingConnection(pika.URLParameters(fleet.rabbit.url)) as connection:
        channel = connection.channel()
        depth = {name: channel.queue_declare(name, passive=True).method.message_count for name in names}
        for _, properties, body in channel.consume(topology.dead, inactivity_timeout=1, auto_ack=True):
            if properties is None:
                break
            headers = properties.headers or {}
            error, reason = (headers.get(f"x-liteflow-{name}", "") for name in ("error", "reason"))
            dead.append(Refused(properties.message_id or "", error, reason, repr(body[:200])))
    return depth, dead


def _exit(one: Exit, disturbances: Sequence[Disturbance]) -> str | None:
    """A sentence about an end that should not have been. One that was asked for has the code 0, unless
    a server was away meanwhile, or the interpreter was still on its way to our first line."""
    hurt = any(
        not d.skipped and one.slot != d.target and d.since < one.mono and d.until > one.mono - GRACE
        for d in disturbances
    )
    if one.asked and (one.code == 0 or (hurt and one.code == 1)):
        return None
    if one.asked and one.code == -signal.SIGTERM and not one.log.read_bytes():
        return None
    how = "after SIGTERM" if one.asked else "by itself"
    tail = " | ".join(one.log.read_text(errors="replace").splitlines()[-3:])[-600:]
    return f"{one.slot} ended {how} with {one.code} at {one.mono:.3f} ({one.log.name}): {tail}"


def _noise(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.log")):
        text = path.read_text(errors="replace")
        if found := INTERNAL.search(text):
            around = text[max(0, found.start() - 300) : found.end() + 1500]
            yield f"{path.name} has an internal error: ...{around}"
