"""Floating-point formats, and the correctly rounded conversion to them.

Converting float64 to a 16-bit type through float32, as libraries do, rounds twice: 1 + 2⁻⁸ + 2⁻⁴⁰ lies just above the
middle between two bfloat16 numbers, becomes that middle in float32, and then the lower of the two, which is the wrong
one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Format:
    """A binary format with subnormal numbers: t significant bits, the hidden one among them, and powers of two."""

    name: str
    precision: int  # t
    lowest: int  # 2^lowest is the smallest normal number
    highest: int  # the largest number is just below 2^(highest + 1)
    dtype: Any  # that of NumPy which holds its numbers

    @property
    def u(self) -> float:
        """Unit roundoff: half the distance from 1 to the next number."""
        return 2.0**-self.precision

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return 2.0**self.lowest

    @property
    def eta(self) -> float:
        """The smallest subnormal number, which is the spacing of all of them."""
        return 2.0 ** (self.lowest - self.precision + 1)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - 2.0 ** (1 - self.precision)) * 2.0**self.highest


FLOAT64 = Format("float64", 53, -1022, 1023, np.float64)
FLOAT32 = Format("float32", 24, -126, 127, np.float32)
TFLOAT32 = Format("tfloat32", 11, -126, 127, np.float32)  # float32 with 10 bits behind the point, inside tensor cores
FLOAT16 = Format("float16", 11, -14, 15, np.float16)
BFLOAT16 = Format("bfloat16", 8, -126, 127, ml_dtypes.bfloat16)
STORED = {f.name: f for f in (FLOAT64, FLOAT32, FLOAT16, BFLOAT16)}  # those that arrays have


def rounded(values: Array | float, form: Format) -> Array:
    """float64 or longdouble values -> the nearest numbers of the format, in its dtype; in the middle, the even one.

    As IEEE 754 has it: what underflows goes to the nearest subnormal number, and what is nearer to 2^(highest + 1) than
    to the largest number becomes infinite.
    """
    values = np.asarray(values)
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(values)  # |value| = m·2^exponent, 1/2 ≤ m < 1
        unit = np.maximum(exponent - 1, form.lowest) - form.precision + 1  # numbers here are multiples of 2^unit
        nearest = np.ldexp(np.rint(np.ldexp(values, -unit)), unit)
        nearest = np.where(np.abs(nearest) > form.largest, np.copysign(np.inf, nearest), nearest)
        return np.asarray(np.where(np.isfinite(values), nearest, values).astype(form.dtype))


@functools.lru_cache(100)
def name_of(dtype: np.dtype) -> str:
    """The name of a dtype. NumPy makes it anew whenever it is asked for."""
    return dtype.name


def is_floating(dtype: Any) -> bool:
    """Whether a dtype is one of floating point; NumPy does not know so of bfloat16."""
    dtype = np.dtype(dtype)
    return dtype.kind == "f" or name_of(dtype) in STORED
