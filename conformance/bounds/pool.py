"""The bounds of a mean, and of its gradient.

A sum of n terms, added in any order, is off by at most (n − 1)·u·Σ|x| (Jeannerod and Rump 2013), for every n. Then
comes a division by d, one rounding, or a product with the rounded 1/d, two: ((n + 1)·u + 2n·u²)·Σ|x|/|d| in all.
Scaling every element by 1/d first and adding then is a sum of n products with one operand off by u: (n + 1)·u + n·u²,
within the same bound. Zeros add no error and are not counted; what underflows is off by η/2.

In the backward pass every window passes to each of its elements a share g/d, and an element adds up the shares of the
n windows that cover it. A share is one division, off by u, or a product with the rounded 1/d, off by 2u + u². A sum of
n of them is then off by at most (n − 1)·u times their sizes. Together this is ((n + 1)·u + 2n·u²)·Σ|g/d|: the same
bound.

Where d is a power of two, scaling is exact unless it underflows, and so is a sum that has room in the mantissa, or a
single term. Shares of several such d lie on the grid of the largest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from nnspec.conformance.bounds.arithmetic import Accuracy, wide
from nnspec.conformance.bounds.rule import Array, Expected, where_finite


def averaged(mean: Callable[[Array], Array], divisor: Array | float, x: Array) -> Expected:
    """Return the expected `mean(x)`, where each element of the result is a sum of elements of x over `divisor`."""

    def sums() -> tuple[Array, ...]:
        magnitude = np.abs(mean(np.abs(x).astype(np.float64)))
        terms = np.abs(np.rint(mean((x != 0).astype(np.float64)) * divisor))
        return magnitude, terms, _dyadic(divisor), magnitude * np.abs(divisor)

    return _expected(mean, x, sums)


def shared(vjp: Callable[[Array], Array], divisor: Array | float, cotangent: Array) -> Expected:
    """Return the expected `vjp(cotangent)`: each element is a sum of cotangents, each over its window's `divisor`."""

    def sums() -> tuple[Array, ...]:
        magnitude = np.abs(vjp(np.abs(cotangent).astype(np.float64)))
        ones = (cotangent != 0) * np.asarray(divisor, np.float64)  # each share of them is 1
        inexact = vjp(ones * ~_dyadic(divisor)) != 0
        return magnitude, np.rint(vjp(ones)), ~inexact, magnitude * np.abs(divisor).max()

    return _expected(vjp, cotangent, sums)


def _dyadic(divisor: Array | float) -> Array:
    return np.asarray(np.frexp(np.abs(divisor))[0] == 0.5)


def _expected(linear: Callable[[Array], Array], a: Array, sums: Callable[[], tuple[Array, ...]]) -> Expected:
    """`sums()` gives the magnitude, the number of terms, where divisors are powers of two, and the size on the grid:
    that of the terms in units of the grid on which they lie if `a` has integers."""
    with np.errstate(invalid="ignore"):  # NaN and infinities
        value = linear(a.astype(wide(a.dtype)))
    sums = functools.cache(sums)

    def bound(accuracy: Accuracy) -> Array:
        form = accuracy.of(a.dtype)
        magnitude, terms, dyadic, on_grid = sums()
        found = (terms + 1) * (form.u * (1 + 2 * form.u) + form.u_wide) * magnitude + (terms + 1) * form.eta / 2
        fits = np.array_equal(a, np.rint(a)) & (on_grid <= 2.0**form.precision)
        exact = dyadic & (fits | (terms <= 1)) & (np.fmod(value, form.eta) == 0)
        return where_finite(np.where(exact, 0.0, found), value)

    return Expected(value, bound)
