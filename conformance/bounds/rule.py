"""The verdict rule: how far a result may be from the exact one. Every bound is derived; spec/numerics.md explains.

For a multilinear block f the same reference gives, element by element, the value f(a, b), the magnitude f(|a|, |b|) and
the number of terms f(a ≠ 0, b ≠ 0). A sum of k products rounded in any order, fused or not, is off by at most
k·u·(1 + u)·magnitude + k·η/2 (Jeannerod and Rump 2013; Higham 2002, chapter 3), and by nothing where every partial sum
is representable.

A bound is a function of the accuracy that a comparison assumes. It is evaluated only for results that are neither the
expected value nor that value correctly rounded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nnspec.conformance.bounds.arithmetic import CLASS_B, Accuracy, Arithmetic, narrows, wide
from nnspec.conformance.formats import FLOAT32, FLOAT64, STORED, is_floating, name_of, rounded

Array = np.ndarray
Bound = Callable[[Accuracy], "Array | float | Expected"]  # an Expected where the value depends on the accuracy too


@dataclass(frozen=True)
class Expected:
    """A result must be within `bound` of `value`, element by element. A bound of 0 asks for equality."""

    value: Array
    bound: Array | float | Bound
    source: Array | None = None  # the subject's own array that the value comes from: a script computes it anew
    probable: Callable[[Accuracy], Array] | None = None  # a bound for independent roundings; it only names a class
    _known: dict[Any, Expected] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def exactly(cls, value: Array, source: Array | None = None) -> Expected:
        """Equality, NaN equal to NaN, -0.0 equal to 0.0."""
        return cls(np.asarray(value), 0.0, source)

    def under(self, accuracy: Accuracy = CLASS_B) -> Expected:
        """Return the value with its bound as an array or a number, for one accuracy."""
        if not callable(self.bound):
            return self
        if accuracy not in self._known:
            with np.errstate(all="ignore"):  # NaN and infinities
                found = self.bound(accuracy)
            value, bound = (found.value, found.bound) if isinstance(found, Expected) else (self.value, found)
            self._known[accuracy] = Expected(value, bound, self.source)
        return self._known[accuracy]

    def within(self, accuracy: Accuracy = CLASS_B) -> Array:
        """Return the bound as an array, for one accuracy."""
        return np.asarray(self.under(accuracy).bound)

    def change(self, value: Array, change: Callable[[Array, Accuracy], Array], source: Array | None = None) -> Expected:
        """Return an expectation of `value` whose bound is `change(bound, accuracy)`, evaluated when it is needed."""
        return Expected(value, lambda accuracy: change(self.within(accuracy), accuracy), source)

    def stored(self, dtype: Any, accuracy: Accuracy = CLASS_B) -> Expected:
        """Return the expectation after the result was rounded to a dtype of fewer bits than the sums.

        Rounding is monotonic: a value within the bound lands between the two rounded ends, and any number there is
        possible. Where one end overflows nothing is expected.
        """
        whole = self.under(accuracy)
        if not narrows(dtype) or self.source is not None or not is_floating(self.value.dtype):
            return whole
        form = accuracy.of(dtype)
        if not form.narrows:
            return whole
        value, bound = whole.value.astype(form.wide), np.asarray(whole.bound)
        low, high = (rounded(end, form.stored).astype(form.wide) for end in (value - bound, value + bound))
        with np.errstate(invalid="ignore"):
            middle, half = (low + high) / 2, (high - low) / 2
        finite = np.isfinite(low) & np.isfinite(high)
        unbounded = np.where(np.isfinite(value), np.inf, 0.0)
        return Expected(np.where(finite, middle, value), np.where(finite, half, unbounded))

    def nearest(self, dtype: Any) -> Array:
        """Return the value correctly rounded to a dtype, as class A asks for."""
        form = STORED[np.dtype(dtype).name]
        if form in (FLOAT32, FLOAT64):  # one rounding, and a fast one
            with np.errstate(all="ignore"):
                return np.asarray(self.value.astype(form.dtype))
        return rounded(self.value.astype(wide(dtype)), form)


def correct(actual: Array, expected: Expected) -> Array:
    """Return, element by element, whether no bound is needed: the value, or its correct rounding if one is allowed.

    A correctly rounded value is right in every class of accuracy.
    """
    value = expected.value
    found: Array = np.asarray(actual == value)
    if not found.all():
        found |= (actual != actual) & (value != value)  # NaN
        if callable(expected.bound) and name_of(actual.dtype) in STORED:
            found |= actual == expected.nearest(actual.dtype)
    return found


def compare(
    actual: Array, expected: Expected, accuracy: Accuracy = CLASS_B, right: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return, element by element: the error, whether it is too large, and the ratio of error and bound.

    `right` is what `correct` returns; such elements have ratio 0.
    """
    right = correct(actual, expected) if right is None else right
    expected = expected.stored(actual.dtype, accuracy)
    value, bound = expected.value, np.broadcast_to(np.asarray(expected.bound), expected.value.shape)
    with np.errstate(all="ignore"):
        error = np.abs(actual.astype(value.dtype) - value)
        same = right | (actual == value)
        ratio = np.where(same | (bound == 0), 0.0, np.asarray(error / np.where(bound == 0, 1, bound), np.float64))
        return error, ~(same | (error <= bound)), ratio


