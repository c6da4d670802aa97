"""Mistakes in kernels of pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from nnspec.conformance.case import Array, as_pair
from nnspec.conformance.faults.kernels import (
    FIRST,
    LOST,
    REPEATED,
    SEAM,
    SHIFTED,
    SHORT,
    STALE,
    TAIL,
    Function,
    blockwise,
    in_16_bits,
    in_operand,
    in_results,
    length,
    numbers,
)
from nnspec.reference.avg_pool2d import avg_pool2d, avg_pool2d_vjp
from nnspec.reference.global_avg_pool2d import global_avg_pool2d, global_avg_pool2d_vjp
from nnspec.reference.max_pool2d import max_pool2d, max_pool2d_vjp

IMAGES, CHANNELS, ROWS, COLUMNS = (
    {name: (axis,)} for axis, name in enumerate(("images", "channels", "rows", "columns"))
)
PIXELS, PLANES, ELEMENTS = {"pixels": (2, 3)}, {"channels of the batch": (0, 1)}, {"elements": (0, 1, 2, 3)}
MAX, AVG, MEAN = Function(max_pool2d), Function(avg_pool2d), Function(global_avg_pool2d)

# -- blocks of the result ----------------------------------------------------------------------------------------------

in_results("max_pool2d.arguments.together", MAX, CHANNELS, (8, 16, 32), TAIL, REPEATED)
in_results("max_pool2d.arguments.together", MAX, COLUMNS, (8, 16, 32), TAIL, SHIFTED)
in_results("max_pool2d.arguments.together", MAX, ROWS, (4, 8, 16), SHORT)
in_results("max_pool2d.arguments.together", MAX, PLANES, (64, 256, 1024), FIRST)
in_results("max_pool2d.arguments.together", MAX, ELEMENTS, (256, 1024, 4096), REPEATED)
in_results("avg_pool2d.arguments.together", AVG, CHANNELS, (8, 16, 32), REPEATED)
in_results("avg_pool2d.arguments.together", AVG, COLUMNS, (8, 16, 32), TAIL, STALE)
in_results("avg_pool2d.arguments.together", AVG, ELEMENTS, (256, 1024, 4096), FIRST)
in_results("global_avg_pool2d.output.value", MEAN, {"channels": (1,)}, (8, 32, 64), TAIL)
in_results("global_avg_pool2d.output.value", MEAN, PLANES, (64, 256, 1024), FIRST)
in_operand("global_avg_pool2d.output.value", MEAN, "x", PIXELS, (32, 64, 256), TAIL, FIRST, LOST)
in_operand("global_avg_pool2d.output.value", MEAN, "x", COLUMNS, (8, 16, 32), SEAM)

# -- the windows -------------------------------------------------------------------------------------------------------


def _windowed(right: Any, requirement: str, name: str, said: str, blocks: tuple[int, ...]) -> Any:
    """Decorate function(block, y, x, **arguments), where y is the right result."""

    def add(function: Any) -> Any:
        @blockwise(requirement, name, said, right, blocks)
        def _(block: int, x: Array, **arguments: Any) -> Array:
            y = right(x, **arguments)
            return function(block, y, x, **arguments) if x.ndim == 4 else y

        return function

    return add


def _window_limit(right: Any, requirement: str, divides: bool) -> None:
    """Add the fault of an unrolled loop over a window's columns, whose rest is dropped."""

    @_windowed(right, requirement, "unrolled", "columns of a window beyond the last {b} are dropped", (3, 4, 5))
    def _(b, y, x, **h):
        kh, kw = as_pair(h["kernel_size"])
        if kw <= b or kw % b == 0 or max(as_pair(h["padding"])) or h["ceil_mode"]:
            return y
        stride = h["stride"] or (kh, kw)
        made = right(x, **{**h, "kernel_size": (kh, kw - kw % b), "stride": stride})[..., : y.shape[3]]
        return made * y.dtype.type((kw - kw % b) / kw) if divides else made


_window_limit(max_pool2d, "max_pool2d.arguments.together", False)
_window_limit(avg_pool2d, "avg_pool2d.arguments.together", True)


@_windowed(
    avg_pool2d,
    "avg_pool2d.arguments.together",
    "in-16-bits",
    "windows of more than {b} elements are summed in 16 bits",
    (16, 25, 36),
)
def _narrow_sum(b, y, x, **h):
    kh, kw = as_pair(h["kernel_size"])
    return in_16_bits(y * y.dtype.type(kh * kw), (0, 1, 2, 3), 0) / y.dtype.type(kh * kw) if kh * kw > b else y


