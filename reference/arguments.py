"""What blocks accept: every refusal names the argument, its value and what was allowed."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Pair: TypeAlias = int | tuple[int, int]
Rows: TypeAlias = tuple[int, int]  # a pair as `pair` returns it: rows first, columns second


def pair(name: str, value: Pair, minimum: int) -> tuple[int, int]:
    """An int stands for (int, int): rows first, columns second. Both must be integers, and at least `minimum`."""
    rows_columns = tuple(value) if isinstance(value, Iterable) else (value, value)
    if len(rows_columns) != 2 or any(isinstance(v, bool) or not isinstance(v, int | np.integer) for v in rows_columns):
        raise ValueError(f"{name}={value!r}: expected an int or a pair of ints (rows, columns)")
    if min(rows_columns) < minimum:
        raise ValueError(f"{name}={value!r}: expected at least {minimum} in each direction")
    return int(rows_columns[0]), int(rows_columns[1])


def rank(name: str, array: Array, *allowed: int) -> None:
    """Refuse an array whose number of dimensions is not among those allowed."""
    if np.ndim(array) not in allowed:
        ranks = " or ".join(map(str, allowed))
        raise ValueError(f"{name} of shape {np.shape(array)}: expected {ranks} dimensions, not {np.ndim(array)}")


def length(name: str, array: Array | None, expected: int) -> None:
    """Refuse a per-channel vector that is not of shape (expected,). None stands for an absent vector."""
    if array is not None and np.shape(array) != (expected,):
        raise ValueError(f"{name} of shape {np.shape(array)}: expected ({expected},), one value per channel")


def like(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Refuse an array, such as a cotangent, that is not of the shape that it must have."""
    if np.shape(array) != shape:
        raise ValueError(f"{name} of shape {np.shape(array)}: expected {shape}")
