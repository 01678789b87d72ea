"""What a check has found, and what to do about it: the words of `liteflow doctor`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.IntEnum):
    """How bad it is. The numbers are the exit codes of `liteflow doctor`."""

    OK = 0
    WARNING = 1
    """Works now, and will hurt: a risk, or something that nobody goes on with."""
    PROBLEM = 2
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: in which area, what is so, and, unless it is well, what to do."""

    severity: Severity
    area: str
    message: str
    advice: str = ""


def well(area: str, message: str) -> Finding:
    """All is as it should be."""
    return Finding(Severity.OK, area, message)


def warning(area: str, message: str, advice: str) -> Finding:
    """Works, with a risk."""
    return Finding(Severity.WARNING, area, message, advice)


def problem(area: str, message: str, advice: str) -> Finding:
    """Does not work."""
    return Finding(Severity.PROBLEM, area, message, advice)
