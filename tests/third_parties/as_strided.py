"""NumPy: views of memory in which every window is an array, made of strides (`as_strided`), and reductions over them.

The way back through the pools adds to a flat image by index; which index, the same view of the numbers 0, 1, 2, … says.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"x {x.shape}, weight {weight.shape}")
    o, c, *kernel = weight.shape
    if groups < 1 or o % groups or x.shape[1] != groups * c or (bias is not None and bias.shape != (o,)):
        raise ValueError(f"x {x.shape}, weight {weight.shape}, {groups=} and bias do not go together")
    seen = windows(bordered(x, pair(padding, 0), (0, 0), 0), kernel, pair(stride), pair(dilation))
    pieces = zip(np.split(seen, groups, 1), np.split(weight, groups), strict=True)
    y = np.concatenate([np.tensordot(s, w, ([1, 4, 5], [1, 2, 3])) for s, w in pieces], 3).transpose(0, 3, 1, 2)
    return y if bias is None else y + bias[:, None, None]


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    kernel, stride, padding, dilation, more, _ = pooling(x, kernel_size, stride, padding, dilation, ceil_mode)
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return windows(bordered(x, padding, more, least), kernel, stride, dilation).max((4, 5))


def max_pool2d_vjp(cotangent, x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Each window's cotangent goes to the first of its largest elements."""
    kernel, stride, padding, dilation, more, _ = pooling(x, kernel_size, stride, padding, dilation, ceil_mode)
    image = bordered(x, padding, more, -np.inf)
    seen = windows(image, kernel, stride, dilation).reshape(*cotangent.shape, kernel[0] * kernel[1])
    places = windows(np.arange(image.size).reshape(image.shape), kernel, stride, dilation).reshape(seen.shape)
    chosen = np.take_along_axis(places, seen.argmax(4)[..., None], 4)[..., 0]
    return without_border(added(cotangent, chosen, image), x, padding)


def avg_pool2d(
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    kernel, stride, padding, _, more, size = pooling(x, kernel_size, stride, padding, 1, ceil_mode)
    divisor = counts(x, kernel, stride, padding, size, count_include_pad, divisor_override)
    return windows(bordered(x, padding, more, 0), kernel, stride, (1, 1)).sum((4, 5)) / divisor


def avg_pool2d_vjp(
    cotangent, x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """Each window's cotangent is shared out to all of its elements."""
    kernel, stride, padding, _, more, size = pooling(x, kernel_size, stride, padding, 1, ceil_mode)
    share = cotangent / counts(x, kernel, stride, padding, size, count_include_pad, divisor_override)
    image = bordered(x, padding, more, 0)
    places = windows(np.arange(image.size).reshape(image.shape), kernel, stride, (1, 1))
    return without_border(added(np.broadcast_to(share[..., None, None], places.shape), places, image), x, padding)


def windows(x, kernel, stride, dilation):
    """(N, C, H, W) -> a view (N, C, OH, OW, KH, KW), as many windows as fit."""
    (n, c, *size), (sn, sc, *steps) = x.shape, x.strides
    fitting = [(m - d * (k - 1) - 1) // s + 1 for m, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    if min(fitting) < 1:
        raise ValueError(f"windows of {kernel} do not fit into {size}")
    apart = [step * s for step, s in zip(steps, stride, strict=True)]
    within = [step * d for step, d in zip(steps, dilation, strict=True)]
    return as_strided(x, (n, c, *fitting, *kernel), (sn, sc, *apart, *within), writeable=False)


def bordered(x, padding, more, value):
    """A border of one value, with `more` rows and columns behind it; what would be cut off is at the far end too."""
    sides = ((p, p + max(m, 0)) for p, m in zip(padding, more, strict=True))
    image = np.pad(x, ((0, 0), (0, 0), *sides), constant_values=value)
    return image[:, :, : image.shape[2] + min(more[0], 0), : image.shape[3] + min(more[1], 0)]


def pooling(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Pairs; how many rows and columns the windows reach beyond the padding; how many windows there are."""
    kernel = pair(kernel_size)
    stride = kernel if stride is None else pair(stride)
    padding, dilation, more, size = pair(padding, 0), pair(dilation), [], []
    if x.ndim != 4 or padding[0] > kernel[0] // 2 or padding[1] > kernel[1] // 2:
        raise ValueError(f"x {x.shape}, {kernel=}, {padding=}")
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        size.append(count)
        more.append((count - 1) * s - room)
    return kernel, stride, padding, dilation, more, size


def counts(x, kernel, stride, padding, size, count_include_pad, divisor_override):
    """What the sum of each window is divided by."""
    if divisor_override is not None:
        if divisor_override == 0:
            raise ValueError("divisor_override is 0")
        return x.dtype.type(divisor_override)
    along = []
    for n, k, s, p, windows in zip(x.shape[2:], kernel, stride, padding, size, strict=True):
        border = p if count_include_pad else 0
        begins = np.arange(windows) * s - p
        along.append(np.minimum(begins + k, n + border) - np.maximum(begins, -border))
    return np.multiply.outer(*along).astype(x.dtype)


def added(shares, places, image):
    """An image like the other of sums of what goes to each place."""
    flat = np.zeros(image.size, image.dtype)
    np.add.at(flat, places.ravel(), shares.ravel())
    return flat.reshape(image.shape)


def without_border(padded, x, padding):
    """What lies in the image; rows and columns that no window reached get zeros."""
    dx, (top, left) = np.zeros(x.shape, x.dtype), padding
    inside = padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    dx[:, :, : inside.shape[2], : inside.shape[3]] = inside
    return dx


def pair(value, least=1):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    if rows < least or columns < least:
        raise ValueError(f"{value}: expected at least {least}")
    return rows, columns
