"""Levels: the properties of a call whose pairs a block's cases should reach, such as a stride of 2 and an expanded x.

A level is what varies and how. What varies: the dtype, the rank, each argument, special values, how each operand and
cotangent lies in memory or that it is absent, the size of each axis of the first operand, rows left over behind the
last window, and the channels of a convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from nnspec.adapters.names import LONG
from nnspec.adapters.signatures import COTANGENT, EQUATION, SIGNATURES
from nnspec.conformance.case import Case, as_pair
from nnspec.conformance.formats import is_floating, name_of
from nnspec.conformance.layouts import EXPANDED, offset_of
from nnspec.conformance.layouts import LAYOUTS as ARRANGED

Level = tuple[str, str]  # what varies, and how
ABSENT, PLAIN, STRIDED = "absent", "contiguous", "strided"
LAYOUTS = (PLAIN, "channels last", STRIDED, "negative", EXPANDED, "offset")
SIZES = ("0", "1", "2", "5 or more")
AXES = 4  # of so many axes of x the sizes are levels


def levels(case: Case) -> Iterator[Level]:
    """Yield the levels of a call. Its arrays lie in memory as its layouts say, or where these say nothing, as here."""
    signature = SIGNATURES[case.stem]
    arguments = {**signature.arguments, **case.arguments}
    x = next(a for a in case.arrays.values() if a is not None)
    if (dtype := name_of(x.dtype)) in LONG:
        yield "dtype", dtype
    if signature.of_rank:
        yield "rank", str(x.ndim)
    for name, value in arguments.items():
        if name == EQUATION:
            yield "operands", str(min(value.count(","), 2) + 1)
        elif name in signature.arguments:
            yield from _of_argument(name, value, signature.arguments[name])
    floats = [a for a in case.arrays.values() if a is not None and is_floating(a.dtype)]
    yield "values", "finite" if all(np.isfinite(a).all() for a in floats) else "special"
    for name in _named(case):
        yield name, ABSENT if (array := case.arrays[name]) is None else _handed_as(case.layouts.get(name), array)
    for axis, size in enumerate(x.shape[: 2 if EQUATION in arguments else AXES]):
        yield f"x axis {axis}", str(size) if size < 3 else "3 or 4" if size < 5 else "5 or more"
    if "weight" in case.arrays and "stride" in arguments:
        yield from _of_windows(case, arguments)


def _named(case: Case) -> list[str]:
    """Return the arrays whose layouts are levels: of an equation's operands the first two."""
    if EQUATION in case.arguments:
        first = [name for name in case.arrays if not name.startswith(COTANGENT)][:2]
        return [name for name in case.arrays if name in first or name.startswith(COTANGENT)]
    copied = not SIGNATURES[case.stem].function  # a module copies its parameters
    return [name for name in case.arrays if not copied or name == "x" or name.startswith(COTANGENT)]


def _of_argument(name: str, value: Any, neutral: Any) -> Iterator[Level]:
    if isinstance(value, bool):
        yield name, str(value)
        return
    if value is None or isinstance(neutral, float) or name == "divisor_override":
        yield name, "default" if value == neutral else "another value"
        return
    pair = value if isinstance(value, tuple) else (value, value)
    yield name, "default" if pair == (neutral, neutral) else "1" if max(pair) == 1 else "2 or more"
    if name != "groups":
        yield f"{name} of rows and columns", "equal" if pair[0] == pair[1] else "unequal"


def _of_windows(case: Case, arguments: dict[str, Any]) -> Iterator[Level]:
    """Yield what is left over behind the last row of windows, and whether the convolution is depthwise."""
    x, weight, groups = case["x"], case["weight"], arguments["groups"]
    if case.stem == "conv2d":
        stride, padding, dilation = (as_pair(arguments[name])[0] for name in ("stride", "padding", "dilation"))
        left = (x.shape[2] + 2 * padding - dilation * (weight.shape[2] - 1) - 1) % stride
        yield "rows left over", "some" if left else "none"
    outputs = len(weight) if case.stem == "conv2d" else weight.shape[1] * groups
    multiplied = "depthwise with multiplier" if outputs > groups else "depthwise"
    yield "channels", multiplied if groups == x.shape[1] > 1 else "mixed"


def _handed_as(layout: str | None, a: np.ndarray) -> str:
    if layout is None:
        return layout_of(a)
    return layout_of(ARRANGED[EXPANDED](a)) if layout == EXPANDED else _of_any_values(layout, a.shape, a.dtype)


@functools.lru_cache(2**12)
def _of_any_values(layout: str, shape: tuple[int, ...], dtype: np.dtype) -> str:
    return layout_of(ARRANGED[layout](np.zeros(shape, dtype)))


def layout_of(a: np.ndarray) -> str:
    """Return which of LAYOUTS an array has."""
    steps = [stride for stride, size in zip(a.strides, a.shape, strict=True) if size > 1]
    if a.size > 1 and 0 in steps:
        return EXPANDED
    if a.size > 1 and min(steps) < 0:
        return "negative"
    if a.flags.c_contiguous:
        return "offset" if a.size and offset_of(a) else PLAIN
    return "channels last" if a.ndim > 2 and np.moveaxis(a, 1, -1).flags.c_contiguous else STRIDED
