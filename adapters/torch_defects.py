"""The calls that torch 2.13 gets wrong on a CPU in a way that reaches beyond their result.

They end the process, read or write foreign memory, or raise for a layout that is like any other. nnspec does not make
them, and says how many cases that concerns: see `known_defect` in contract.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nnspec.adapters.signatures import cotangents

Arrays = Mapping[str, np.ndarray | None]
# Where a block with a convolution has its kernel, its stride and its padding.
CONVOLUTIONS = {
    "conv2d": ("weight", "stride", "padding"),
    "fused": ("conv2d_weight", "conv2d_stride", "conv2d_padding"),
    "basic_block": ("downsample.0.weight", "stride", ""),
}


def defect(stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> str | None:
    """Name the defect that a call meets; None for a call that can be made."""
    if stem == "conv2d" and _aborts(arrays, arguments):
        where = "channels last, a kernel one column wide, dilated, all of its windows in the padding"
        return f"oneDNN ends the process ({where})"
    if stem in CONVOLUTIONS and cotangents(arrays) and _overruns(*_convolution(stem, arrays, arguments)):
        where = "x or weight not contiguous, float32, one kernel element, a stride that divides the image's sides"
        return f"oneDNN writes beyond its memory in the gradient for a convolution's weight ({where})"
    if stem == "conv_transpose2d" and cotangents(arrays) and _weight_is_ambiguous(arrays):
        return "the gradient for weight raises (x is channels last, and so is weight, but for an axis of size 1)"
    if stem == "max_pool2d" and _outgrows_its_index(arrays.get("x")):
        where = "x channels last, integers of n bits, a channel of 2^(n - 1) elements or more"
        return f"the maximum of each window raises ({where})"
    weight = arrays.get("batch_norm_weight") if stem == "fused" else None
    if weight is not None and not _is_packed(weight):
        return "the gradient of batch norm reads between the elements of a strided weight, where x is channels last"
    return None


def _aborts(arrays: Arrays, arguments: Mapping[str, Any]) -> bool:
    """Return whether oneDNN reads from address 0 in a convolution."""
    x, weight, bias = (arrays.get(name) for name in ("x", "weight", "bias"))
    if x is None or weight is None or (_is_packed(x) and _is_packed(weight)) or (bias is None and x.itemsize > 2):
        return False
    given = [arguments.get(name, neutral) for name, neutral in (("stride", 1), ("padding", 0), ("dilation", 1))]
    if any(isinstance(value, str) or np.size(value) > 2 for value in given):  # no padding here, or refused
        return False
    stride, padding, dilation = (np.broadcast_to(value, 2)[1] for value in given)
    columns, kernel_columns = x.shape[-1], weight.shape[-1]
    windows = np.arange(-padding, columns + padding, stride)
    return bool(kernel_columns == 1 and dilation >= 2 and not np.any((windows >= 0) & (windows < columns)))


def _convolution(stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return x and the weight, stride and padding of a block's convolution; None for a weight that is not there."""
    weight, stride, padding = CONVOLUTIONS[stem]
    return arrays.get("x"), arrays.get(weight), arguments.get(stride, 1), arguments.get(padding, 0)


def _overruns(x: np.ndarray | None, weight: np.ndarray | None, stride: Any, padding: Any) -> bool:
    """Return whether oneDNN copies the elements that the windows meet, to where there is no room for them."""
    if x is None or weight is None or x.ndim != 4 or x.dtype != np.float32 or weight.shape[2:] != (1, 1):
        return False
    if isinstance(padding, str) or np.any(padding) or np.size(stride) > 2 or (_is_packed(x) and _is_packed(weight)):
        return False
    rows, columns = np.broadcast_to(stride, 2)
    divides = x.shape[2] % max(1, rows) == 0 and x.shape[3] % max(1, columns) == 0
    return bool(x.shape[1] > 1 and max(rows, columns) > 1 and divides)


def _weight_is_ambiguous(arrays: Arrays) -> bool:
    """Return whether torch takes x for channels last and a weight for contiguous that is only channels last."""
    x, weight = arrays.get("x"), arrays.get("weight")
    if x is None or weight is None or x.ndim != 4 or weight.ndim != 4 or not _taken_for_channels_last(x):
        return False
    channels_last = weight.transpose(0, 2, 3, 1).flags.c_contiguous and not weight.flags.c_contiguous
    return channels_last and not _taken_for_channels_last(weight)


def _outgrows_its_index(x: np.ndarray | None) -> bool:
    """Return whether torch counts the elements of a channel in integers as wide as the elements, and runs out."""
    if x is None or x.ndim != 4 or x.dtype.kind not in "iu" or not _taken_for_channels_last(x):
        return False
    return x.shape[2] * x.shape[3] > np.iinfo(f"int{8 * x.itemsize}").max


def _taken_for_channels_last(a: np.ndarray) -> bool:
    """Return what torch's `suggest_memory_format` makes of an image's strides."""
    least = 0
    for axis in (1, 3, 2, 0):
        if not a.shape[axis] or a.strides[axis] < least or (axis == 0 and least == a.strides[1]):
            return False
        least = a.strides[axis] * max(1, a.shape[axis])
    return a.strides[1] > 0


def _is_packed(a: np.ndarray) -> bool:
    """Return whether an array has the strides of a packed one, also along axes of size 1."""
    return a.strides == np.empty_like(a, order="C", subok=False).strides