def by_class(
    run: Callable[[Accuracy], Mapping[str, Expected]], values: Mapping[str, Array] | None = None
) -> dict[str, Expected]:
    """Return what a computation of values and bounds expects, by key; run it again for each accuracy that is needed.

    `values` are the values alone, where these cost less: the computation then runs for results that need a bound only.
    """
    run = functools.cache(run)

    def bound(key: str) -> Bound:
        return lambda accuracy: run(accuracy)[key].under(accuracy)

    values = {key: expected.value for key, expected in run(CLASS_B).items()} if values is None else values
    return {key: Expected(value, bound(key)) for key, value in values.items()}


# -- sums of products --------------------------------------------------------------------------------------------------


def sum_bound(terms: Array, magnitude: Array, form: Arithmetic) -> Array:
    """Return the bound of a sum of `terms` products, in any order; their absolute values add up to `magnitude`."""
    return (terms * (form.u * (1 + form.u) + form.u_wide) + form.extra) * magnitude + terms * form.eta / 2


def probable_terms(terms: Array) -> Array:
    """Return six standard deviations of a sum of as many independent errors of one size, in units of it: 6·√terms.

    No sum has more errors than terms, so up to 36 terms it is `terms`.
    """
    return np.minimum(terms, 6 * np.sqrt(terms))


class Sums:
    """A block that is linear in each operand but a trailing bias: its value, and the sums that its bound is made of.

    `function` takes the operands; one that is None is passed on as None. As the last of three operands, the bias is
    one more term of the sum.
    """

    def __init__(self, function: Callable[..., Array], *operands: Array | None) -> None:
        self.function, self.operands = function, operands
        self.present = [a for a in operands if a is not None]
        self.dtype = self.present[0].dtype
        with np.errstate(invalid="ignore"):  # NaN and infinities among the operands
            self.value = self._applied(lambda a: a, np.float64 if short_sums(self.present) else wide(self.dtype))

    def _applied(self, change: Callable[[Array], Array], dtype: Any) -> Array:
        return self.function(*(None if a is None else change(a).astype(dtype) for a in self.operands))

    @functools.cached_property
    def magnitude(self) -> Array:
        """The sum of the absolute values of the terms."""
        return self._applied(np.abs, np.float64)

    @functools.cached_property
    def terms(self) -> Array:
        """The number of terms that are not 0."""
        return np.rint(self._applied(lambda a: a != 0, np.float64))


def short_sums(operands: Sequence[Array]) -> bool:
    """Return whether every sum of products of the operands' elements is a whole number that float64 holds.

    float64 is then as exact as the wider type, for which there are no fast products of matrices. No sum is larger than
    the product of the sums of absolute values, of which a bias is one more.
    """
    limit = 1.0
    for a in operands:
        if not np.array_equal(a, np.rint(a)):
            return False
        limit *= 1 + float(np.abs(a).sum(dtype=np.float64))
    return limit < 2.0**53


def multilinear(
    function: Callable[..., Array], *operands: Array | None, fast: Callable[..., Array] | None = None
) -> Expected:
    """Return the expected result of a block like those of `Sums`, with its bound.

    `fast(*operands, form)` is the additional bound of class C, for a block that has such algorithms.
    """
    sums = Sums(function, *operands)

    def bound(accuracy: Accuracy) -> Array:
        form = accuracy.of(sums.dtype)
        found = sum_bound(sums.terms, sums.magnitude, form)
        if fast is not None and form.fast:
            found = found + fast(*sums.present, form=form)
        else:
            found = np.where(exact(sums.present, sums.terms, sums.magnitude, form), 0.0, found)
        return where_finite(found, sums.value)

    def probable(accuracy: Accuracy) -> Array:
        return sum_bound(probable_terms(sums.terms), sums.magnitude, accuracy.of(sums.dtype))

    return Expected(sums.value, bound, probable=probable)


def where_finite(bound: Array, value: Array) -> Array:
    """Return the bound where the value is finite, else 0: infinity and NaN must be where they belong."""
    return np.where(np.isfinite(value), bound, 0.0)


def exact(operands: Sequence[Array], terms: Array, magnitude: Array, form: Arithmetic) -> Array:
    """Return where no order of summation can round.

    There the terms lie on a common grid with room for the magnitude, or the only term is a copy times ±2ʲ.
    """
    if form.operands is not None and not all(np.array_equal(a, rounded(a, form.operands)) for a in operands):
        return np.zeros(np.shape(magnitude), bool)
    integers = all(np.array_equal(a, np.rint(a)) for a in operands)
    few = np.asarray(terms <= 1)
    copies = few if few.any() and sum(not _powers_of_two(a) for a in operands) <= 1 else False
    return (magnitude <= 2.0**form.precision if integers else False) | np.asarray(copies)


def _powers_of_two(a: Array) -> bool:
    mantissa, _ = np.frexp(np.abs(a[a != 0]))
    return bool(np.all(mantissa == 0.5))
