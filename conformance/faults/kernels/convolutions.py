"""Mistakes in kernels of convolutions and of transposed convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from nnspec.conformance.case import Array, as_pair
from nnspec.conformance.faults.kernels import (
    CLAMPED,
    FIRST,
    KEPT_SUM,
    LAST_OF_ALL,
    LOST,
    REPEATED,
    SEAM,
    SHIFTED,
    SHORT,
    STALE,
    SWAPPED,
    TAIL,
    TWICE,
    Function,
    blockwise,
    in_16_bits,
    in_operand,
    in_results,
    numbers,
    taken,
)
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.conv_transpose2d import conv_transpose2d, conv_transpose2d_vjp
from nnspec.reference.windows import pad

IMAGES, CHANNELS, ROWS, COLUMNS = (
    {name: (axis,)} for axis, name in enumerate(("images", "channels", "rows", "columns"))
)
PIXELS, WINDOWS, PLANES, ELEMENTS = (
    {"pixels": (2, 3)},
    {"windows of the batch": (0, 2, 3)},
    {"channels of the batch": (0, 1)},
    {"elements": (0, 1, 2, 3)},
)
TERMS = {"terms": (1, 2, 3)}  # of the sum that an element of the result is
ROWS_ONLY, COLUMNS_ONLY = {"rows of the kernel": (2,)}, {"columns of the kernel": (3,)}

# -- convolutions: blocks of the result --------------------------------------------------------------------------------

VALUE, FORWARD = "conv2d.arguments.together", Function(conv2d)
in_results(VALUE, FORWARD, IMAGES, (4, 8, 16), TAIL, SWAPPED)
in_results(VALUE, FORWARD, CHANNELS, (8, 32, 64), TAIL, REPEATED)
in_results(VALUE, FORWARD, ROWS, (4, 8, 16), TAIL, SHORT)
in_results(VALUE, FORWARD, COLUMNS, (8, 16, 32, 64), TAIL, STALE)
in_results(VALUE, FORWARD, COLUMNS, (8, 16, 32), CLAMPED, LAST_OF_ALL)
in_results(VALUE, FORWARD, PIXELS, (64, 128, 256), FIRST, SHIFTED)
in_results(VALUE, FORWARD, WINDOWS, (64, 256, 512), TAIL, KEPT_SUM)
in_results(VALUE, FORWARD, PLANES, (256, 1024, 65535), FIRST)  # the limit of a grid's axis; smaller ones emulate it
in_results(VALUE, FORWARD, ELEMENTS, (4096, 16384, 32768), REPEATED)  # an index of 12, 14 or 15 bits
in_operand(VALUE, FORWARD, "weight", {"input channels": (1,)}, (8, 16, 32), TAIL, FIRST)
in_operand(VALUE, FORWARD, "weight", TERMS, (32, 64, 128), TAIL, SHORT, TWICE, LOST, SEAM)
in_operand(VALUE, FORWARD, "weight", ROWS_ONLY, (3, 4, 5), TAIL)
in_operand(VALUE, FORWARD, "weight", COLUMNS_ONLY, (3, 4, 5), TAIL)
in_operand(VALUE, FORWARD, "bias", {"biases": (0,)}, (8, 32, 64), REPEATED)

# -- convolutions: the input, and special paths ------------------------------------------------------------------------


def _paths(requirement: str, name: str, said: str, blocks: tuple[int, ...]) -> Any:
    """Decorate function(block, x, weight, bias, **arguments), which is only called for images of four dimensions."""

    def add(function: Any) -> Any:
        @blockwise(requirement, name, said, conv2d, blocks)
        def _(block: int, x: Array, weight: Array, bias: Array | None, **arguments: Any) -> Array:
            y = conv2d(x, weight, bias, **arguments)
            if x.ndim != 4 or isinstance(arguments["padding"], str):
                return y
            return function(block, y, x, weight, bias, **arguments)

        return function

    return add


def _bare(x: Array, padding: Any) -> Array:
    """Return the image with its padding."""
    return pad(x, as_pair(padding))


@_paths(VALUE, "halo-columns", "tiles of {b} columns read nothing of the tile on their right", (8, 16, 32))
def _halo_columns(b, y, x, w, bias, *, padding, **h):
    x, step, n = _bare(x, padding), as_pair(h["stride"])[1] * b, y.shape[3]
    if w.shape[3] == 1 or n <= b:
        return y
    tiles = [
        conv2d(np.where(np.arange(x.shape[3]) < (t + 1) * step, x, x * 0), w, bias, **h) for t in range(-(-n // b))
    ]
    return np.concatenate([tile[..., t * b : (t + 1) * b] for t, tile in enumerate(tiles)], 3)


@_paths(VALUE, "halo-rows", "tiles of {b} rows read nothing of the tile below them", (4, 8, 16))
def _halo_rows(b, y, x, w, bias, *, padding, **h):
    x, step, n = _bare(x, padding), as_pair(h["stride"])[0] * b, y.shape[2]
    if w.shape[2] == 1 or n <= b:
        return y
    rows = np.arange(x.shape[2])[:, None]
    tiles = [conv2d(np.where(rows < (t + 1) * step, x, x * 0), w, bias, **h) for t in range(-(-n // b))]
    return np.concatenate([tile[:, :, t * b : (t + 1) * b] for t, tile in enumerate(tiles)], 2)


@_paths(
    VALUE,
    "row-end",
    "vectors of {b} columns read on into the next row where the image ends and padding begins",
    (4, 8, 16),
)
def _row_end(b, y, x, w, bias, *, padding, **h):
    (ph, pw), width = as_pair(padding), x.shape[3]
    read = min(pw, -width % b, width)
    if not read or width < b:
        return y
    whole = _bare(x, padding)
    whole[:, :, ph : ph + x.shape[2] - 1, pw + width : pw + width + read] = x[:, :, 1:, :read]
    return conv2d(whole, w, bias, padding=0, **h)


@_paths(VALUE, "pitch", "rows of more than {b} columns are thought to begin at multiples of {b} elements", (8, 16, 32))
def _pitch(b, y, x, w, bias, **h):
    *_, rows, width = x.shape
    if width <= b or rows == 1:
        return y
    places = np.arange(rows)[:, None] * (width // b * b) + np.arange(width)
    return conv2d(taken(x, (2, 3), places.ravel()), w, bias, **h)


def _plain(w: Array, h: dict[str, Any]) -> bool:
    """Whether the kernel is one of 3×3 with stride 1, no dilation and no groups."""
    return w.shape[2:] == (3, 3) and as_pair(h["stride"]) == as_pair(h["dilation"]) == (1, 1) and h["groups"] == 1


@_paths(
    VALUE, "winograd-odd-row", "Winograd's pairs of rows, from {b} channels on, leave out an odd last row", (8, 16, 32)
)
def _winograd_row(b, y, x, w, bias, **h):
    if _plain(w, h) and w.shape[1] >= b and y.shape[2] % 2:
        y[:, :, -1] = 0
    return y


@_paths(
    VALUE,
    "winograd-tile",
    "Winograd's tiles of 4 columns, from {b} channels on, read no column of a partial tile",
    (4, 8, 16),
)
def _winograd_tile(b, y, x, w, bias, *, padding, **h):
    over = y.shape[3] % 4
    if not _plain(w, h) or w.shape[1] < b or not over:
        return y
    x = _bare(x, padding)
    cut = np.where(np.arange(x.shape[3]) < x.shape[3] - over, x, x * 0)
    return np.concatenate([y[..., :-over], conv2d(cut, w, bias, **h)[..., -over:]], 3)


@_paths(
    VALUE,
    "winograd-padding",
    "Winograd's path, from {b} channels on, has no padding at the far end",
    (8, 16, 32),
)
def _winograd_padding(b, y, x, w, bias, **h):
    if _plain(w, h) and w.shape[1] >= b and min(as_pair(h["padding"])):
        y[:, :, -1] = 0
    return y


@_paths(
    VALUE,
    "pointwise",
    "the fast path for 1×1 kernels, from {b} channels on, knows no stride",
    (4, 8, 16),
)
def _pointwise(b, y, x, w, bias, *, padding, stride, **h):
    if w.shape[2:] != (1, 1) or w.shape[1] < b:
        return y
    return conv2d(_bare(x, padding), w, bias, **h)[:, :, : y.shape[2], : y.shape[3]]


@_paths(
    VALUE,
    "dense",
    "where one window covers the image, from {b} channels on, the kernel is read channels last",
    (4, 8, 16),
)
def _dense(b, y, x, w, bias, **h):
    if y.shape[2:] != (1, 1) or w.shape[1] < b:
        return y
    return conv2d(x, w.transpose(0, 2, 3, 1).reshape(w.shape), bias, **h)


@_paths(
    VALUE, "transposed-kernel", "with a multiple of {b} channels, square kernels are read column by column", (8, 16, 32)
)
def _transposed_kernel(b, y, x, w, bias, **h):
    return y if w.shape[1] % b or w.shape[2] != w.shape[3] else conv2d(x, w.swapaxes(2, 3), bias, **h)


@_paths(
    VALUE,
    "multiplier",
    "a depthwise kernel with a multiplier, from {b} channels on, gives its outputs to channels in turn",
    (4, 8, 16),
)
def _multiplier(b, y, x, w, bias, **h):
    groups, outputs = h["groups"], len(w) // h["groups"]
    if groups < b or w.shape[1] != 1 or outputs == 1:
        return y
    seen = x[:, np.arange(len(w)) % groups]  # channel o % C in place of o // multiplier
    return conv2d(seen, w, bias, **{**h, "groups": len(w)})


@_paths(VALUE, "groups", "groups beyond the first {b} read the channels of the first", (4, 8, 16))
def _many_groups(b, y, x, w, bias, **h):
    if h["groups"] <= b:
        return y
    i = np.arange(x.shape[1])
    return conv2d(x[:, i // w.shape[1] % b * w.shape[1] + i % w.shape[1]], w, bias, **h)


@_paths(VALUE, "groups-lost", "all groups but the first {b} are left out", (4, 8, 16))
def _lost_groups(b, y, x, w, bias, **h):
    kept = np.arange(len(w)) // (len(w) // h["groups"]) < b
    return np.where(kept[:, None, None], y, y * 0)


@_paths(VALUE, "packed-padding", "a padding of {b} or more is taken for 0", (3, 4, 5))
def _packed_padding(b, y, x, w, bias, *, padding, **h):
    if max(as_pair(padding)) < b or as_pair(h["stride"]) != (1, 1):
        return y
    made = np.zeros_like(y)
    inside = [
        slice(p if p >= b else 0, n - p if p >= b else n) for p, n in zip(as_pair(padding), y.shape[2:], strict=True)
    ]
    made[:, :, inside[0], inside[1]] = y[:, :, inside[0], inside[1]]
    return made


@_paths(VALUE, "packed-dilation", "a dilation of {b} or more is taken for 1", (4, 5, 6))
def _packed_dilation(b, y, x, w, bias, **h):
    dilation = tuple(d if d < b else 1 for d in as_pair(h["dilation"]))
    return conv2d(x, w, bias, **{**h, "dilation": dilation})[:, :, : y.shape[2], : y.shape[3]]


@_paths(
    VALUE,
    "phases",
    "with dilation, from {b} rows of the result on, the last row is left out",
    (4, 8, 16),
)
def _phases(b, y, x, w, bias, **h):
    rows = as_pair(h["dilation"])[0]
    if rows > 1 and y.shape[2] >= b and y.shape[2] % rows:
        y[:, :, -1] = 0
    return y


@_paths(VALUE, "even-odd", "with a stride of 2, columns beyond {b} are read one further left", (8, 16, 32))
def _even_odd(b, y, x, w, bias, *, padding, **h):
    if as_pair(h["stride"])[1] != 2:
        return y
    left = np.roll(_bare(x, padding), 1, 3)
    return np.concatenate([y[..., :b], conv2d(left, w, bias, **h)[..., b:]], 3)


@_paths(VALUE, "limit", "from {b} rows or columns of the result on, a stride above 3 is taken for 3", (2, 4, 8))
def _stride_limit(b, y, x, w, bias, **h):
    if max(y.shape[2:]) < b:
        return y
    stride = tuple(min(s, 3) for s in as_pair(h["stride"]))
    return conv2d(x, w, bias, **{**h, "stride": stride})[:, :, : y.shape[2], : y.shape[3]]


@_paths(VALUE, "in-16-bits", "sums of more than {b} terms are kept in 16 bits", (64, 256, 512))
def _in_16_bits(b, y, x, w, bias, **h):
    return in_16_bits(y, (0, 1, 2, 3), 0) if w[0].size > b else y


@_paths(
    VALUE,
    "scratch",
    "from {b} images on, the last row is that of the image {b} before, whose thread wrote it last",
    (4, 8, 16),
)
def _scratch(b, y, x, w, bias, **h):
    if len(y) > b:
        y[b:, :, -1] = y[:-b, :, -1].copy()
    return y


@_paths(
    VALUE,
    "fused-stride-groups",
    "groups of {b} channels or more with a stride start at pixel 1",
    (4, 8, 16),
)
def _fused(b, y, x, w, bias, *, padding, **h):
    if w.shape[1] < b or h["groups"] == 1 or max(as_pair(h["stride"])) == 1:
        return y
    return conv2d(np.roll(_bare(x, padding), -1, 3), w, bias, **h)


@_paths(VALUE, "aligned", "with a multiple of {b} columns, the last vector is stored one column short", (8, 16, 32))
def _aligned(b, y, x, w, bias, **h):
    if y.shape[3] % b == 0:
        y[..., -1] = 0
    return y


@_paths(VALUE, "edge-tile", "tiles of {b} columns at the right edge forget the bias", (8, 16, 32))
def _edge_tile(b, y, x, w, bias, **h):
    if bias is None or y.shape[3] <= b:
        return y
    behind = numbers(y, (3,)) >= y.shape[3] - y.shape[3] % b
    return np.where(behind, conv2d(x, w, None, **h), y)


def _misaligned(a: Array, block: int) -> bool:
    return a.ctypes.data % (block * a.itemsize) != 0 and bool(a.flags.c_contiguous)


@_paths(
    "conv2d.input.layout",
    "misaligned",
    "an image that begins between vectors of {b} elements is read from the vector's first element",
    (2, 4, 8),
)
def _unaligned(b, y, x, w, bias, **h):
    if not _misaligned(x, b) or x.size <= b:
        return y
    off = x.ctypes.data // x.itemsize % b
    return conv2d(np.roll(x.ravel(), off).reshape(x.shape), w, bias, **h)


_RESULTS: dict[tuple[int, Any], Array] = {}


@_paths(
    VALUE,
    "workspace",
    "a workspace for more than {b} elements still holds the sum of the last call",
    (64, 256, 1024),
)
def _workspace(b, y, x, w, bias, **h):
    if y.size <= b:
        return y
    before = _RESULTS.get((b, y.dtype))
    _RESULTS[b, y.dtype] = y
    return y if before is None or before.shape != y.shape else y + before


@blockwise(
    "conv2d.special.value", "saturated", "sums of {b} terms or more end at the largest number", conv2d, (2, 3, 4)
)
def _saturated(b, x, weight, bias, **h):
    y = conv2d(x, weight, bias, **h)
    limit = np.finfo(y.dtype).max
    return np.where(np.isinf(y), np.copysign(limit, y), y) if weight[0].size >= b else y


# -- convolutions: the backward pass -----------------------------------------------------------------------------------

BY_X, BY_WEIGHT, BY_BIAS = (Function(conv2d_vjp, part) for part in range(3))
in_results("conv2d.gradient.x", BY_X, CHANNELS, (8, 16, 32), TAIL)
in_results("conv2d.gradient.x", BY_X, COLUMNS, (8, 16, 32), TAIL)
in_results("conv2d.gradient.x", BY_X, PIXELS, (64, 128, 256), TAIL)
in_operand("conv2d.gradient.x", BY_X, "cotangent", {"output channels": (1,)}, (8, 16, 32), TAIL)
in_operand("conv2d.gradient.x", BY_X, "cotangent", {"columns of the cotangent": (3,)}, (8, 16, 32), SEAM)
in_results("conv2d.gradient.weight", BY_WEIGHT, {"output channels": (0,)}, (8, 16, 32), STALE)
in_results("conv2d.gradient.weight", BY_WEIGHT, TERMS, (32, 64, 128), TAIL)
in_operand("conv2d.gradient.weight", BY_WEIGHT, "cotangent", IMAGES, (4, 8, 16), LOST)
in_operand("conv2d.gradient.weight", BY_WEIGHT, "cotangent", WINDOWS, (64, 256, 1024), TAIL, FIRST)
in_operand("conv2d.gradient.bias", BY_BIAS, "cotangent", WINDOWS, (64, 128, 256), FIRST, LOST)
in_results("conv2d.gradient.bias", BY_BIAS, {"biases": (0,)}, (8, 32, 64), TAIL)


@blockwise(
    "conv2d.gradient.x",
    "tiles",
    "tiles of {b} columns drop what they would add to the tile on their right",
    conv2d_vjp,
    (8, 16, 32),
)
def _tiles(b, cotangent, x, weight, bias, **h):
    dx, dw, db = conv2d_vjp(cotangent, x, weight, bias, **h)
    n = cotangent.shape[-1]
    if isinstance(h["padding"], str) or n <= b or x.ndim != 4 or weight.shape[3] == 1:
        return dx, dw, db
    (_, step), (_, border), made = as_pair(h["stride"]), as_pair(h["padding"]), np.zeros_like(dx)
    i, j = np.arange(n), np.arange(x.shape[3])
    for t in range(-(-n // b)):
        own = np.where(i // b == t, cotangent, cotangent * 0)
        made += np.where(j < (t + 1) * b * step - border, conv2d_vjp(own, x, weight, bias, **h)[0], dx * 0)
    return made, dw, db


# -- transposed convolutions -------------------------------------------------------------------------------------------

TURNED, BACK = "conv_transpose2d.arguments.together", Function(conv_transpose2d)
in_results(TURNED, BACK, CHANNELS, (8, 16, 32), TAIL)
in_results(TURNED, BACK, COLUMNS, (8, 16, 32), TAIL, SHIFTED)
in_results(TURNED, BACK, PIXELS, (64, 128, 256), FIRST)
in_results(TURNED, BACK, ELEMENTS, (4096, 16384, 32768), REPEATED)
in_operand(TURNED, BACK, "x", {"input channels": (1,)}, (8, 16, 32), TAIL, SHORT)
in_operand(TURNED, BACK, "x", {"pixels of the input": (2, 3)}, (64, 128, 256), SEAM)
in_operand(TURNED, BACK, "weight", COLUMNS_ONLY, (2, 3, 4), TAIL)
in_operand(TURNED, BACK, "bias", {"biases": (0,)}, (8, 16, 32), REPEATED)
TURNED_X, TURNED_WEIGHT, TURNED_BIAS = (Function(conv_transpose2d_vjp, part) for part in range(3))
in_results("conv_transpose2d.gradient.x", TURNED_X, CHANNELS, (8, 16, 32), TAIL)
in_operand("conv_transpose2d.gradient.x", TURNED_X, "cotangent", {"output channels": (1,)}, (8, 16, 32), TAIL)
in_operand("conv_transpose2d.gradient.weight", TURNED_WEIGHT, "cotangent", PIXELS, (64, 128, 256), FIRST)
in_operand("conv_transpose2d.gradient.weight", TURNED_WEIGHT, "cotangent", IMAGES, (4, 8, 16), TAIL)
in_operand("conv_transpose2d.gradient.bias", TURNED_BIAS, "cotangent", WINDOWS, (64, 128, 256), LOST)


def _turned(requirement: str, name: str, said: str, blocks: tuple[int, ...]) -> Any:
    """Decorate function(block, y, x, weight, **arguments), where y is the right result."""

    def add(function: Any) -> Any:
        @blockwise(requirement, name, said, conv_transpose2d, blocks)
        def _(block: int, x: Array, weight: Array, bias: Array | None, **arguments: Any) -> Array:
            y = conv_transpose2d(x, weight, bias, **arguments)
            return function(block, y, x, weight, **arguments) if x.ndim == 4 else y

        return function

    return add


@_turned(
    TURNED,
    "sub-pixel",
    "with kernels of {b} and a stride the result lies one column left",
    (4, 5, 8),
)
def _sub_pixel(b, y, x, w, **h):
    return np.roll(y, -1, 3) if w.shape[3] == b and as_pair(h["stride"])[1] > 1 else y


@_turned(
    TURNED,
    "phases",
    "with a stride, from {b} columns of the input on, the last column is left out",
    (8, 16, 32),
)
def _last_phase(b, y, x, w, **h):
    if as_pair(h["stride"])[1] > 1 and x.shape[3] > b:
        y[..., -1] = 0
    return y


@_turned(TURNED, "groups", "all groups but the first {b} are left out", (4, 8, 16))
def _turned_groups(b, y, x, w, **h):
    return np.where((np.arange(y.shape[1]) // w.shape[1] < b)[:, None, None], y, y * 0)


@_turned(
    TURNED,
    "tiles",
    "tiles of {b} columns of the input overwrite what the tile on their left added to them",
    (8, 16, 32),
)
def _overwritten(b, y, x, w, **h):
    if x.shape[3] <= b:
        return y
    (_, step), (_, border) = as_pair(h["stride"]), as_pair(h["padding"])
    columns, i, made = np.arange(x.shape[3]), np.arange(y.shape[3]), y
    for t in range(1, -(-x.shape[3] // b)):
        begin = t * b * step - border
        reach = (w.shape[3] - 1) * as_pair(h["dilation"])[1]
        own = conv_transpose2d(np.where(columns >= t * b, x, x * 0), w, **h)
        made = np.where((i >= begin) & (i < begin + reach), own, made)
    return made
