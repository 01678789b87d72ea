"""Names as labels: on lines of their own length, without what no format can show."""

from __future__ import annotations

import re
import textwrap

WIDTH = 32
"""Characters of a line in a label."""

MAX_LINES = 6


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """The lines of a label. Control characters become spaces, and what is too long ends in dots."""
    clean = text.encode("utf-8", "replace").decode()
    clean = re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]", " ", clean)
    return textwrap.wrap(clean, width, max_lines=MAX_LINES, placeholder=" ...") or ["(no name)"]