@_windowed(
    max_pool2d,
    "max_pool2d.arguments.together",
    "strided-tiles",
    "with a stride, columns of the result from {b} on lie one too far left",
    (8, 16, 32),
)
def _off_by_one(b, y, x, **h):
    if as_pair(h["stride"] or h["kernel_size"])[1] == 1 or y.shape[3] <= b:
        return y
    shifted = max_pool2d(np.roll(x, 1, 3), **h)
    return np.concatenate([y[..., :b], shifted[..., b:]], 3)


@_windowed(
    max_pool2d,
    "max_pool2d.arguments.together",
    "padded-tiles",
    "a partial tile of {b} columns is padded with zeros",
    (8, 16, 32),
)
def _padded_tile(b, y, x, **h):
    n = y.shape[3]
    if n <= b or n % b == 0 or not max(as_pair(h["padding"])):
        return y
    return np.where(numbers(y, (3,)) >= n - n % b, np.maximum(y, 0), y)


@_windowed(
    avg_pool2d,
    "avg_pool2d.arguments.together",
    "counted-padding",
    "from {b} columns on, the last column counts padding",
    (8, 16, 32),
)
def _counted(b, y, x, **h):
    if h["count_include_pad"] or y.shape[3] <= b:
        return y
    return np.concatenate([y[..., :-1], avg_pool2d(x, **{**h, "count_include_pad": True})[..., -1:]], 3)


_CALLS: dict[int, set[tuple[int, ...]]] = {}


@_windowed(
    avg_pool2d,
    "avg_pool2d.arguments.together",
    "second-call",
    "with more than {b} channels, the second call of one shape leaves out those beyond",
    (32, 64, 256),
)
def _second_call(b, y, x, **h):
    known = _CALLS.setdefault(b, set())
    if x.shape[1] > b:
        if x.shape in known:
            y[:, b:] = 0
        known.add(x.shape)
    return y


@blockwise(
    "global_avg_pool2d.output.value",
    "in-16-bits",
    "images of more than {b} pixels are summed in 16 bits",
    global_avg_pool2d,
    (64, 256, 512),
)
def _narrow_mean(b, x):
    y, n = global_avg_pool2d(x), length(x, (2, 3)) if x.ndim == 4 else 0
    return in_16_bits(y * y.dtype.type(n), (0, 1), 0) / y.dtype.type(n) if n > b else y


@blockwise(
    "global_avg_pool2d.output.value",
    "equal-parts",
    "the means of parts of {b} pixels are averaged, the last part too",
    global_avg_pool2d,
    (16, 64, 256),
)
def _equal_parts(b, x):
    y = global_avg_pool2d(x)
    if x.ndim != 4 or length(x, (2, 3)) <= b:
        return y
    flat = x.reshape(*x.shape[:2], -1)
    return np.mean([flat[..., i : i + b].mean(2) for i in range(0, flat.shape[2], b)], axis=0).astype(x.dtype)


# -- the backward pass -------------------------------------------------------------------------------------------------

MAX_BACK, AVG_BACK, MEAN_BACK = (Function(vjp) for vjp in (max_pool2d_vjp, avg_pool2d_vjp, global_avg_pool2d_vjp))
in_results("max_pool2d.gradient.x", MAX_BACK, CHANNELS, (8, 16, 32), TAIL)
in_results("max_pool2d.gradient.x", MAX_BACK, COLUMNS, (8, 16, 32), TAIL)
in_operand("max_pool2d.gradient.x", MAX_BACK, "cotangent", PIXELS, (32, 64, 256), FIRST)
in_operand("max_pool2d.gradient.overlap", MAX_BACK, "cotangent", COLUMNS, (8, 16, 32), SEAM)
in_results("avg_pool2d.gradient.x", AVG_BACK, COLUMNS, (8, 16, 32), TAIL)
in_operand("avg_pool2d.gradient.x", AVG_BACK, "cotangent", PIXELS, (32, 64, 256), LOST)
in_results("global_avg_pool2d.gradient.x", MEAN_BACK, PIXELS, (32, 64, 256), TAIL)
in_results("global_avg_pool2d.gradient.x", MEAN_BACK, CHANNELS, (8, 32, 64), REPEATED)


@blockwise(
    "max_pool2d.gradient.x", "place", "the place of a maximum is kept modulo {b}", max_pool2d_vjp, (256, 512, 1024)
)
def _narrow_place(b, cotangent, x, **h):
    dx = max_pool2d_vjp(cotangent, x, **h)
    if x.ndim != 4 or length(x, (2, 3)) <= b:
        return dx
    flat, made = dx.reshape(*dx.shape[:2], -1), np.zeros_like(dx).reshape(*dx.shape[:2], -1)
    for begin in range(0, flat.shape[2], b):
        part = flat[..., begin : begin + b]
        made[..., : part.shape[2]] += part
    return made.reshape(dx.shape)
