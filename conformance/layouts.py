"""Layouts: how an array can lie in memory. A layout changes strides and place, and no element.

The memory around and between the elements holds NaN, so that a kernel which reads there shows it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from nnspec.adapters.views import whole_of
from nnspec.conformance.formats import is_floating

Array = np.ndarray
Arrange = Callable[[Array], Array]

LAYOUTS: dict[str, Arrange] = {}
INSIDE, LARGEST = "part of a larger array", 2**24  # a layout, and the elements of the larger array at most
EXPANDED = "expanded"  # the one layout that needs values which repeat
_AXES: dict[str, int] = {}  # layout -> the least number of axes of an array that can have it


def _layout(name: str, axes: int) -> Callable[[Arrange], Arrange]:
    def add(arrange: Arrange) -> Arrange:
        LAYOUTS[name], _AXES[name] = arrange, axes
        return arrange

    return add


def _store(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """Return memory that holds NaN, or the least integer."""
    return np.full(shape, np.iinfo(dtype).min if dtype.kind in "iu" else np.nan, dtype)


@_layout("reversed axes", 2)
def _reversed_axes(a: Array) -> Array:
    return np.array(a.T, order="C").T


@_layout("every second element", 1)
def _sliced(a: Array) -> Array:
    if not a.ndim:
        return a.copy()
    view = _store((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)[..., ::2]
    view[...] = a
    return view


@_layout("channels last", 3)
def _channels_last(a: Array) -> Array:
    return np.moveaxis(np.array(np.moveaxis(a, 1, -1), order="C"), -1, 1) if a.ndim > 2 else _reversed_axes(a)


@_layout("channel slice of channels last", 3)
def _channel_slice(a: Array) -> Array:
    """The first channels of a channels-last array that has more: looks packed, and is not."""
    if a.ndim < 3:
        return _sliced(a)
    view = np.moveaxis(_store((a.shape[0], *a.shape[2:], a.shape[1] + 1), a.dtype), -1, 1)[:, :-1]
    view[...] = a
    return view


@_layout("negative strides", 1)
def _negative_strides(a: Array) -> Array:
    backwards: Any = (..., *[slice(None, None, -1)] * a.ndim)
    return np.array(a[backwards], order="C")[backwards]


@_layout("offset", 1)
def _offset(a: Array) -> Array:
    """Contiguous, one element behind the place where memory that was allocated begins."""
    view = _store((a.size + 2,), a.dtype)[1:-1].reshape(a.shape)
    view[...] = a
    return view


@_layout(INSIDE, 1)
def _inside(a: Array) -> Array:
    inner: Any = (..., *[slice(1, -1)] * a.ndim)
    view = _store(tuple(n + 2 for n in a.shape), a.dtype)[inner]
    view[...] = a
    return view


@_layout(EXPANDED, 1)
def _expanded(a: Array) -> Array:
    """A stride of 0 along the first axis along which all values are equal; contiguous if there is no such axis."""
    for axis, size in enumerate(a.shape):
        first = a.take([0], axis) if size > 1 else a
        if size > 1 and np.array_equal(np.broadcast_to(first, a.shape), a, equal_nan=is_floating(a.dtype)):
            strides = np.array(first).strides
            return laid_out(a, tuple(0 if n == axis else stride for n, stride in enumerate(strides)))
    return np.array(a)


OF_ANY_VALUES = tuple(name for name in LAYOUTS if name != EXPANDED)


def possible(a: Array) -> list[str]:
    """Return the layouts that an array can have; `EXPANDED` is one of them, if its values are made to repeat.

    An array of many axes cannot be a part of a larger one: two elements more along each axis take too much memory.
    """
    return _possible(a.shape)


@functools.lru_cache(2**12)
def _possible(shape: tuple[int, ...]) -> list[str]:
    if math.prod(shape) < 2:
        return []
    fits = math.prod(n + 2 for n in shape) <= LARGEST
    return [name for name, axes in _AXES.items() if len(shape) >= axes and (fits or name != INSIDE)]


def repeated(a: Array, axis: int) -> Array:
    """Return the first values along an axis in the place of all others."""
    return np.array(np.broadcast_to(a.take([0], axis), a.shape))


# -- guards ------------------------------------------------------------------------------------------------------------

AROUND = 1024  # elements of a pattern on either side of a guarded array
ALIGNED = 128  # bytes: every guarded array is placed relative to an address divisible by this
PATTERNS = (97.0, np.nan)  # numbers that a kernel takes for data, and NaN


def offsets(dtype: np.dtype) -> list[int]:
    """Return one element, 4, 16 and 64 bytes, in bytes, as far as elements of the dtype can lie there."""
    return sorted(n for n in {dtype.itemsize, 4, 16, 64} if n % dtype.itemsize == 0)


def filled(count: int, dtype: np.dtype, value: float) -> Array:
    """Return `count` elements of ±value, or of NaN. A dtype of whole numbers has its least number in place of NaN."""
    if dtype.kind in "iu" and np.isnan(value):
        return np.full(count, np.iinfo(dtype).min, dtype)
    signs = np.where(np.arange(count) % 2, -1, 1) if dtype.kind in "if" or is_floating(dtype) else 1
    return np.asarray(np.full(count, value) * signs).astype(dtype)


def guarded(a: Array, offset: int, value: float) -> Array:
    """Return the array, contiguous, `offset` bytes behind an aligned address, with `value` on both sides of it."""
    begin = (-(-AROUND * a.itemsize // ALIGNED) * ALIGNED + offset) // a.itemsize
    whole = aligned(filled(begin + a.size + AROUND, a.dtype, value))
    view = whole[begin : begin + a.size].reshape(a.shape)
    view[...] = a
    return view


def aligned(a: Array) -> Array:
    """Return a copy, of one axis, that begins at an aligned address and is the base of its own views."""
    memory = memoryview(bytearray(a.nbytes + ALIGNED))
    address = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    copy: Array = np.ndarray(a.shape, a.dtype, memory, -address % ALIGNED)
    copy[...] = a
    return copy


# -- copies, and scripts -----------------------------------------------------------------------------------------------


def laid_out(values: np.ndarray, strides: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """The values in an array of these strides (in bytes), with NaN in the gaps and in `offset` elements around it."""
    reach = [stride * (size - 1) for stride, size in zip(strides, values.shape, strict=True)]
    before, behind = -sum(min(0, r) for r in reach), sum(max(0, r) for r in reach)
    store = np.full((before + behind) // values.itemsize + 1 + 2 * offset, np.nan, values.dtype)
    first = before + offset * values.itemsize
    view: np.ndarray = np.ndarray(values.shape, values.dtype, store.view(np.uint8), first, strides)
    view[...] = values
    return view


def offset_of(a: Array) -> int:
    """Return how many elements lie in an array's memory before its first."""
    base = whole_of(a)
    if base is a:
        return 0
    before = -sum(min(0, stride * (size - 1)) for stride, size in zip(a.strides, a.shape, strict=True))
    return (a.__array_interface__["data"][0] - base.__array_interface__["data"][0] - before) // a.itemsize


def as_laid_out(a: Array) -> Array:
    """A copy of its own that lies in memory as the array does."""
    if (a.flags.c_contiguous and a.base is None) or not (a.size and is_floating(a.dtype)):
        return np.array(a)
    return laid_out(a, a.strides, offset_of(a))
