"""Layouts in the cases of checks that compare numbers: each operand may lie otherwise in memory.

The layout is decided after everything else, so that a row of bytes makes the same case without it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from nnspec.adapters.signatures import entries
from nnspec.conformance.case import Case
from nnspec.conformance.drawing import Decision, Draw
from nnspec.conformance.layouts import EXPANDED, possible, repeated
from nnspec.conformance.requirements import Check

SHARE = 2  # of so many cases, one has layouts


def in_layouts(decision: Decision[Any], check: Check, form: str) -> Decision[Any]:
    """Return the decision whose cases have, one in `SHARE`, a layout for each operand and cotangent.

    A module copies its parameters, so that in the class form only what the module is called with has a layout.
    """

    def make(draw: Draw) -> Any:
        case = draw(decision)
        if not isinstance(case, Case):
            return case
        copied = set() if form == "function" else {*entries(case.arrays)}
        handed = [name for name, array in case.arrays.items() if array is not None and name not in copied]
        if not handed or draw.below(SHARE) < SHARE - 1:
            return case
        for name in handed:
            case = _lying(draw, case, name, 2 if name in check.distinct else case.arrays[name].ndim)
        return case

    return Decision(make)


def _lying(draw: Draw, case: Case, name: str, repeating: int) -> Case:
    """Return the case with one array in some layout, which may be contiguous.

    Where it is expanded, values repeat along one of the first `repeating` axes.
    """
    array: np.ndarray = case.arrays[name]
    axes = [axis for axis, size in enumerate(array.shape[:repeating]) if size > 1]
    layouts = [layout for layout in possible(array) if axes or layout != EXPANDED]
    number = draw.below(1 + len(layouts))
    if number == 0:
        return case
    if layouts[number - 1] == EXPANDED:
        if not all(np.isfinite(a).all() for a in case.arrays.values() if a is not None):
            return case  # a sum may take out a factor that repeats, as NumPy's einsum does: ∞·(1 − 2) is not ∞·1 − ∞·2
        case = case.but(**{name: repeated(array, axes[draw.below(len(axes))])})
    return case.lying(layouts[number - 1], name)
