"""Checks of arguments. Each message names the argument, its value and the values that are allowed."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Pair: TypeAlias = int | tuple[int, int]
Rows: TypeAlias = tuple[int, int]  # a pair as `pair` returns it: rows first, columns second


def pair(name: str, value: Pair, minimum: int) -> tuple[int, int]:
    """Return the value as a pair of ints, rows first, columns second; an int stands for both.

    Raises ValueError for values that are not integers or below `minimum`.
    """
    rows_columns = tuple(value) if isinstance(value, Iterable) else (value, value)
    if len(rows_columns) != 2 or any(isinstance(v, bool) or not isinstance(v, int | np.integer) for v in rows_columns):
        raise ValueError(f"{name}={value!r}: expected an int or a pair of ints (rows, columns)")
    if min(rows_columns) < minimum:
        raise ValueError(f"{name}={value!r}: expected at least {minimum} in each direction")
    return int(rows_columns[0]), int(rows_columns[1])


def rank(name: str, array: Array, *allowed: int) -> None:
    """Raise ValueError for an array whose number of dimensions is not among `allowed`."""
    if np.ndim(array) not in allowed:
        ranks = " or ".join(map(str, allowed))
        raise ValueError(f"{name} of shape {np.shape(array)}: expected {ranks} dimensions, not {np.ndim(array)}")


def length(name: str, array: Array | None, expected: int) -> None:
    """Raise ValueError for a per-channel vector whose shape is not (expected,). None stands for an absent vector."""
    if array is not None and np.shape(array) != (expected,):
        raise ValueError(f"{name} of shape {np.shape(array)}: expected ({expected},), one value per channel")


def like(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError for an array, such as a cotangent, that does not have this shape."""
    if np.shape(array) != shape:
        raise ValueError(f"{name} of shape {np.shape(array)}: expected {shape}")
