"""Each example of the original library's README, as it stands there, with the output that it promises."""

from __future__ import annotations

from typing import Any

import pytest

SETUP = """
from liteflow.core import *


class Hello(StepBody):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        print("Hello world")


class Goodbye(StepBody):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        print("Goodbye")
        return ExecutionResult.next()


class AddNumbers(StepBody):
    def __init__(self):
        self.input1 = 0
        self.input2 = 0
        self.output = 0

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        self.output = self.input1 + self.input2
        return ExecutionResult.next()


class MyData:
    def __init__(self):
        self.value1 = 0
        self.value2 = 0
        self.value3 = 0


class DoStuff(StepBody):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        print(f"doing stuff...{context.execution_pointer.context_item}")
        return ExecutionResult.next()
"""

SEQUENCE = """
class MyWorkflow(Workflow):

    def id(self):
        return "MyWorkflow"

    def version(self):
        return 1

    def build(self, builder: WorkflowBuilder):
        builder\\
            .start_with(Hello)\\
            .then(Goodbye)
"""

DATA = """
class MyWorkflow(Workflow):
    def build(self, builder: WorkflowBuilder):
        builder\\
            .start_with(Hello)\\
            .then(AddNumbers) \\
                .input('input1', lambda data, context: data.value1) \\
                .input('input2', lambda data, context: data.value2) \\
                .output('value3', lambda step: step.output) \\
            .then(Goodbye)
"""

EVENT = """
class MyWorkflow(Workflow):
    def build(self, builder: WorkflowBuilder):
        builder\\
            .start_with(Hello) \\
            .wait_for('event1', lambda data, context: 'key1') \\
            .then(Goodbye)
"""

EVENT_DATA = """
class MyWorkflow(Workflow):
    def build(self, builder: WorkflowBuilder):
        builder\\
            .start_with(Hello) \\
            .wait_for('event1', lambda data, context: 'key1') \\
                .output('captured_value', lambda step: step.event_data) \\
            .then(Goodbye)
"""

FOR_EACH = """
class MyWorkflow(Workflow):

    def build(self, builder: WorkflowBuilder):
        builder\\
            .start_with(Hello)\\
            .for_each(lambda data, context: ["abc", "def", "xyz"])\\
                .do(lambda x:\\
                    x.start_with(DoStuff))\\
            .then(Goodbye)
"""

WHILE = """
class DoStuff(StepBody):
    def run(self, context):
        print(f"doing stuff...{self.my_value}")
        self.your_value = self.my_value + 1
        return ExecutionResult.next()


class MyWorkflow(Workflow):
    def build(self, builder: WorkflowBuilder):
        builder\\
            .start_with(Hello)\\
            .while_(lambda data, context: data.value1 < 3)\\
                .do(lambda do:\\
                    do.start_with(DoStuff)\\
                        .input('my_value', lambda data, context: data.value1)\\
                        .output('value1', lambda step: step.your_value))\\
            .then(Goodbye)
"""

IF = """
class MyWorkflow(Workflow):

    def build(self, builder: WorkflowBuilder):
        builder\\
            .start_with(Hello)\\
            .if_(lambda data, context: data.value1 > 3)\\
                .do(lambda x:\\
                    x.start_with(DoStuff))\\
            .then(Goodbye)
"""


def run(source: str, data: Any = None, event: Any = None) -> Any:
    space: dict[str, Any] = {}
    exec(SETUP + source, space)
    host = space["configure_workflow_host"]()
    host.register_workflow(space["MyWorkflow"]())
    host.start()
    try:
        wid = host.start_workflow("MyWorkflow", 1, space["MyData"]() if data == "MyData" else data)
        if event is not None:
            while not any(p.event_name for p in host.get_workflow(wid).execution_pointers):
                with pytest.raises(TimeoutError):
                    host.wait_for_workflow(wid, 0.01)
            host.publish_event("event1", "key1", event)
        instance = host.wait_for_workflow(wid, 10)
        assert instance.status.name == "COMPLETE", instance.reason
        return instance.data
    finally:
        host.stop()


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_steps_run_in_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    run(SEQUENCE)
    assert printed(capsys) == ["Hello world", "Goodbye"]


def test_data_goes_in_and_out_of_steps(capsys: pytest.CaptureFixture[str]) -> None:
    data = run(DATA, {"value1": 2, "value2": 3})
    assert data.value3 == 5
    assert run(DATA, "MyData").value3 == 0
    assert printed(capsys) == ["Hello world", "Goodbye"] * 2


def test_an_event_wakes_the_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    run(EVENT, event="hello")
    assert printed(capsys) == ["Hello world", "Goodbye"]


def test_event_data_is_captured() -> None:
    assert run(EVENT_DATA, event="hello").captured_value == "hello"


def test_for_each_prints_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        run(FOR_EACH)
        stuff = [f"doing stuff...{item}" for item in ("abc", "def", "xyz")]
        assert printed(capsys) == ["Hello world", *stuff, "Goodbye"]


def test_while_loops_until_the_condition_fails(capsys: pytest.CaptureFixture[str]) -> None:
    data = run(WHILE, {"value1": 0})
    assert data.value1 == 3
    rounds = [f"doing stuff...{n}" for n in range(3)]
    assert printed(capsys) == ["Hello world", *rounds, "Goodbye"]


@pytest.mark.parametrize(("value", "runs"), [(4, 1), (3, 0)])
def test_if_runs_its_block_or_not(value: int, runs: int, capsys: pytest.CaptureFixture[str]) -> None:
    run(IF, {"value1": value})
    assert printed(capsys) == ["Hello world", *["doing stuff...None"] * runs, "Goodbye"]
