"""Running error analysis: how far the result of several blocks in a row may be from the exact result.

Each function below takes the results that the subject's previous block may have, as an interval around the reference's
value, and returns the interval of its own results. Errors are 0 where no rounding is possible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.conformance.bounds.arithmetic import CLASS_B, Accuracy, Arithmetic
from nnspec.conformance.bounds.rule import Array, Expected, exact, sum_bound


@dataclass(frozen=True)
class Approximate:
    """An array of a subject, no further than `error` from `value`, element by element."""

    value: Array  # the reference's, in its wider dtype
    error: Array
    form: Arithmetic  # of the subject's computation

    @classmethod
    def given(cls, x: Array, accuracy: Accuracy = CLASS_B) -> Approximate:
        """Return an operand, which the subject has without error."""
        form = accuracy.of(x.dtype)
        return cls(x.astype(form.wide), np.zeros(x.shape), form)

    @property
    def largest(self) -> Array:
        """The largest absolute values of the subject's elements."""
        return np.asarray(np.abs(self.value).astype(np.float64) + self.error)

    @property
    def expected(self) -> Expected:
        """The expectation of a result."""
        return Expected(self.value, self.error)


def linear_block(
    function: Callable[..., Array], x: Approximate, weight: Array | None = None, bias: Array | None = None
) -> Approximate:
    """Return function(x, weight, bias): a sum of products of x and the weight, or of elements of x, plus the bias.

    With x̂ for the subject's array, x for the reference's value, e for the error, y for the reference's result:

        |ŷ − y| ≤ |ŷ − f(x̂)| + |f(x̂) − f(x)| + |f(x) − y|

    The first and the last term are the rounding of one sum, over |x̂| ≤ |x| + e.
    The middle term is at most Σ |weight|·e.
    """
    wide = x.form.wide

    def apply(x: Array, change: Callable[[Array], Array], dtype: Any, bias: Array | None) -> Array:
        weights = (None if a is None else change(a).astype(dtype) for a in (weight, bias))
        return function(x.astype(dtype), *weights)

    value = apply(x.value, lambda a: a, wide, bias)
    magnitude = apply(x.largest, np.abs, np.float64, bias)
    terms = np.rint(apply(x.largest != 0, lambda a: a != 0, np.float64, bias))
    carried = np.zeros(value.shape)
    if x.error.any():
        # this is itself a sum of rounded products
        carried = apply(x.error, np.abs, np.float64, None) * (1 + 2 * terms * 2.0**-53)
    operands = [a for a in (x.value, weight, bias) if a is not None]
    rounds = ~exact(operands, terms, magnitude, x.form) | (carried > 0)
    return Approximate(value, carried + rounds * sum_bound(terms, magnitude, x.form), x.form)


def bilinear_block(function: Callable[..., Array], x: Approximate, y: Approximate) -> Approximate:
    """Return function(x, y), a sum of products of elements of x and y, where both may be off.

    |f(x̂, ŷ) − f(x, y)| ≤ |f(x̂ − x, ŷ)| + |f(x, ŷ − y)|, and the sum of products rounds over |x̂| and |ŷ|.
    """
    value = function(x.value.astype(x.form.wide), y.value.astype(x.form.wide))
    magnitude = function(x.largest, y.largest)
    terms = np.rint(function((x.largest != 0).astype(np.float64), (y.largest != 0).astype(np.float64)))
    carried = np.zeros(value.shape)
    if x.error.any() or y.error.any():
        carried = function(x.error, y.largest) + function(np.abs(x.value).astype(np.float64), y.error)
        carried = carried * (1 + 4 * terms * 2.0**-53)
    rounds = ~exact([x.value, y.value], terms, magnitude, x.form) | (carried > 0)
    return Approximate(value, carried + rounds * sum_bound(terms, magnitude, x.form), x.form)


def relu(x: Approximate) -> Approximate:
    """Return max(x, 0). Its error is at most that of x, and 0 where the whole interval is negative."""
    return Approximate(np.maximum(x.value, 0), np.where(x.value + x.error <= 0, 0.0, x.error), x.form)


def relu_vjp(cotangent: Approximate, x: Approximate) -> Approximate:
    """Return the cotangent where x > 0, and 0 where x < 0.

    Where x is 0, or rounding may have decided its sign, any value between 0 and the cotangent is right: the slope at 0
    is a convention of the relu.
    """
    passes, stops = x.value > x.error, x.value < -x.error
    either = (
        np.abs(cotangent.value).astype(np.float64) / 2 * (1 + 2.0**-50)
    )  # from the middle to 0, or to the cotangent
    value = np.select([passes, stops], [cotangent.value, np.zeros_like(cotangent.value)], cotangent.value / 2)
    error = np.select([passes, stops], [cotangent.error, np.zeros(x.value.shape)], either + cotangent.error)
    return Approximate(value, error, x.form)


def add(x: Approximate, y: Approximate) -> Approximate:
    """Return x + y, one rounding of |x̂ + ŷ| ≤ |x + y| + the errors."""
    form = x.form
    value, carried = x.value + y.value, x.error + y.error
    rounding = form.rounding * (np.abs(value).astype(np.float64) + carried) * (1 + 4 * form.u_wide)
    rounds = ~exact([x.value, y.value], np.full(value.shape, 2), x.largest + y.largest, x.form) | (carried > 0)
    return Approximate(value, carried * (1 + 2.0**-52) + rounds * rounding, x.form)
