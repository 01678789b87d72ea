from __future__ import annotations

import pytest
from combinations import COMBINATIONS, missing


def test_each_two_providers_meet() -> None:
    assert missing() == set()


def test_a_pair_that_never_meets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("combinations.COMBINATIONS", [c for c in COMBINATIONS if c != "mongo+redis+local"])
    assert missing() == {("store mongo", "queue redis")}
