"""Drawn workflows: what is in the graph, that both formats hold whatever names there are, and the command."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import graphviz
import pytest
from click.testing import CliRunner, Result
from servers import wait_for

from liteflow.core import Settings, Workflow, WorkflowBuilder
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.models import Instance, Pointer, PointerStatus
from liteflow.core.views import WorkflowInstance
from liteflow.worker.cli import main
from liteflow.worker.dot import dot
from liteflow.worker.graph import draw
from liteflow.worker.mermaid import mermaid
from liteflow.worker.picture import Box, Graph, Group, Mark, Shape
from liteflow.worker.wiring import Servers

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
Build = Callable[[WorkflowBuilder], Any]
ENDED = {
    PointerStatus.COMPLETE,
    PointerStatus.CANCELLED,
    PointerStatus.COMPENSATED,
}


def step(name: str) -> Callable[[Any], Any]:
    def run(context: Any) -> None:
        return None

    run.__name__ = name
    return run


def define(build: Build, name: str = "drawn") -> WorkflowDefinition:
    def build_it(self: Workflow, builder: WorkflowBuilder) -> None:
        build(builder)

    made: Workflow = type("Drawn", (Workflow,), {"id": name, "build": build_it})()
    return made.definition()


def boxes(items: Iterable[Box | Group]) -> Iterator[Box]:
    for item in items:
        if isinstance(item, Box):
            yield item
        else:
            yield from boxes(item.items)


def names(graph: Graph) -> dict[str, str]:
    """Names of boxes by key; joins are named after the container that they are in."""
    found = {box.key: box.name for box in boxes(graph.items)}
    return {
        key: name or ("start" if key == "start" else f"end of {found[key.removeprefix('j')]}")
        for key, name in found.items()
    }


def arrows(graph: Graph) -> set[tuple[str, str, str]]:
    name = names(graph)
    return {(name[a.source], a.label, name[a.target]) for a in graph.arrows}


def groups(items: Iterable[Box | Group], around: str = "") -> dict[str, str]:
    """For each named box, the titles of the groups around it."""
    found: dict[str, str] = {}
    for item in items:
        if isinstance(item, Group):
            found |= groups(item.items, f"{around}/{item.title}")
        elif item.name:
            found[item.name] = around
    return found


def everything(b: WorkflowBuilder) -> None:
    """All verbs that draw something of their own."""
    (
        b.start_with(step("begin"))
        .if_(lambda d: True)
        .name("asked?")
        .do(lambda x: x.start_with(step("yes")))
        .else_()
        .do(lambda x: x.start_with(step("no")))
        .for_each(lambda d: [])
        .do(lambda x: x.start_with(step("item")))
        .while_(lambda d: False)
        .do(lambda x: x.delay(1).then(step("again")))
        .saga(
            lambda s: (
                s.start_with(step("book"))
                .compensate_with(step("unbook"))
                .parallel()
                .do(lambda p: p.start_with(step("left")))
                .do(lambda p: p.start_with(step("right")))
                .join()
            )
        )
        .compensate_with_sequence(lambda c: c.start_with(step("sorry")).then(step("refund")))
        .wait_for("paid", "k", timeout=5)
        .on_timeout()
        .do(lambda t: t.start_with(step("remind")))
        .race(lambda r: r.activity("approve"), lambda r: r.delay(5))
        .decide(lambda d: 1)
        .branch(1, b.create_branch().start_with(step("one")))
        .default(b.create_branch().end_workflow())
        .schedule(5)
        .do(lambda x: x.start_with(step("later")))
        .recur(5)
        .do(lambda x: x.start_with(step("beat")))
        .start_child("other")
        .when(1)
        .do(lambda x: x.start_with(step("matched")))
        .then(step("last"))
    )


# ------------------------------------------------------------------------------------------- the graph


def test_each_step_has_one_box_and_one_key() -> None:
    definition = define(everything)
    drawn = [box for box in boxes(draw(definition).items) if box.shape not in (Shape.START, Shape.JOIN)]
    assert sorted(box.name for box in drawn) == sorted(s.name for s in definition.steps)
    keys = [box.key for box in boxes(draw(definition).items)]
    assert len(set(keys)) == len(keys)


def test_all_arrows_have_both_ends() -> None:
    graph = draw(define(everything))
    keys = {box.key for box in boxes(graph.items)}
    assert {end for arrow in graph.arrows for end in (arrow.source, arrow.target)} == keys
    assert len(set(graph.arrows)) == len(graph.arrows)


def test_a_chain() -> None:
    graph = draw(define(lambda b: b.start_with(step("a")).then(step("b"))))
    assert arrows(graph) == {("start", "", "a"), ("a", "", "b")}
    assert [(box.name, box.kind) for box in boxes(graph.items)][1:] == [("a", "step"), ("b", "step")]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            lambda b: b.if_(1).name("c").do(lambda x: x.start_with(step("a"))).then(step("z")),
            {("c", "yes", "a"), ("a", "", "end of c"), ("c", "no", "end of c"), ("end of c", "", "z")},
        ),
        (
            lambda b: (
                b.if_(1)
                .name("c")
                .do(lambda x: x.start_with(step("a")))
                .else_()
                .do(lambda x: x.start_with(step("b")))
                .then(step("z"))
            ),
            {
                ("c", "yes", "a"),
                ("c", "else", "b"),
                ("a", "", "end of c"),
                ("b", "", "end of c"),
                ("end of c", "", "z"),
            },
        ),
        (
            lambda b: (
                b.while_(1).name("c").do(lambda x: x.start_with(step("a")).then(step("b"))).then(step("z"))
            ),
            {("c", "while true", "a"), ("a", "", "b"), ("b", "", "c"), ("c", "done", "z")},
        ),
        (
            lambda b: b.for_each([]).name("c").do(lambda x: x.start_with(step("a"))).then(step("z")),
            {("c", "each item", "a"), ("a", "", "end of c"), ("end of c", "", "z")},
        ),
        (
            lambda b: b.for_each([]).name("c").do(lambda x: x.start_with(step("a"))),
            {("c", "each item", "a")},
        ),
        (
            lambda b: (
                b.wait_for("e", "k", timeout=1)
                .name("c")
                .on_timeout()
                .do(lambda x: x.start_with(step("a")))
                .then(step("z"))
            ),
            {
                ("c", "on time-out", "a"),
                ("a", "", "end of c"),
                ("c", "event", "end of c"),
                ("end of c", "", "z"),
            },
        ),
        (
            lambda b: b.saga(lambda s: s.start_with(step("a")).then(step("b"))).name("c").then(step("z")),
            {("c", "", "a"), ("a", "", "b"), ("b", "", "z")},
        ),
        (
            lambda b: (
                b.decide(1)
                .name("c")
                .branch(1, b.create_branch().start_with(step("a")))
                .branch(2, b.create_branch().end_workflow())
                .then(step("z"))
            ),
            {
                ("c", "case 1", "a"),
                ("c", "case 2", "end"),
                ("c", "no match", "end of c"),
                ("a", "", "end of c"),
                ("end of c", "", "z"),
            },
        ),
        (
            lambda b: b.start_with(step("c")).id("c").then(step("a")).attach("c"),
            {("c", "", "a"), ("a", "", "c")},
        ),
        (
            lambda b: (
                b.start_with(step("c"))
                .id("c")
                .if_(1)
                .name("i")
                .do(lambda x: x.start_with(step("a")).attach("c"))
                .then(step("z"))
            ),
            {
                ("c", "", "i"),
                ("i", "yes", "a"),
                ("a", "", "c"),
                ("i", "no", "end of i"),
                ("end of i", "", "z"),
            },
        ),
    ],
    ids=["if", "if-else", "while", "for_each", "last", "time-out", "saga", "decide", "attach", "attach-out"],
)
def test_arrows_follow_the_flow(build: Build, expected: set[tuple[str, str, str]]) -> None:
    graph = draw(define(build))
    assert arrows(graph) - {("start", "", "c")} == expected


def test_groups_are_the_containers() -> None:
    around = groups(draw(define(everything)).items)
    assert around["begin"] == around["last"] == around["sorry"] == around["refund"] == ""
    assert around["asked?"] == around["yes"] == around["no"] == "/if"
    assert around["book"] == around["unbook"] == "/saga"
    assert around["left"] == around["right"] == "/saga/parallel"
    assert around["activity:approve"] == "/race/branch"
    assert around["remind"] == "/wait_for"
    assert around["later"] == "/schedule"


def test_a_step_inside_that_goes_on_outside_leaves_that_one_outside() -> None:
    around = groups(
        draw(
            define(
                lambda b: (
                    b.if_(1).do(lambda x: x.start_with(step("in")).attach("out")).then(step("out")).id("out")
                )
            )
        ).items
    )
    assert around == {"if:in": "/if", "in": "/if", "out": ""}


def test_a_step_that_goes_back_into_a_block_leaves_that_one_inside() -> None:
    def build(b: WorkflowBuilder) -> None:
        b.if_(1).do(lambda x: x.start_with(step("in")).id("in")).then(step("out")).attach("in")

    graph = draw(define(build))
    assert groups(graph.items) == {"if:in": "/if", "in": "/if", "out": ""}
    assert ("out", "", "in") in arrows(graph)


def test_compensations_are_apart() -> None:
    graph = draw(define(everything))
    dotted = {(names(graph)[a.source], names(graph)[a.target]) for a in graph.arrows if a.dotted}
    assert dotted == {("book", "unbook"), ("saga:book", "sorry")}
    assert {box.name for box in boxes(graph.items) if box.undoes} == {"unbook", "sorry", "refund"}
    assert ("sorry", "", "refund") in arrows(graph)


# ------------------------------------------------------------------------------------------- its position


def view(*pointers: tuple[str, PointerStatus]) -> WorkflowInstance:
    record = Instance("i-1", "drawn", 1, NOW)
    for number, (step_id, status) in enumerate(pointers, 1):
        end = NOW if status in ENDED else None
        record.pointers[str(number)] = Pointer(str(number), step_id, status=status, end_time=end)
    return WorkflowInstance(record)


@pytest.mark.parametrize(
    ("statuses", "mark", "note"),
    [
        ([], None, ""),
        ([PointerStatus.COMPLETE], Mark.COMPLETE, "complete"),
        ([PointerStatus.PENDING], Mark.OPEN, "open"),
        ([PointerStatus.RUNNING], Mark.OPEN, "open"),
        ([PointerStatus.SLEEPING], Mark.WAITING, "waiting"),
        ([PointerStatus.WAITING_FOR_EVENT], Mark.WAITING, "waiting"),
        ([PointerStatus.FAILED], Mark.FAILED, "failed"),
        ([PointerStatus.COMPENSATED], Mark.COMPENSATED, "compensated"),
        ([PointerStatus.CANCELLED], Mark.CANCELLED, "cancelled"),
        ([PointerStatus.COMPLETE, PointerStatus.COMPLETE], Mark.COMPLETE, "2 complete"),
        ([PointerStatus.COMPLETE, PointerStatus.CANCELLED], Mark.CANCELLED, "1 complete, 1 cancelled"),
        ([PointerStatus.WAITING_FOR_EVENT, PointerStatus.COMPLETE], Mark.WAITING, "1 waiting, 1 complete"),
        ([PointerStatus.FAILED, PointerStatus.RUNNING], Mark.FAILED, "1 failed, 1 open"),
    ],
)
def test_the_mark_of_a_step(statuses: list[PointerStatus], mark: Mark | None, note: str) -> None:
    graph = draw(define(lambda b: b.start_with(step("a"))), view(*(("a", status) for status in statuses)))
    (box,) = (box for box in boxes(graph.items) if box.name == "a")
    assert (box.mark, box.note) == (mark, note)


def test_marks_are_written_down_with_a_legend() -> None:
    definition = define(lambda b: b.start_with(step("a")).then(step("b")).then(step("c")))
    instance = view(("a", PointerStatus.COMPLETE), ("b", PointerStatus.WAITING_FOR_EVENT))
    text = mermaid(draw(definition, instance))
    assert "    class s1 complete\n" in text
    assert "    class s2 waiting\n" in text
    assert "class s3" not in text
    assert text.count("legend") > len(Mark)
    svg = svg_of(draw(definition, instance))
    for mark in (Mark.COMPLETE, Mark.WAITING):
        assert f'class="node {mark.value}"' in svg
    assert 'class="node open"' not in svg
    assert {mark.value for mark in Mark} <= set(texts(svg))
    assert "i-1: RUNNABLE" in texts(svg)


def test_without_an_instance_there_is_no_legend() -> None:
    definition = define(lambda b: b.start_with(step("a")))
    assert "legend" not in mermaid(draw(definition))
    assert "waiting" not in texts(svg_of(draw(definition)))


# -------------------------------------------------------------------------------------------- the formats

CODED = r'"(?:[^"#;]|#\d+;)*"'
FORMS = (r"\[%\]", r"\(\(%\)\)", r"\(\[%\]\)", r"\[\[%\]\]", r"\{%\}", r"\{\{%\}\}")
NODE = r"\w+(?:" + "|".join(form.replace("%", CODED) for form in FORMS) + ")"
MERMAID_LINE = re.compile(
    rf"\s+(?:{NODE}(?::::\w+)?|subgraph \w+\[{CODED}\]|end|direction LR"
    rf"|\w+ (?:-->|-\.->)(?:\|{CODED}\|)? \w+"
    r"|classDef \w+ [a-z-]+:[#\w ]+(?:,[a-z-]+:[#\w ]+)*|class \w+(?:,\w+)* \w+)"
)

ODD_NAMES = [
    'say "hi"', "<b>bold</b> & <script>", "[a] {b} (c) |d|", "a;b", "#35; #quot;", "`code`", "**md**",
    "end", "%% {init}", "a\\Nb\\", "line\nbreak\x00\x1b", "style x:#f;", "classDef a:#b;", "日本語 😀",
    "\ud800", "   ", "subgraph x[", "--> y", "&amp; &#38;", "$$x^2$$", "fa:fa-car", "x" * 500, "]]>",
    "<!-- -->", "a%%{init: {}}%%b",
]  # fmt: skip


def chain_of(odd: list[str]) -> Build:
    def build(b: WorkflowBuilder) -> None:
        at = b.start_with(step("first"))
        for name in odd:
            at = at.if_(True).name(name).do(lambda x, name=name: x.start_with(step("s")).name(name))

    return build


def svg_of(graph: Graph) -> str:
    svg: str = graphviz.Source(dot(graph)).pipe(format="svg", encoding="utf-8", quiet=False)
    return svg


def texts(svg: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()).strip() for element in found]


@pytest.mark.parametrize("build", [everything, chain_of(ODD_NAMES)], ids=["everything", "odd names"])
def test_mermaid_consists_of_lines_that_it_knows(build: Build) -> None:
    text = mermaid(draw(define(build, 'odd "id" ---\n--- <x>')))
    front, title, back, kind, *lines = text.splitlines()
    assert (front, back, kind) == ("---", "---", "flowchart TD")
    assert title == 'title: "odd \\"id\\" --- --- ‹x› version 1"'
    for line in lines:
        assert MERMAID_LINE.fullmatch(line), line
    depth = [line.strip() for line in lines if line.strip() == "end" or line.strip().startswith("subgraph")]
    assert depth.count("end") * 2 == len(depth)


def shown_by_mermaid(label: str) -> str:
    """What a browser shows of a label."""
    text = re.sub(r"<br/>", " ", re.sub(r"<small>.*", "", label))
    return re.sub(r"#(\d+);", lambda match: chr(int(match[1])), text).replace("\u200b", "").strip()


def squeezed(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f]+", " ", text.encode("utf-8", "replace").decode()).strip()


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if len(name) < 100 and name.strip()])
def test_names_are_shown_as_they_are(name: str) -> None:
    graph = draw(define(lambda b: b.start_with(step("x")).name(name)))
    (label,) = re.findall(r's1\["(.*)"\]', mermaid(graph))
    assert shown_by_mermaid(label) == squeezed(name)
    assert not re.search(r"style.*:\S*#.*;|classDef.*:\S*#.*;|\$\$|fa:fa-|%%", label)
    title, *shown, kind = texts(svg_of(graph))
    assert (title, kind) == ("drawn version 1", "step")
    assert squeezed(" ".join(shown)) == squeezed(name)


def test_long_names_are_cut() -> None:
    graph = draw(define(lambda b: b.start_with(step("x")).name("word " * 200)))
    shown = texts(svg_of(graph))
    assert len(shown) < 12
    assert shown[-2].endswith("...")


def test_dot_draws_everything() -> None:
    graph = draw(define(everything))
    svg = svg_of(graph)
    drawn = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
    classes = [element.get("class") for element in drawn]
    assert classes.count("node") == sum(1 for _ in boxes(graph.items))
    assert classes.count("edge") == len(graph.arrows)
    assert classes.count("cluster") == sum(1 for step in define(everything).steps if step.blocks)
    assert {"yes", "else", "undo", "on time-out", "each item"} <= set(texts(svg))


# -------------------------------------------------------------------------------------------- the command

KNOWN = "order version 1, order version 2"
MODULE = """
from liteflow.core import Workflow

