"""Sizes, arguments and cases within the domain that a subject declares. Without a domain, whatever a strategy draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.domains import Domain
from nnspec.conformance.case import Case, as_pair
from nnspec.conformance.drawing import Decision, Draw, legal


def argument(name: str, decision: Decision[Any], small: Sequence[Any], *, neutral: Any, varies: bool) -> Decision[Any]:
    """An argument of a block: what the decision gives if it `varies`, and otherwise neutral.

    In a domain it is one of the `small` values that the domain allows, or of those next to them.
    """

    def make(draw: Draw) -> Any:
        if name not in draw.domain.conditions:
            return draw(decision) if varies else neutral
        return chosen(draw, name, small, neutral=neutral, varies=varies)

    return Decision(make)


def chosen(draw: Draw, name: str, small: Sequence[Any], *, neutral: Any = None, varies: bool = True) -> Any:
    """Return the value of an argument that the domain is about, as `argument` does."""
    if not varies and draw.domain.allows(name, neutral):
        return neutral
    choices = draw.domain.choices(name, small)
    if not choices:
        raise OutOfDomain(draw.domain.outside(name))
    return choices[draw.below(len(choices))]


def pairs_within(draw: Draw, **pairs: tuple[Sequence[int], int, bool]) -> list[dict[str, int]]:
    """Return the arguments that the domain is about, for rows and for columns.

    Each comes with its small values, the neutral one, and whether it varies.
    """
    found: list[dict[str, int]] = [{}, {}]
    for name, (small, neutral, varies) in pairs.items():
        if name in draw.domain.conditions and not draw.domain.conditions[name].equal:
            sides = as_pair(chosen(draw, name, small, neutral=neutral, varies=varies))
            for axis, value in zip(found, sides, strict=True):
                axis[name] = value
    return found


def legal_size(domain: Domain, name: str, n: int) -> int:
    """Return the number that a domain allows in the place of n; n where it allows none."""
    found = domain.nearest(name, n)
    return n if found is None else found


def image_side(draw: Draw, name: str, n: int, *, least: int = 1, rows: int = 0) -> int:
    """Return the number of rows ("H") or columns ("W") that the domain allows in place of n, `least` or more.

    `rows` is the number of rows, for a domain that says that there are as many columns.
    """
    condition = draw.domain.conditions.get(name)
    return legal(draw, name, rows if condition is not None and condition.equal else n, least=least)


def leading_within(draw: Draw, leading: tuple[int, ...]) -> tuple[int, ...]:
    """Return leading dimensions like these that the domain allows, of an x with features behind them."""
    if "ndim" in draw.domain.conditions:
        dimensions = legal(draw, "ndim", len(leading) + 1)
        leading = (*leading, *[1] * dimensions)[: dimensions - 1]
    rows = math.prod(leading)
    if draw.domain.allows("rows", rows):
        return leading
    if not leading and not draw.domain.allows("ndim", 2):
        raise OutOfDomain(draw.domain.outside("rows"))
    return (*[1] * (len(leading) - 1), legal(draw, "rows", rows))


def inside(draw: Draw, cases: Sequence[Any]) -> Sequence[Any]:
    """Return those of some cases, or of some tuples of cases, that lie in the domain. Raises OutOfDomain for none."""
    if not draw.domain.conditions:
        return cases
    reasons = [_excluded(draw, case) for case in cases]
    found = [case for case, reason in zip(cases, reasons, strict=True) if reason is None]
    if not found:
        raise OutOfDomain(next(filter(None, reasons), "outside the domain"))
    return found


def _excluded(draw: Draw, case: Case | tuple[Case, ...]) -> str | None:
    every = case if isinstance(case, tuple) else (case,)
    return next(filter(None, (draw.domain.excludes_call(one.arrays, one.arguments) for one in every)), None)


def allowed(draw: Draw, name: str, values: Sequence[Any]) -> Sequence[Any]:
    """Return those of some values that the domain allows a quantity. Raises OutOfDomain for none."""
    found = [value for value in values if draw.domain.allows(name, value)]
    if not found:
        raise OutOfDomain(draw.domain.outside(name))
    return found
