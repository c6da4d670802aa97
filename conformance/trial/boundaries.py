"""Where long sizes begin to fail: the smallest failing size of each, and the tile or vector that it tells of.

A tail that is dropped shows at every size that is no multiple of the tile. A limit shows at every size above it. A few
more calls than those that made the case small tell one from the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nnspec.conformance.drawing import TINY, Decision, Draw, Plan
from nnspec.conformance.sizes import LADDER

Fails = Callable[[Plan], bool]
DATA = 2**16  # choices of a decision on the seed of data
# Seeds of data with which a size is tried that does not fail: an error may be hidden in a sum, and a tail of one
# element shows a wrong maximum only if that element is the largest.
SEEDS = [bytes((90 + 37 * n & 255, 165 + 91 * n & 255)) for n in range(8)]
LONGEST = 4 * LADDER[-1]  # no longer size is tried


@dataclass(frozen=True)
class Boundary:
    """The sizes that fail: above `above`, all of them or those that are no multiple of `multiple`.

    Where `some` is true, others pass, and no multiple tells which.
    """

    size: str  # as the page calls it
    above: int
    multiple: int | None = None
    some: bool = False

    def __str__(self) -> str:
        if self.multiple:
            return f"{self.size} > {self.above} and {self.size} mod {self.multiple} ≠ 0"
        return f"{self.size} > {self.above}" + " (not at every size)" * self.some


def boundaries(
    decision: Decision[Any], row: bytes, names: Mapping[str, str], fails: Callable[[bytes, Plan], bool]
) -> tuple[list[Boundary], Plan]:
    """Return the boundary of each size that is long in the case of a failing row, and the sizes that fail first.

    `fails` tells whether the case of a row fails that has other sizes in the place of some of its own.
    """
    decision.make(draw := Draw(row, {}))
    sizes = {key: size for key, size in draw.planned.items() if key in names}
    alike = alike_but_for_data(decision, row)

    def wrong(plan: Plan) -> bool:
        return any(fails(row, plan) for row in alike)

    others = _along_one(sizes, wrong)
    found = {
        key: _boundary(names[key], size, lambda n, key=key: wrong({**others, key: n}))  # type: ignore[misc]
        for key, size in {**sizes, **others}.items()
        if size > TINY
    }
    return [*found.values()], {**others, **{key: boundary.above + 1 for key, boundary in found.items()}}


def _along_one(sizes: Mapping[str, int], wrong: Fails) -> Plan:
    """Return sizes that fail too, all of them 1 but one that has the others' place; none if there are no such sizes.

    A limit on the number of elements, or on a sum over several axes, is then told by its own number.
    """
    count = math.prod(sizes.values())
    for key, size in sizes.items():
        plan = {**dict.fromkeys(sizes, 1), key: count}
        if TINY < size < count and wrong(plan):
            return plan
    return {}


def alike_but_for_data(decision: Decision[Any], row: bytes) -> list[bytes]:
    """Return a row, and rows of the same case with other data."""
    decision.make(draw := Draw(row))
    found = [row]
    for seed in SEEDS:
        other = row
        for begin, end, limit, _ in draw.made:
            if limit == DATA and end <= len(row):
                other = other[:begin] + seed + other[end:]
        found.append(other)
    return found


def _boundary(name: str, size: int, fails: Callable[[int], bool]) -> Boundary:
    last = _last_that_passes(size, fails)
    if last <= TINY:
        return Boundary(name, last, some=not fails(2 * size))
    if fails(2 * last):
        return Boundary(name, last, some=not (fails(2 * last + 1) and (3 * last > LONGEST or fails(3 * last))))
    multiple = last
    while multiple % 2 == 0 and not fails(last + multiple // 2):
        multiple //= 2
    regular = multiple > 1 and fails(2 * last + 1) and (3 * last > LONGEST or not fails(3 * last))
    return Boundary(name, last, multiple) if regular else Boundary(name, last, some=True)


def _last_that_passes(size: int, fails: Callable[[int], bool]) -> int:
    """Return the size below the smallest failing one, as far as halving finds it; 0 where every size fails."""
    passing = max((n for n in (1, TINY, *LADDER) if n < size), default=0)
    while passing and fails(passing):
        size, passing = passing, max((n for n in (1, TINY, *LADDER) if n < passing), default=0)
    while size - passing > 1:
        middle = (size + passing) // 2
        size, passing = (middle, passing) if fails(middle) else (size, middle)
    return passing
