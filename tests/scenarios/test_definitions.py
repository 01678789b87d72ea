"""What a definition refuses, and what its ids are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scenarios.helpers import nothing, workflow

from liteflow.core import DefinitionError, StepBody, Workflow, WorkflowBuilder, configure_workflow_host


class First(StepBody):
    def run(self, context: Any) -> None: ...


class Second(StepBody):
    def run(self, context: Any) -> None: ...


def ids(build: Callable[[WorkflowBuilder], Any]) -> list[str]:
    return [step.id for step in workflow(build).definition().steps]


@pytest.mark.parametrize(
    ("build", "step"),
    [
        (lambda b: b.start_with(nothing).if_(True).do(lambda x: None), "if"),
        (lambda b: b.start_with(nothing).while_(True), "while"),
        (lambda b: b.start_with(nothing).for_each([1]).do(lambda x: x), "for_each"),
        (lambda b: b.start_with(nothing).id("here").attach("nowhere"), "nowhere"),
        (lambda b: b.start_with(nothing).id("same").then(nothing).id("same"), "same"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused_by_workflow_and_step(build: Any, step: str) -> None:
    host = configure_workflow_host()
    with pytest.raises(DefinitionError) as refused:
        host.register_workflow(workflow(build, "order"))
    assert "order" in str(refused.value)
    assert step in str(refused.value)
    assert not host.is_registered("order")


def test_a_workflow_without_a_first_step_is_refused() -> None:
    with pytest.raises(DefinitionError, match="order"):
        configure_workflow_host().register_workflow(workflow(lambda b: None, "order"))


def test_the_same_id_and_version_twice_is_refused() -> None:
    host = configure_workflow_host()
    host.register_workflow(workflow(lambda b: b.start_with(nothing), "order"))
    with pytest.raises(DefinitionError, match="order"):
        host.register_workflow(workflow(lambda b: b.start_with(nothing), "order"))
    host.register_workflow(workflow(lambda b: b.start_with(nothing), "order", version=2))
    assert host.registry.get_definition("order").version == 2
    assert sorted(definition.version for definition in host.registry.get_all()) == [1, 2]


def test_id_and_version_may_be_attributes_properties_or_methods() -> None:
    class Attributes(Workflow):
        id = "order"
        version = 3

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(nothing)

    class Properties(Attributes):
        @property
        def id(self) -> str:  # type: ignore[override]
            return "order"

        @property
        def version(self) -> int:  # type: ignore[override]
            return 3

    class Methods(Attributes):
        def id(self) -> str:  # type: ignore[override]
            return "order"

        def version(self) -> int:  # type: ignore[override]
            return 3

    class Neither(Workflow):
        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(nothing)

    found = [kind().definition() for kind in (Attributes, Properties, Methods)]
    assert {(definition.id, definition.version) for definition in found} == {("order", 3)}
    default = Neither().definition()
    assert (default.id, default.version) == ("Neither", 1)


def test_an_unrelated_step_before_it_does_not_change_a_step_s_id() -> None:
    def old(b: WorkflowBuilder) -> None:
        b.start_with(First).if_(True).do(lambda x: x.start_with(Second)).then(Second)

    def new(b: WorkflowBuilder) -> None:
        step = b.start_with(nothing).wait_for("go", "k").then(First).delay(1)
        step.if_(True).do(lambda x: x.start_with(Second)).then(Second)

    assert set(ids(old)) < set(ids(new))
    assert len(set(ids(new))) == len(ids(new))
