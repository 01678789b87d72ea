"""The protocol of queue, lease and store in all interleavings, and that each protection is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from protocol.check import MODEL, check
from protocol.figure import FIGURE, figure

RIGHT = [
    "WORKERS=2 EVENTS=1 CRASHES=1",
    "WORKERS=2 EVENTS=1 LOSSES=1",
    "WORKERS=2 EVENTS=1 UNKNOWNS=1 LOSSES=1 ROUNDS=0",
    "WORKERS=2 EVENTS=1 STOPS=1 CRASHES=1 ROUNDS=0",
    "WORKERS=2 EVENTS=2 ROUNDS=0",
    "WORKERS=2 EVENTS=1 INSTANCES=2 ROUNDS=0",
    "WORKERS=2 REQUESTS=2 CRASHES=1",
    "WORKERS=2 EVENTS=1 REQUESTS=1 ROUNDS=0",
    "WORKERS=2 TIMERS=1 DUPLICATES=1 CRASHES=1",
    "WORKERS=2 TIMERS=1 CRASHES=1 LOSSES=1",
    "WORKERS=2 AHEAD=1 EVENTS=1 CRASHES=1 ROUNDS=0",
    "WORKERS=2 AHEAD=1 EVENTS=1 REQUESTS=1 ROUNDS=0",
    "WORKERS=2 AHEAD=1 TIMERS=1 CRASHES=1 LOSSES=1",
    "WORKERS=3 EVENTS=1 CRASHES=1 ROUNDS=0",
    "WORKERS=3 TIMERS=1 DUPLICATES=1 CRASHES=1",
]
"""How much of everything, so that all of it can be visited within a minute."""

WITHOUT = {
    "REVISION": "LOSSES=1",
    "INBOX": "EVENTS=1 REQUESTS=1 ROUNDS=0",
    "SETTLING": "UNKNOWNS=1 ROUNDS=0",
    "ACK_LAST": "EVENTS=1 CRASHES=1 ROUNDS=0",
    "MARK": "EVENTS=1 ROUNDS=0",
    "OWNER": "DUPLICATES=1 LOSSES=1",
    "LOWERING": "EVENTS=1 CRASHES=1 ROUNDS=0",
    "WAIT_IN_STATE": "EVENTS=1 CRASHES=1 ROUNDS=0",
    "LOOK_AFTER": "EVENTS=1 ROUNDS=0",
    "LOOK_RESUMED": "WORKERS=1 EVENTS=1 REQUESTS=2 ROUNDS=0",
    "REMEMBERING": "EVENTS=2 CRASHES=1 ROUNDS=0",
    "WAKE_FIRST": "EVENTS=1 CRASHES=1 ROUNDS=0",
    "HOLD_COMPARES": "TIMERS=1",
    "MOVE_COMPARES": "WORKERS=1 EVENTS=1 REQUESTS=1 CRASHES=1 ROUNDS=0",
    "MOVE_REQUESTS": "WORKERS=1 EVENTS=1 REQUESTS=1 CRASHES=1 ROUNDS=0",
    "MOVE_LOWERS": "TIMERS=1 DUPLICATES=1",
    "MOVE_UNDER_LEASE": "EVENTS=1 CRASHES=1 ROUNDS=0",
    "LATECOMERS": "EVENTS=1 CRASHES=1 YIELDS=1 ROUNDS=0",
    "STOP_UNSEEN": "EVENTS=1 STOPS=1 ROUNDS=0",
    "PATIENCE": "AHEAD=1 ROUNDS=0",
    "TOLD_AGAIN": "AHEAD=1 ROUNDS=0",
}
"""For each protection what has to happen for its lack to show."""


def settings(text: str) -> dict[str, str]:
    return dict(one.split("=") for one in text.split())


@pytest.mark.parametrize("much", RIGHT)
def test_no_promise_is_broken(much: str) -> None:
    result = check(settings(much))
    assert result.violated is None, "\n".join(result.acts)
    assert result.complete, f"only {result.states} states in {result.seconds:.0f} s"


@pytest.mark.parametrize("protection", WITHOUT)
def test_a_protection_that_is_missing_is_found(protection: str) -> None:
    much = settings(WITHOUT[protection])
    assert check({**much, "WITHOUT": protection}).violated is not None


def test_every_protection_is_tried() -> None:
    listed = MODEL.read_text().split("#define KEPT(")[1].split("\n\n")[0]
    assert re.findall(r"^#define (\w+)", listed, re.M) == list(WITHOUT)


def test_the_figure_is_what_its_script_draws() -> None:
    assert FIGURE.read_text() == figure()


def test_the_page_names_every_protection_and_what_is_checked() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    assert not [name for name in [*WITHOUT, *RIGHT] if f"`{name}`" not in page]
