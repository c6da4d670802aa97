"""How the parameters of a new module are drawn. A right start fails these checks less than once in 2⁶¹ modules."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from nnspec.conformance.case import Array
from nnspec.conformance.formats import STORED
from nnspec.conformance.trial.record import Mismatch

UNITS = 64  # that a module has whose start is judged


def are_uniform(entries: Mapping[str, Array], terms: int) -> None:
    """Raise a Mismatch unless each entry can be a uniform draw between ±terms^−½, and the units of the weight differ.

    Of at least 64 values some are negative, some positive, and some in the outer halves of the range: each but for
    2⁻⁶⁴. More than half of 64 units differ, but for 2⁻⁵⁰⁰: two draws in float32 are equal once in 2²⁴ times. What a
    library draws has some eight roundings behind it (a square root, a gain, a product, …), perhaps in float32 alone.
    """
    for name, values in entries.items():
        limit = terms**-0.5 * (1 + 8 * max(STORED[dtype].u for dtype in (values.dtype.name, "float32")))
        low, high = values.min(), values.max()
        if not (-limit <= low < 0 < high <= limit and max(-low, high) > limit / 2):
            raise Mismatch(f"{name} is between {low} and {high}, expected a uniform draw between ±{terms}^−½", values)
    differ(entries["weight"], "weight")


def differ(weight: Array, name: str) -> None:
    """Raise a Mismatch unless more than half of the units, along the first axis, begin with weights of their own."""
    if len(np.unique(weight.reshape(len(weight), -1), axis=0)) <= len(weight) / 2:
        raise Mismatch(f"units of {name} begin with the same weights", weight)


def have_usual_variance(weight: Array, terms: int, name: str) -> None:
    """Raise a Mismatch unless the mean square is near the variances in use, from 1/3 to 2 over the number of terms.

    A layer has `terms` terms in the sum of an output and, on the way back, of an input, so that all initialisations
    mean the same number. Chance may halve the mean square or double it: of 2,000 values, uniform or normal, it does so
    less than once in e¹⁰⁰ times.
    """
    found = float(np.mean(np.square(weight.astype(np.float64)))) * terms
    if not 1 / 6 <= found <= 4:
        raise Mismatch(f"the mean square of {name} is {found:.3g} / {terms}, expected between 1/6 and 4", weight)