class First(Workflow):
    id = "order"
    def build(self, builder):
        builder.start_with(lambda context: None).id("only")

class Second(Workflow):
    id = "order"
    version = 2
    def build(self, builder):
        builder.wait_for("paid", "k").id("new")
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Runs `liteflow graph` where the module `drawn_workflows` can be imported."""
    (tmp_path / "drawn_workflows.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield lambda *arguments, **more: CliRunner().invoke(main, ["graph", *arguments], **more)
    sys.modules.pop("drawn_workflows", None)


def test_the_highest_version_is_drawn_as_mermaid(run: Callable[..., Result]) -> None:
    result = run("drawn_workflows", "order")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith('---\ntitle: "order version 2"\n---\nflowchart TD\n')
    assert '    s1(["new<br/><small>wait_for</small>"])\n' in result.stdout


def test_a_version_and_a_file(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("drawn_workflows:First", "order", "--version", "1", "--output", "order.mmd")
    assert (result.exit_code, result.output) == (0, "")
    assert '"only<br/>' in (tmp_path / "order.mmd").read_text("utf-8")


def test_svg_and_dot(run: Callable[..., Result]) -> None:
    svg = run("drawn_workflows", "order", "--format", "svg")
    assert "new" in texts(svg.stdout)
    text = run("drawn_workflows", "order", "--format", "dot")
    assert graphviz.Source(text.stdout).pipe(format="svg", encoding="utf-8") == svg.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("drawn_workflows", "nobody"), "drawn_workflows has no workflow nobody; it has " + KNOWN),
        (
            ("drawn_workflows", "order", "--version", "3"),
            "drawn_workflows has no workflow order version 3; it has " + KNOWN,
        ),
        (
            ("no_such_module", "order"),
            "there is no module 'no_such_module' here; run this where it can be imported",
        ),
        (
            ("drawn_workflows", "order", "--output", "no/such/folder"),
            "can't write no/such/folder: No such file or directory",
        ),
    ],
)
def test_mistakes_are_one_line(run: Callable[..., Result], arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {message}\n")


def test_the_missing_package_is_named(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    result = run("drawn_workflows", "order", "--format", "svg")
    assert result.exit_code == 1
    assert result.stderr == "Error: svg needs the package graphviz: pip install 'liteflow.core[graph]'\n"
    assert run("drawn_workflows", "order", "--format", "dot").exit_code == 0


def test_the_missing_program_is_named(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = run("drawn_workflows", "order", "--format", "svg")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: svg needs the program dot: install Graphviz, for instance with apt-get install graphviz\n"
    )


def test_a_picture_that_dot_can_not_make_is_one_line(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liteflow.worker.drawing.dot", lambda graph: "digraph {")
    result = run("drawn_workflows", "order", "--format", "svg")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: dot has failed: ")
    assert result.stderr.count("\n") == 1


def test_a_live_instance(
    mongo_url: str, amqp_url: str, redis_url: str, prefix: str, run: Callable[..., Result]
) -> None:
    servers = ["--store", mongo_url, "--queue", amqp_url, "--lock", redis_url, "--prefix", prefix]
    host = Servers(mongo_url, amqp_url, redis_url, prefix).host(Settings())

    class Second(Workflow):
        id = "order"
        version = 2

        def build(self, builder: WorkflowBuilder) -> None:
            builder.wait_for("paid", "k").id("new")

    class Changed(Workflow):
        id = "order"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(lambda context: None).id("only").then(lambda context: None).id("gone")

    class Other(Workflow):
        id = "other"

        def build(self, builder: WorkflowBuilder) -> None:
            builder.start_with(lambda context: None)

    for each in (Second, Changed, Other):
        host.register_workflow(each)
    with host:
        instance_id = host.start_workflow("order")
        wait_for("it waits", lambda: host.get_workflow(instance_id).record.waits(), 20)
        result = run("drawn_workflows", "order", "--instance", instance_id, *servers)
        assert (result.exit_code, result.stderr) == (0, "")
        assert f'title: "order version 2 - {instance_id}: RUNNABLE"' in result.stdout
        assert "    class s1 waiting\n" in result.stdout
        older = run("drawn_workflows", "order", "--version", "1", "--instance", instance_id, *servers)
        assert older.stderr == f"Error: {instance_id} is an instance of order version 2\n"
        other = host.start_workflow("other")
        host.wait_for_workflow(other, 20)
        mixed_up = run("drawn_workflows", "order", "--instance", other, *servers)
        assert mixed_up.stderr == f"Error: {other} is an instance of other version 1\n"
        changed = host.start_workflow("order", 1)
        host.wait_for_workflow(changed, 20)
        differs = run("drawn_workflows", "order", "--instance", changed, *servers)
        assert differs.stderr == f"drawn_workflows differs from what {changed} was started with\n"
        assert "    class s1 complete\n" in differs.stdout
        unknown = run("drawn_workflows", "order", "--instance", "nobody", *servers)
        assert unknown.stderr == "Error: there is no workflow with the id nobody\n"
        assert {older.exit_code, mixed_up.exit_code, unknown.exit_code} == {1}
