"""The workflow's data in all the types that it may have."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pydantic
import pytest
from scenarios.helpers import Hosts, finish, nothing, run, workflow

from liteflow.core import DataError, StepBody, StepExecutionContext, Workflow, WorkflowBuilder

PRECISE = Decimal("1.235465673450897890")


class Add(StepBody):
    a = b = result = 0

    def run(self, context: StepExecutionContext) -> None:
        self.result = self.a + self.b


@dataclass
class Nested:
    value: Decimal = Decimal(0)


@dataclass
class Record:
    a: int = 0
    b: int = 0
    result: int = 0
    precise: Decimal = Decimal(0)
    tags: list[str] = field(default_factory=list)
    nested: Nested = field(default_factory=Nested)


class Model(pydantic.BaseModel):
    a: int = 0
    b: int = 0
    result: int = 0
    precise: Decimal = Decimal(0)


class Plain:
    def __init__(self) -> None:
        self.a = self.b = self.result = 0
        self.precise = Decimal(0)


@pytest.mark.parametrize("kind", [Record, Model, Plain])
def test_data_of_a_declared_type_comes_back_as_that_type(make_host: Hosts, kind: Any) -> None:
    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(Add).input("a", lambda data: data.a).input("b", lambda data: data.b)
        step.output("result", lambda step: step.result)

    given = kind()
    given.a, given.b, given.precise = 2, 3, PRECISE
    data = run(make_host(workflow(build, data_type=kind)), given).data
    assert type(data) is kind
    assert (data.a, data.b, data.result, data.precise) == (2, 3, 5, PRECISE)


def test_data_may_be_a_dict(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        step = b.start_with(Add).input("a", lambda data: data["a"]).input("b", 1)
        step.output("result", lambda step: step.result)

    assert run(make_host(workflow(build, data_type=dict)), {"a": 1}).data == {"a": 1, "result": 2}


def test_no_data_with_a_declared_type_is_a_fresh_object_each_time(make_host: Hosts) -> None:
    def body(context: StepExecutionContext) -> None:
        context.data.tags.append("x")
        context.data.a += 1

    host = make_host(workflow(lambda b: b.start_with(body), data_type=Record))
    for _ in range(2):
        assert run(host).data == Record(a=1, tags=["x"])


def test_no_data_and_no_type_is_an_empty_namespace(make_host: Hosts) -> None:
    step = workflow(lambda b: b.start_with(nothing).output("made", lambda step: "here"))
    assert run(make_host(step)).data.made == "here"


def test_parallel_bodies_that_change_different_attributes_keep_both_changes(make_host: Hosts) -> None:
    barrier = threading.Barrier(2, timeout=20)

    def change(name: str) -> Any:
        def body(context: StepExecutionContext) -> None:
            setattr(context.data, name, True)
            barrier.wait()

        return lambda x: x.start_with(body)

    data = run(make_host(workflow(lambda b: b.parallel().do(change("one")).do(change("two")).join()))).data
    assert (data.one, data.two) == (True, True)


def test_dotted_names_reach_into_nested_objects(make_host: Hosts) -> None:
    def build(b: WorkflowBuilder) -> None:
        b.start_with(nothing).output("nested.value", lambda step: PRECISE)

    assert run(make_host(workflow(build, data_type=Record)), Record()).data.nested == Nested(PRECISE)


def test_data_that_does_not_fit_its_type_is_refused_at_the_start(make_host: Hosts) -> None:
    @dataclass
    class Counted:
        count: int = 0
        extra: object = None

    class Typed(Workflow):
        data_type = Counted

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(lambda context: None)

    host = make_host(Typed())
    with pytest.raises(DataError, match="does not fit"):
        host.start_workflow("Typed", data={"count": "many"})
    assert host.list_workflows().items == []
    assert finish(host, host.start_workflow("Typed", data={"extra": ["anything"]})).data.extra == ["anything"]
