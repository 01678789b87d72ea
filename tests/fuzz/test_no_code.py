"""Nothing in stored data or messages can make a process import, construct or evaluate code.

What reads them names none of the means; and what would be the means elsewhere does nothing here.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fuzz.targets import INSTANCE, DocumentTarget, GatewayTarget
from test_imports import MODULES, imports

from liteflow.core import codec
from liteflow.core.errors import DataError
from liteflow.core.namespace import Namespace

READERS = sorted(
    name
    for name in MODULES
    if name.startswith("liteflow.providers") or name in ("liteflow.core.codec", "liteflow.worker.gateway")
)

FORBIDDEN_MODULES = {
    "pickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "yaml", "importlib", "runpy",
    "code", "codeop", "ctypes", "subprocess", "pydoc", "imp", "pkgutil",
}  # fmt: skip
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "execfile", "input", "globals", "breakpoint"}

LOADERS = {"liteflow.worker.loading", "liteflow.worker.discovery"}
"""What imports by name: the modules that the command line names, and the providers of URLs' schemes."""


def reachable(names: list[str]) -> set[str]:
    """All modules of ours that these import, directly or not."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in MODULES and name not in found:
            found.add(name)
            todo += imports(name)
    return found


REACHABLE = sorted(reachable(READERS))


def test_what_reads_is_found() -> None:
    assert {"liteflow.core.engine", "liteflow.providers.mongo.documents", "liteflow.core.host"} <= set(
        REACHABLE
    )
    assert not LOADERS & set(REACHABLE), "what imports by name is not reached by what reads"


@pytest.mark.parametrize("name", REACHABLE)
def test_readers_have_no_means_to_run_code(name: str) -> None:
    assert not {target.partition(".")[0] for target in imports(name)} & FORBIDDEN_MODULES
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN_NAMES, f"{name}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("modules", "__subclasses__", "__globals__"), f"{name}:{node.lineno}"


def test_only_the_command_line_says_what_is_imported() -> None:
    for name in MODULES:
        if imports(name) & {"importlib", "importlib.metadata"}:
            assert name in LOADERS


class Canary:
    """Sings if anybody makes one."""

    made = 0

    def __new__(cls, *args: object) -> Canary:
        cls.made += 1
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        type(self).made += 1


HERE = f"{__name__}.Canary"
PAYLOADS: list[Any] = [
    {"~": HERE, "value": 1},
    {"~": "object", "__class__": HERE},
    {"~": "object", "__reduce__": ["os.system", ["true"]]},
    {"py/object": HERE},
    {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["true"]}]},
    {"$type": HERE, "@type": HERE, "__type__": HERE, "_type": HERE, "class": HERE},
    {"~": "dict", "items": [["__class__", HERE]]},
    "!!python/object/apply:os.system ['true']",
    "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu",
    {"~": "bytes", "value": "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"},
    "__import__('os').system('true')",
    "{0.__class__.__init__.__globals__}",
    "${jndi:ldap://127.0.0.1/x}",
]


@pytest.fixture
def alarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs code now fails the test."""

    def alarm(name: str) -> Any:
        def called(*args: object, **kwargs: object) -> None:
            raise AssertionError(f"{name} was called with {args}")

        return called

    for module, name in (
        (builtins, "eval"), (builtins, "exec"), (importlib, "import_module"),
        (os, "system"), (os, "popen"), (subprocess, "Popen"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, alarm(name))


def exercise() -> None:
    """Each payload everywhere: as a message, as a stored value, as a stored document, read as any type."""
    gateway, documents = GatewayTarget(), DocumentTarget()
    for payload in PAYLOADS:
        for key in ("workflow.start", "event.publish", "workflow.suspend"):
            body = {"workflow": "order", "name": "n", "key": "k", "id": "known", "data": {"a": payload}}
            gateway.handle(key, json.dumps(body).encode(), b"\x00\x00")
            gateway.handle(
                key, json.dumps({**body, "workflow": payload, "id": payload}).encode(), b"\x00\x00"
            )
        documents.value(payload)
        for place in ("data", "pointers", "items", "inbox", "outbox", "parked", "workflow_definition_id"):
            inner = {"1": payload} if isinstance(INSTANCE[place], dict) else payload
            documents.document("instance", {**INSTANCE, place: inner})
        documents.document("event", {"_id": "i", "name": "n", "key": "k", "data": payload})
        for type_ in (Namespace, dict[str, Any], list[Any], int, str):
            try:
                codec.decode(payload, type_)
            except DataError:
                continue


def test_what_names_code_runs_none(alarmed: None) -> None:
    exercise()  # once, so that what is imported lazily is there
    loaded, made = set(sys.modules), Canary.made
    exercise()
    assert set(sys.modules) == loaded
    assert Canary.made == made == 0


def test_the_work_of_a_stored_name_is_never_looked_up() -> None:
    decoded = codec.decode({"~": "object", "__class__": HERE, "__module__": "os", "a": 1})
    assert type(decoded) is Namespace
    assert decoded.a == 1


def test_there_is_no_pickle_in_the_whole_source() -> None:
    for name, path in MODULES.items():
        assert "pickle" not in Path(path).read_text(), name
