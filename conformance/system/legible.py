"""Text and data that may come from a subject, as JSON can carry and a terminal can show them."""

from __future__ import annotations

import math
import re
from typing import Any

LONGEST = 2000  # characters of one text; nobody reads more, and a message of 20 MB would be copied many times
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # all but tab and newline
LARGEST = 4000  # bits of an integer: Python refuses to write one of more than 4300 digits


def legible(value: Any) -> Any:
    """Return plain data with each text escaped and cut, NaN and infinities as strings, and anything else as its repr.

    The text under the key "script" is a program, which is not cut.
    """
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= LARGEST else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, dict):
        return {text(str(k)): v if k == "script" else legible(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [legible(v) for v in value]
    return text(repr(value))


def text(value: str) -> str:
    """Return a text with control characters and lone surrogates escaped, cut where it is too long."""
    shown = escaped(value[:LONGEST])
    return shown if len(value) <= LONGEST else f"{shown} … ({len(value):,} characters in all)"


def escaped(value: str) -> str:
    """Return a text with control characters, other than tab and newline, and lone surrogates escaped."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], value)
