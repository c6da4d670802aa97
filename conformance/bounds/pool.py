"""The bounds of a mean, and of its gradient.

A sum of n terms, added in any order, is off by at most (n − 1)·u·Σ|x| (Jeannerod and Rump 2013), whatever n is. What
follows is a division by d, one rounding, or a product with the rounded 1/d, two: ((n + 1)·u + 2n·u²)·Σ|x|/|d| in all.
Scaling every element by 1/d first and adding then is a sum of n products with one operand off by u: (n + 1)·u + n·u²,
within the same bound. Zeros add no error and are not counted; what underflows is off by η/2.

On the way back every window hands each of its elements a share g/d, and an element adds up the shares of the n windows
that cover it. A share is one division, off by u, or a product with the rounded 1/d, off by 2u + u². A sum of n of them
is then off by at most (n − 1)·u times their sizes, which adds up to ((n + 1)·u + 2n·u²)·Σ|g/d|: the same bound.

Where d is a power of two, scaling is exact unless it underflows, and so is a sum that has room in the mantissa, or a
single term. Shares of several such d lie on the grid of the largest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from nnspec.conformance.bounds.rule import ARITHMETIC, Array, Expected, where_finite


def averaged(mean: Callable[[Array], Array], divisor: Array | float, x: Array) -> Expected:
    """What `mean(x)` must be, where each element of the result is a sum of elements of x over `divisor`."""
    value, magnitude = _value_and_magnitude(mean, x)
    terms = np.abs(np.rint(mean((x != 0).astype(np.float64)) * divisor))
    return _within(value, magnitude, terms, _dyadic(divisor), magnitude * np.abs(divisor), x)


def shared(vjp: Callable[[Array], Array], divisor: Array | float, cotangent: Array) -> Expected:
    """What `vjp(cotangent)` must be, where each element is a sum of cotangents, each over its window's `divisor`."""
    value, magnitude = _value_and_magnitude(vjp, cotangent)
    ones = (cotangent != 0) * np.asarray(divisor, np.float64)  # of these, each share is 1
    inexact = vjp(ones * ~_dyadic(divisor)) != 0
    return _within(value, magnitude, np.rint(vjp(ones)), ~inexact, magnitude * np.abs(divisor).max(), cotangent)


def _value_and_magnitude(linear: Callable[[Array], Array], a: Array) -> tuple[Array, Array]:
    with np.errstate(invalid="ignore"):  # NaN and infinities
        value = linear(a.astype(ARITHMETIC[a.dtype.name].wide))
    return value, np.abs(linear(np.abs(a).astype(np.float64)))


def _dyadic(divisor: Array | float) -> Array:
    return np.asarray(np.frexp(np.abs(divisor))[0] == 0.5)


def _within(value: Array, magnitude: Array, terms: Array, dyadic: Array, on_grid: Array, a: Array) -> Expected:
    """`on_grid` is the size of the terms in units of the grid that they lie on if `a` has integers."""
    form = ARITHMETIC[a.dtype.name]
    bound = (terms + 1) * (form.u * (1 + 2 * form.u) + form.u_wide) * magnitude + (terms + 1) * form.eta / 2
    fits = np.array_equal(a, np.rint(a)) & (on_grid <= 2.0**form.precision)
    with np.errstate(invalid="ignore"):
        exact = dyadic & (fits | (terms <= 1)) & (np.fmod(value, form.eta) == 0)
    return Expected(value, where_finite(np.where(exact, 0.0, bound), value))
