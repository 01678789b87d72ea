"""Names and messages on servers that take plain text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteflow.core.providers import Message
from liteflow.core.wire import message_text, plain_name, read_message

PAIRS = st.tuples(st.text(max_size=4), st.text(max_size=4))


@given(st.text(), st.text(), st.sampled_from([63, 80, 255]))
def test_any_name_is_made_plain(prefix: str, name: str, longest: int) -> None:
    """What Azure's queues and containers want, which are the pickiest."""
    made = plain_name(prefix, name, longest)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", made)
    assert 3 <= len(made) <= longest


def test_the_border_between_prefix_and_name_counts() -> None:
    assert plain_name("a\0", "b") != plain_name("a", "\0b")
    assert plain_name("ab", "c") != plain_name("a", "bc")


def test_a_name_shows_what_it_is_for() -> None:
    assert re.fullmatch(
        "liteflow-workflows-order-1-[0-9a-f]{16}", plain_name("liteflow", "workflows.order.1")
    )


@given(PAIRS, PAIRS)
def test_different_names_stay_different(one: tuple[str, str], two: tuple[str, str]) -> None:
    assert (plain_name(*one) == plain_name(*two)) == (one == two)


@given(st.text(), st.none() | st.text())
def test_a_message_comes_back_as_it_was(body: str, traceparent: str | None) -> None:
    text = message_text(Message("q", body, traceparent))
    assert text.isascii()
    assert "\n" not in text
    assert read_message("q", text) == Message("q", body, traceparent)


@pytest.mark.parametrize("text", ["", "no json", "[]", "7", '{"x": 1}', '{"body": 7}', "[" * 100_000, "null"])
def test_what_is_no_message_is_none(text: str) -> None:
    assert read_message("q", text) is None


def test_a_strange_traceparent_is_left_out() -> None:
    assert read_message("q", '{"body": "a", "traceparent": 7}') == Message("q", "a")
