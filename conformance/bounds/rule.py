"""The verdict rule: how far a result may be from the exact one. Every bound is derived; spec/numerics.md explains.

For a multilinear block f the same reference gives, element by element, the value f(a, b), the magnitude f(|a|, |b|) and
the number of terms f(a ≠ 0, b ≠ 0). A sum of k products rounded in any order, fused or not, is off by at most
k·u·(1 + u)·magnitude + k·η/2 (Jeannerod and Rump 2013; Higham 2002, chapter 3), and by nothing where every partial sum
is representable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nnspec.conformance.formats import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    STORED,
    TFLOAT32,
    Format,
    is_floating,
    rounded,
)

Array = np.ndarray


@dataclass(frozen=True)
class Arithmetic:
    """What a subject is held to on operands of one dtype: the format of its sums and products, and that of its results.

    An `extra` may come on top, relative to the sum of the absolute values of the terms.
    """

    sums: Format
    stored: Format
    wide: Any  # the dtype in which the reference computes what is expected
    eta: float  # a product that underflows is off by eta / 2
    extra: float = 0.0
    operands: Format | None = None  # to which operands are rounded before anything else
    fast: bool = False  # convolutions may be transformed, see rule_convolution.py
    one_pass: bool = False  # a variance may be mean(x²) − mean(x)², see rule_batch_norm.py

    @property
    def name(self) -> str:
        """The dtype's."""
        return self.stored.name

    @property
    def u(self) -> float:
        """How far a sum or product may be rounded, relative to it."""
        return self.sums.u

    @property
    def rounding(self) -> float:
        """How far a result by itself may be off, what is expected being rounded too."""
        return self.u + self.u_wide + self.extra

    @property
    def precision(self) -> int:
        """Whole numbers up to 2^precision are added without rounding, and also stored where it may store in between."""
        return self.stored.precision if self.extra and self.narrows else self.sums.precision

    @property
    def u_wide(self) -> float:
        """u of the reference's dtype."""
        return float(np.finfo(self.wide).eps) / 2

    @property
    def narrows(self) -> bool:
        """Whether results are rounded once more, to fewer bits than those of the sums."""
        return self.stored.precision < self.sums.precision


def _held_to(sums: Format, stored: Format, wide: Any = np.float64) -> Arithmetic:
    return Arithmetic(sums, stored, wide, sums.eta)


# class B: float32 and float64 are added up as they are, and 16-bit types in float32
ARITHMETIC = {
    "float32": _held_to(FLOAT32, FLOAT32),
    "float64": _held_to(FLOAT64, FLOAT64, np.longdouble),
    "float16": _held_to(FLOAT32, FLOAT16),
    "bfloat16": _held_to(FLOAT32, BFLOAT16),
}


def _in_class(name: str, form: Arithmetic) -> Arithmetic:
    if name == "T":
        return replace(form, extra=2 * TFLOAT32.u + TFLOAT32.u**2, operands=TFLOAT32)
    if name == "B2":
        return replace(form, extra=form.stored.u * (1 + form.stored.u))
    if name == "L":
        return replace(form, sums=form.stored, eta=max(form.eta, form.stored.eta))
    return replace(form, fast=name == "C", one_pass=name == "N")


CLASSES = {  # best first; what each of them means
    "A": "every element correctly rounded",
    "Bp": "errors no larger than those of independent roundings",
    "B": "within the bound of any order of summation",
    "B2": "as B, with an intermediate result rounded to the dtype",
    "T": "as B, with operands rounded to TF32",
    "L": "added up in the dtype itself",
    "C": "convolutions by Winograd's or Fourier's transform",
    "N": "the variance as mean(x²) − mean(x)²",
}
STRICT = ("A", "Bp", "B")  # those that a must asks for in float32 and float64
NARROW = ("B2", "L")  # those that are open beside them in 16-bit types


@contextmanager
def held_to(accuracy: str) -> Iterator[None]:
    """For as long as a subject is judged by a weaker class than B."""
    before = dict(ARITHMETIC)
    ARITHMETIC.update({name: _in_class(accuracy, form) for name, form in before.items()})
    try:
        yield
    finally:
        ARITHMETIC.update(before)


@contextmanager
def flushing(flushes: bool) -> Iterator[None]:
    """For as long as a subject is judged that takes subnormals for 0: what underflows may be off by 2·tiny.

    That is tiny, the smallest normal number, for a product, and as much again for the sum that it is a term of. No
    operand that is drawn is itself subnormal.
    """
    before = dict(ARITHMETIC)
    if flushes:
        ARITHMETIC.update({n: replace(f, eta=4 * f.sums.tiny) for n, f in before.items()})
    try:
        yield
    finally:
        ARITHMETIC.update(before)


