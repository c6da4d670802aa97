"""The verdict rule: how far a result may be from the exact one. Every bound is derived; spec/conventions.md explains.

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

Array = np.ndarray


@dataclass(frozen=True)
class Format:
    """A floating-point format: unit roundoff u, spacing of subnormals eta, precision t, the reference's own dtype."""

    name: str
    precision: int
    eta: float  # a product that underflows is off by eta / 2
    largest: float
    wide: Any  # the dtype in which the reference computes what is expected

    @property
    def u(self) -> float:
        """Half the distance from 1 to the next number."""
        return 2.0**-self.precision

    @property
    def u_wide(self) -> float:
        """u of the reference's dtype."""
        return float(np.finfo(self.wide).eps) / 2


FORMATS = {
    "float32": Format("float32", 24, 2.0**-149, float(np.finfo(np.float32).max), np.float64),
    "float64": Format("float64", 53, 2.0**-1074, float(np.finfo(np.float64).max), np.longdouble),
}


@contextmanager
def flushing(flushes: bool) -> Iterator[None]:
    """For as long as a subject is judged that takes subnormals for 0: what underflows may be off by 2·tiny.

    That is tiny, the smallest normal number, for a product, and as much again for the sum that it is a term of. No
    operand that is drawn is itself subnormal.
    """
    before = dict(FORMATS)
    if flushes:
        FORMATS.update({n: replace(f, eta=4 * f.eta * 2.0 ** (f.precision - 1)) for n, f in before.items()})
    try:
        yield
    finally:
        FORMATS.update(before)


@dataclass(frozen=True)
class Expected:
    """What a result must be: within `bound` of `value`, element by element. A bound of 0 asks for equality."""

    value: Array
    bound: Array | float
    source: Array | None = None  # what of the subject's own the value comes from: a script asks for it anew

    @classmethod
    def exactly(cls, value: Array, source: Array | None = None) -> Expected:
        """Equality, NaN equal to NaN, -0.0 equal to 0.0."""
        return cls(np.asarray(value), 0.0, source)


def sum_bound(terms: Array, magnitude: Array, dtype: Any) -> Array:
    """The bound of a sum of `terms` products whose absolute values add up to `magnitude`, in any order of summation."""
    form = FORMATS[np.dtype(dtype).name]
    return terms * (form.u * (1 + form.u) + form.u_wide) * magnitude + terms * form.eta / 2


def multilinear(function: Callable[..., Array], *operands: Array | None) -> Expected:
    """The expected result of a block that is linear in each operand but a trailing bias, with its bound.

    `function` takes the operands; one that is None is passed on as None. With a bias as last of three operands, the
    bias is one more term of the sum.
    """
    value, magnitude, terms = evaluate(function, *operands)
    present = [a for a in operands if a is not None]
    bound = sum_bound(terms, magnitude, present[0].dtype)
    return Expected(value, np.where(exact(present, terms, magnitude, present[0].dtype), 0.0, bound))


def evaluate(function: Callable[..., Array], *operands: Array | None) -> tuple[Array, Array, Array]:
    """The value in the reference's wider dtype, the magnitude and the number of terms of a multilinear block."""
    form = FORMATS[next(a for a in operands if a is not None).dtype.name]

    def apply(change: Callable[[Array], Array], dtype: Any) -> Array:
        return function(*(None if a is None else change(a).astype(dtype) for a in operands))

    value = apply(lambda a: a, form.wide)
    return value, apply(np.abs, np.float64), np.rint(apply(lambda a: a != 0, np.float64))


def exact(operands: Sequence[Array], terms: Array, magnitude: Array, dtype: Any) -> Array:
    """Where no order of summation can round: on a common grid with room for the magnitude, or a copy times ±2ʲ."""
    integers = all(np.array_equal(a, np.rint(a)) for a in operands)
    copies = terms <= 1 if sum(not _powers_of_two(a) for a in operands) <= 1 else False
    return (magnitude <= 2.0 ** FORMATS[np.dtype(dtype).name].precision if integers else False) | np.asarray(copies)


def _powers_of_two(a: Array) -> bool:
    mantissa, _ = np.frexp(np.abs(a[a != 0]))
    return bool(np.all(mantissa == 0.5))
