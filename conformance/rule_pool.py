"""The bound of a mean.

A sum of n terms, added in any order, is off by at most (n − 1)·u·Σ|x| (Jeannerod and Rump 2013), whatever n is. What
follows is a division by d, one rounding, or a product with the rounded 1/d, two: ((n + 1)·u + 2n·u²)·Σ|x|/|d| in all.
Scaling every element by 1/d first and adding then is a sum of n products with one operand off by u: (n + 1)·u + n·u²,
within the same bound. Zeros add no error and are not counted; what underflows is off by η/2.

Where d is a power of two, scaling is exact, and so is a sum that has room in the mantissa, or a single term.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from nnspec.conformance.rule import FORMATS, Array, Expected


def averaged(mean: Callable[[Array], Array], divisor: Array | float, x: Array) -> Expected:
    """What `mean(x)` must be, where each element of the result is a sum of elements of x over `divisor`."""
    form = FORMATS[x.dtype.name]
    value, magnitude = mean(x.astype(form.wide)), np.abs(mean(np.abs(x).astype(np.float64)))
    terms = np.abs(np.rint(mean((x != 0).astype(np.float64)) * divisor))
    bound = (terms + 1) * ((form.u * (1 + 2 * form.u) + form.u_wide) * magnitude + form.eta / 2)
    dyadic = np.frexp(np.abs(divisor))[0] == 0.5
    fits = np.array_equal(x, np.rint(x)) & (magnitude * np.abs(divisor) <= 2.0**form.precision)
    return Expected(value, np.where(dyadic & (fits | (terms <= 1)), 0.0, bound))
