"""The arithmetic that a comparison assumes: formats, unit roundoffs, and the classes of accuracy.

A bound depends on the class of accuracy of the comparison, and on whether the subject flushes subnormal numbers to 0.
`Accuracy` holds both, and `Accuracy.of(dtype)` is the arithmetic that they allow on operands of a dtype.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nnspec.conformance.formats import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, TFLOAT32, Format


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic allowed on operands of one dtype: the format of sums and products, and the format of results.

    An `extra` error may come on top, relative to the sum of the absolute values of the terms.
    """

    sums: Format
    stored: Format
    wide: Any  # the dtype in which the reference computes the expected value
    eta: float  # a product that underflows is off by eta / 2
    extra: float = 0.0
    operands: Format | None = None  # the format to which operands are rounded before anything else
    fast: bool = False  # convolutions may use a transform: see convolution.py
    one_pass: bool = False  # a variance may be mean(x²) − mean(x)²: see batch_norm.py

    @property
    def u(self) -> float:
        """The largest relative error of one rounded sum or product."""
        return self.sums.u

    @property
    def rounding(self) -> float:
        """The largest relative error of one rounded result against an expected value that is rounded too."""
        return self.u + self.u_wide + self.extra

    @property
    def precision(self) -> int:
        """Sums of whole numbers up to 2^precision are exact, also where partial sums may be stored."""
        return self.stored.precision if self.extra and self.narrows else self.sums.precision

    @property
    def u_wide(self) -> float:
        """u of the reference's dtype."""
        return float(np.finfo(self.wide).eps) / 2

    @property
    def narrows(self) -> bool:
        """Whether results are rounded once more, to fewer bits than those of the sums."""
        return self.stored.precision < self.sums.precision


def _arithmetic(sums: Format, stored: Format, wide: Any = np.float64) -> Arithmetic:
    return Arithmetic(sums, stored, wide, sums.eta)


# class B: float32 and float64 are summed in their own format, 16-bit types in float32
_OF_CLASS_B = {
    "float32": _arithmetic(FLOAT32, FLOAT32),
    "float64": _arithmetic(FLOAT64, FLOAT64, np.longdouble),
    "float16": _arithmetic(FLOAT32, FLOAT16),
    "bfloat16": _arithmetic(FLOAT32, BFLOAT16),
}

CLASSES = {  # the best first, with their meaning
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


@dataclass(frozen=True)
class Accuracy:
    """A class of accuracy, B or a weaker one, for a subject that may flush subnormal numbers to 0."""

    name: str = "B"
    flushes: bool = False

    def of(self, dtype: Any) -> Arithmetic:
        """Return the arithmetic on operands of a dtype or of its name."""
        return _allowed(self, dtype)


CLASS_B = Accuracy()


@functools.cache
def _allowed(accuracy: Accuracy, dtype: Any) -> Arithmetic:
    form = _OF_CLASS_B[np.dtype(dtype).name]
    if accuracy.flushes:
        # a product below the smallest normal number loses at most that number, and so does the sum that it is a term
        # of; no operand that a check draws is subnormal
        form = replace(form, eta=4 * form.sums.tiny)
    if accuracy.name == "T":
        return replace(form, extra=2 * TFLOAT32.u + TFLOAT32.u**2, operands=TFLOAT32)
    if accuracy.name == "B2":
        return replace(form, extra=form.stored.u * (1 + form.stored.u))
    if accuracy.name == "L":
        return replace(form, sums=form.stored, eta=max(form.eta, form.stored.eta))
    return replace(form, fast=accuracy.name == "C", one_pass=accuracy.name == "N")


def wide(dtype: Any) -> Any:
    """Return the dtype in which the reference computes what is expected of operands of a dtype."""
    return CLASS_B.of(dtype).wide


def narrows(dtype: Any) -> bool:
    """Return whether results of a dtype have fewer bits than the sums that they come from."""
    name = np.dtype(dtype).name
    return name in _OF_CLASS_B and _OF_CLASS_B[name].narrows
