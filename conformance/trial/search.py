"""The rows of bytes that the cases of a check are made from, and how a failing row is made smaller.

Rows are drawn at random, which takes no time. Hypothesis would take as long to draw a row as a framework takes to
compute the case. It draws the steps of state machines only.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.case import Case
from nnspec.conformance.drawing import LENGTH, Decision, Draw, Made
from nnspec.conformance.levels import Level, levels

if TYPE_CHECKING:
    from hypothesis import settings

PROFILES = {"quick": 20, "ci": 100, "deep": 1000}  # cases per check
CANDIDATES = 8  # rows of which a check that spreads its cases takes one
CALLS = 400  # cases that are tried to make a failing one smaller
TAILS = 2  # random rows of later bytes that are tried with each smaller value of a decision


def settings_of(examples: int, simplify: bool) -> settings:
    """Return Hypothesis's settings for so many runs of a state machine. `simplify`: it makes a failing run smaller."""
    from hypothesis import HealthCheck, Phase, Verbosity, settings  # where no machine runs, 0.2 s are saved

    return settings(
        max_examples=examples,
        phases=(Phase.generate, Phase.shrink) if simplify else (Phase.generate,),
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )


def rows(seeded: int, count: int) -> Iterator[bytes]:
    """Yield the row of the smallest case, and random rows: always the same ones for the same seed."""
    source = random.Random(seeded)
    yield bytes(LENGTH)
    for _ in range(count - 1):
        yield source.randbytes(LENGTH)


def spread_rows(decision: Decision[Any], seeded: int, count: int) -> Iterator[bytes]:
    """Yield rows as `rows` does, each of them the one of several whose case has most pairs of levels that are rare.

    Chance alone leaves out many pairs, such as an expanded bias and an axis of 5.
    """
    source, numbers = random.Random(seeded), dict[Level, int]()
    worth: dict[int, float] = {}  # of a pair that was met: a quarter for each time

    def pairs(row: bytes) -> list[int]:
        """Return the pairs of levels of a row's case, as numbers; none if the subject lacks what the case needs."""
        with suppress(Unsupported):
            case = decision.make(Draw(row))
            if isinstance(case, Case):
                found = sorted([numbers.setdefault(level, len(numbers)) for level in levels(case)])
                return [(a << 16) + b for a, b in itertools.combinations(found, 2)]
        return []

    for number in range(count):
        drawn = [source.randbytes(LENGTH) for _ in range(CANDIDATES)] if number else [bytes(LENGTH)]
        reached = {row: pairs(row) for row in drawn}
        row = max(drawn, key=lambda row: sum([worth.get(pair, 1.0) for pair in reached[row]]))
        worth.update((pair, worth.get(pair, 1.0) / 4) for pair in reached[row])
        yield row


def smallest(decision: Decision[Any], row: bytes, fails: Callable[[bytes], bool], calls: int = CALLS) -> bytes:
    """Return the row of a failing case in which no single decision can be an earlier choice.

    At most `calls` cases are tried, and no row twice.
    """
    tried = {row}
    at = since = 0  # the decision to make smaller, and the number of decisions that were tried since the last success
    while since < len(decided := _decided(decision, row)):
        at %= len(decided)
        for smaller in _smaller(row, decided, at):
            if smaller not in tried:
                if len(tried) > calls:
                    return row
                tried.add(smaller)
                if fails(smaller):
                    row, since = smaller, -1
                    break
        at, since = at + 1, since + 1
    return row


PLANNED = 3  # decisions with which the row of a case with long sizes begins: arguments, an axis, and its size
LONGER = 4  # larger sizes that are tried with each smaller value of a later decision


def clearer(decision: Decision[Any], row: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Return the row of a failing case in which fewer later decisions differ from the first choice.

    The long size may be larger for it: with three groups of 15 channels a case fails as with one group of 33.
    """
    draw = Draw(row)
    decision.make(draw)
    if not draw.planned:
        return row
    size = draw.made[PLANNED - 1]
    for begin, end, _, made in draw.made[PLANNED:]:
        if made == 0 or end > len(row):
            continue
        lower = row[:begin] + bytes(end - begin) + row[end:]
        for value in range(size[3] + 1, min(size[2], size[3] + 1 + LONGER)):
            larger = lower[: size[0]] + bytes([-(-(value << 8) // size[2])]) + lower[size[1] :]
            if fails(larger):
                return clearer(decision, larger, fails)
    return row


def _smaller(row: bytes, decided: list[Made], at: int) -> Iterator[bytes]:
    """Yield the row with smaller values of one decision, the smallest first."""
    begin, end, limit, made = decided[at]
    for value in sorted({0, 1, 2, made // 2, made - 1}):
        if 0 <= value < made:
            size = end - begin
            least = -(-(value << 8 * size) // limit)  # the least bytes that give this value
            head = row[:begin] + least.to_bytes(size, "big")
            yield head + row[end:]
            for number in range(TAILS):  # what the later bytes mean may have changed: other ones may fail
                yield head + random.Random(number).randbytes(len(row) - end)


def _decided(decision: Decision[Any], row: bytes) -> list[Made]:
    """Return the decisions that a row makes."""
    draw = Draw(row)
    decision.make(draw)
    return [made for made in draw.made if made[1] <= len(row)]


@contextmanager
def seeded_generators() -> Iterator[Callable[[], None]]:
    """Yield a function that seeds the global generators, as Hypothesis does before each case.

    At the end the generators are as they were before: the process may be the user's.
    """
    own, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002

    def reseed() -> None:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002

    try:
        yield reseed
    finally:
        random.setstate(own)
        np.random.set_state(numpys)  # noqa: NPY002
