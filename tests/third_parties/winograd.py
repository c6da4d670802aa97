"""NumPy: convolution by Winograd's F(2×2, 3×3), for kernels of 3×3 without stride, dilation and groups.

A tile of 4×4 pixels gives four outputs with 16 products in place of 36. Its sums are as large as the largest pixels of
the tile, and cancel: hence class C. One infinity or NaN is everywhere in its tile. Other convolutions are direct.
"""

from __future__ import annotations

import numpy as np
from nnspec.adapters import Unsupported

ACCURACY = ("C",)
_INFINITE = "a tile sums over its 16 pixels, so one infinity or NaN would be in all of its outputs"
UNSUPPORTED = {
    "conv2d.special.value": _INFINITE,
    "conv2d.range.ends": "a sum over a tile may be infinite where no product is, and zero where one is subnormal",
}

OF_IMAGE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
OF_KERNEL = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])  # twice what Winograd has
OF_RESULT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    strides, borders, gaps = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    if x.ndim != 4 or weight.ndim != 4 or groups < 1 or len(weight) % groups or x.shape[1] != groups * weight.shape[1]:
        raise ValueError(f"x {x.shape}, weight {weight.shape}, {groups=}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {weight.shape}, bias {bias.shape}")
    image = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in borders)))
    spans = [d * (k - 1) + 1 for d, k in zip(gaps, weight.shape[2:], strict=True)]
    if any(s > n for s, n in zip(spans, image.shape[2:], strict=True)):
        raise ValueError(f"a kernel that spans {spans} in an image of {image.shape[2:]}")
    fast = weight.shape[2:] == (3, 3) and strides == gaps == (1, 1) and groups == 1
    y = in_tiles(image, weight) if fast else direct(image, weight, strides, gaps, groups)
    return y if bias is None else y + bias[:, None, None]


def in_tiles(image, weight):
    """The result of 3×3 kernels, two rows and two columns at a time; one too many is cut off."""
    if not np.isfinite(image).all() or not np.isfinite(weight).all():
        raise Unsupported(_INFINITE)
    n, c, h, w = image.shape
    rows, columns = (h - 1) // 2, (w - 1) // 2  # tiles, of which the last may be partial
    whole = np.zeros((n, c, 2 * rows + 2, 2 * columns + 2), image.dtype)
    whole[:, :, :h, :w] = image
    tiles = np.lib.stride_tricks.sliding_window_view(whole, (4, 4), (2, 3))[:, :, ::2, ::2]
    of_image = transformed(OF_IMAGE, tiles)  # (N, C, tiles, tiles, 4, 4)
    of_kernel = transformed(OF_KERNEL, weight)  # (O, C, 4, 4)
    products = np.einsum("ncrsij,ocij->norsij", of_image, of_kernel)
    y = transformed(OF_RESULT, products).transpose(0, 1, 2, 4, 3, 5) / image.dtype.type(4)
    return y.reshape(n, len(weight), 2 * rows, 2 * columns)[:, :, : h - 2, : w - 2].copy()


def transformed(matrix, a):
    """The matrix times the last two axes times its transpose."""
    matrix = matrix.astype(a.dtype)
    return matrix @ a @ matrix.T


def direct(image, weight, strides, gaps, groups):
    """The result of any kernel, one kernel element after the other."""
    (n, _, h, w), (o, c, kh, kw), (sh, sw), (dh, dw) = image.shape, weight.shape, strides, gaps
    rows, columns = h - dh * (kh - 1), w - dw * (kw - 1)
    y = np.zeros((n, groups, o // groups, -(-rows // sh), -(-columns // sw)), image.dtype)
    for i, j in np.ndindex(kh, kw):
        part = image[:, :, i * dh : i * dh + rows : sh, j * dw : j * dw + columns : sw]
        part = part.reshape(n, groups, c, *part.shape[2:])
        y += np.einsum("goc,ngcrs->ngors", weight[:, :, i, j].reshape(groups, o // groups, c), part)
    return y.reshape(n, o, *y.shape[3:])


def pair(value, least):
    """(rows, columns)"""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or min(both) < least:
        raise ValueError(f"{value}: expected a number, or a pair, of at least {least}")
    return both
