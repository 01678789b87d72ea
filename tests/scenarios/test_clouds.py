"""Two hosts on one SQLite file, with the queue and the lock of a cloud: on the emulators."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cloud_host import STEPS, host_on
from servers import wait_for

from liteflow.core import WorkflowHost, WorkflowStatus

WORKFLOWS = 8

Arguments = tuple[str, str, str, str, str]


@pytest.fixture(params=["azure", "aws"])
def arguments(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> Arguments:
    """What makes a host: kind, connection, prefix, store, log."""
    kind = str(request.param)
    connection = str(request.getfixturevalue("azure" if kind == "azure" else "aws_endpoint"))
    return kind, connection, prefix, str(tmp_path / "store.db"), str(tmp_path / "log")


@pytest.fixture
def host(arguments: Arguments) -> Iterator[WorkflowHost]:
    """One that runs in this process."""
    host = host_on(*arguments)
    host.start()
    yield host
    host.stop()


@contextmanager
def other_process(arguments: Arguments) -> Iterator[subprocess.Popen[str]]:
    """Another one, which is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cloud_host", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def runs(log: str) -> list[list[str]]:
    """Workflow, step and process of each step that has begun."""
    return [line.split() for line in Path(log).read_text().splitlines()] if Path(log).exists() else []


def count(log: str, step: str) -> int:
    return sum(found == step for _, found, _ in runs(log))


def finish(host: WorkflowHost, ids: list[str]) -> None:
    for workflow_id in ids:
        host.publish_event("paid", workflow_id)
    for workflow_id in ids:
        assert host.wait_for_workflow(workflow_id, timeout=90).status is WorkflowStatus.COMPLETE


def test_workflows_go_on_when_one_of_two_hosts_is_stopped(host: WorkflowHost, arguments: Arguments) -> None:
    log = arguments[-1]
    goes = host_on(*arguments)
    with goes:
        ids = [one.start_workflow("order") for one in (host, goes) for _ in range(WORKFLOWS // 2)]
        wait_for("some timers are over", lambda: count(log, "second") >= 2)
    finish(host, ids)
    steps = Counter((workflow, step) for workflow, step, _ in runs(log))
    assert steps == Counter({(workflow, step): 1 for workflow in ids for step in STEPS})


@pytest.mark.timeout(300)
def test_workflows_go_on_when_one_of_two_processes_is_killed(
    host: WorkflowHost, arguments: Arguments
) -> None:
    """What it had in hand is taken over when its lease and its messages are free again."""
    log = arguments[-1]
    ids: list[str] = []

    def both_have_run_steps() -> bool:
        if count(log, "first") == len(ids):  # one of the two may have been quicker with all of them
            ids.extend(host.start_workflow("order") for _ in range(2 * WORKFLOWS))
        return len({by for _, _, by in runs(log)}) == 2

    with other_process(arguments) as process:
        wait_for("both have run steps", both_have_run_steps, 90)
        process.kill()
        process.wait()
    finish(host, ids)
    steps = Counter((workflow, step) for workflow, step, _ in runs(log))
    assert set(steps) == {(workflow, step) for workflow in ids for step in STEPS}
    for (workflow, step), times in steps.items():
        assert times <= 2, f"{step} of {workflow} has begun {times} times, but one process died"