@dataclass(frozen=True)
class Expected:
    """What a result must be: within `bound` of `value`, element by element. A bound of 0 asks for equality."""

    value: Array
    bound: Array | float
    source: Array | None = None  # what of the subject's own the value comes from: a script asks for it anew
    probable: Array | None = None  # a bound for roundings that are independent of each other: it only names a class
    in_any_class: bool = False  # no class of accuracy asks for less

    @classmethod
    def exactly(cls, value: Array, source: Array | None = None) -> Expected:
        """Equality, NaN equal to NaN, -0.0 equal to 0.0."""
        return cls(np.asarray(value), 0.0, source, in_any_class=True)

    def stored(self, dtype: Any) -> Expected:
        """What is left of it for a result that was rounded to a dtype of fewer bits than those that it was added up in.

        What lies within the bound, rounded, is what lies between its two ends, rounded: all of it, and nothing else.
        Where one of them overflows nothing is expected.
        """
        form = ARITHMETIC.get(np.dtype(dtype).name)
        if form is None or not form.narrows or self.source is not None or not is_floating(self.value.dtype):
            return self
        value, bound = self.value.astype(form.wide), np.asarray(self.bound)
        low, high = (rounded(end, form.stored).astype(form.wide) for end in (value - bound, value + bound))
        with np.errstate(invalid="ignore"):
            middle, half = (low + high) / 2, (high - low) / 2
        finite = np.isfinite(low) & np.isfinite(high)
        unbounded = np.where(np.isfinite(value), np.inf, 0.0)
        return Expected(np.where(finite, middle, value), np.where(finite, half, unbounded))

    def nearest(self, dtype: Any) -> Expected:
        """What class A asks for: the value, correctly rounded."""
        name = np.dtype(dtype).name
        return Expected.exactly(rounded(self.value.astype(ARITHMETIC[name].wide), STORED[name]))


def compare(actual: Array, expected: Expected) -> tuple[Array, Array, Array]:
    """Element by element: how far off it is, whether that is too far, and the part of the bound that it takes."""
    value, bound = expected.value, np.broadcast_to(np.asarray(expected.bound), expected.value.shape)
    with np.errstate(all="ignore"):
        error = np.abs(actual.astype(value.dtype) - value)
        same = (actual == value) | (np.isnan(actual) & np.isnan(value))
        ratio = np.where(same | (bound == 0), 0.0, np.asarray(error / np.where(bound == 0, 1, bound), np.float64))
        return error, ~(same | (error <= bound)), ratio


def sum_bound(terms: Array, magnitude: Array, dtype: Any) -> Array:
    """The bound of a sum of `terms` products whose absolute values add up to `magnitude`, in any order of summation."""
    form = ARITHMETIC[np.dtype(dtype).name]
    return (terms * (form.u * (1 + form.u) + form.u_wide) + form.extra) * magnitude + terms * form.eta / 2


def probable_terms(terms: Array) -> Array:
    """Six standard deviations of a sum of as many independent errors of one size, in units of it: 6·√terms.

    No sum has more errors than terms, though, so that it is `terms` up to 36 of them.
    """
    return np.minimum(terms, 6 * np.sqrt(terms))


def multilinear(
    function: Callable[..., Array], *operands: Array | None, fast: Callable[..., Array] | None = None
) -> Expected:
    """The expected result of a block that is linear in each operand but a trailing bias, with its bound.

    `function` takes the operands; one that is None is passed on as None. With a bias as last of three operands, the
    bias is one more term of the sum. `fast(*operands)` is the bound of class C, for a block that has
    such algorithms.
    """
    value, magnitude, terms = evaluate(function, *operands)
    present = [a for a in operands if a is not None]
    dtype = present[0].dtype
    bound = sum_bound(terms, magnitude, dtype)
    if fast is not None and ARITHMETIC[dtype.name].fast:
        bound = bound + fast(*present)
    else:
        bound = np.where(exact(present, terms, magnitude, dtype), 0.0, bound)
    return Expected(value, where_finite(bound, value), probable=sum_bound(probable_terms(terms), magnitude, dtype))


def where_finite(bound: Array, value: Array) -> Array:
    """The bound of what is finite; infinity and NaN must be where they belong."""
    return np.where(np.isfinite(value), bound, 0.0)


def evaluate(function: Callable[..., Array], *operands: Array | None) -> tuple[Array, Array, Array]:
    """The value in the reference's wider dtype, the magnitude and the number of terms of a multilinear block."""
    form = ARITHMETIC[next(a for a in operands if a is not None).dtype.name]

    def apply(change: Callable[[Array], Array], dtype: Any) -> Array:
        return function(*(None if a is None else change(a).astype(dtype) for a in operands))

    with np.errstate(invalid="ignore"):  # NaN and infinities among the operands
        value = apply(lambda a: a, form.wide)
    return value, apply(np.abs, np.float64), np.rint(apply(lambda a: a != 0, np.float64))


def exact(operands: Sequence[Array], terms: Array, magnitude: Array, dtype: Any) -> Array:
    """Where no order of summation can round: on a common grid with room for the magnitude, or a copy times ±2ʲ."""
    form = ARITHMETIC[np.dtype(dtype).name]
    if form.operands is not None and not all(np.array_equal(a, rounded(a, form.operands)) for a in operands):
        return np.zeros(np.shape(magnitude), bool)
    integers = all(np.array_equal(a, np.rint(a)) for a in operands)
    copies = terms <= 1 if sum(not _powers_of_two(a) for a in operands) <= 1 else False
    return (magnitude <= 2.0**form.precision if integers else False) | np.asarray(copies)


def _powers_of_two(a: Array) -> bool:
    mantissa, _ = np.frexp(np.abs(a[a != 0]))
    return bool(np.all(mantissa == 0.5))
