"""PyTorch: every window becomes a column (unfold), and all columns at once go through one product or one reduction.

The way back is autograd's: a product, and the columns folded back into an image.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad, unfold


def linear(x, weight, bias=None):
    """(…, I), (O, I), (O,) -> (…, O)"""
    expect(x.ndim > 0 and weight.ndim == 2 and x.shape[-1] == weight.shape[1], "x (…, I) and weight (O, I)")
    expect(bias is None or bias.shape == weight.shape[:1], "one bias for each output feature")
    y = torch.matmul(x, weight.mT)
    return y if bias is None else y + bias


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    expect(x.ndim == weight.ndim == 4, "images and kernels of four dimensions")
    (n, c, *size), (o, cg, *kernel) = x.shape, weight.shape
    expect(groups > 0 and o % groups == 0 and c == cg * groups, f"{cg} channels for each of {groups} groups")
    expect(bias is None or bias.shape == (o,), "one bias for each output channel")
    stride, padding, dilation = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    oh, ow = (windows(*along) for along in zip(size, kernel, stride, padding, dilation, strict=True))
    taps = cg * kernel[0] * kernel[1]
    columns = unfold(x, kernel, dilation, padding, stride).reshape(n, groups, taps, oh * ow)
    y = torch.matmul(weight.reshape(groups, o // groups, taps), columns).reshape(n, o, oh, ow)
    return y if bias is None else y + bias[:, None, None]


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    columns, _ = pooled(x, kernel_size, stride, padding, dilation, ceil_mode, -torch.inf)
    return columns.max(2).values  # the first of equal ones; NaN before all


def avg_pool2d(
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    expect(divisor_override != 0, "a divisor other than 0")
    columns, counting = pooled(x, kernel_size, stride, padding, 1, ceil_mode, 0.0, count_include_pad)
    return columns.sum(2) / (counting.sum(2) if divisor_override is None else divisor_override)


def pooled(x, kernel_size, stride, padding, dilation, ceil_mode, border, count_include_pad=True):
    """The elements of each window, (N, C, KH·KW, OH, OW), and ones for those of them that an average counts."""
    expect(x.ndim == 4, "images of four dimensions")
    kernel = pair(kernel_size, 1)
    stride = kernel if stride is None else pair(stride, 1)
    padding, dilation = pair(padding, 0), pair(dilation, 1)
    expect(padding[0] <= kernel[0] // 2 and padding[1] <= kernel[1] // 2, "padding of at most half the window")
    out, more = [], []
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        count = windows(n, k, s, p, d, s - 1 if ceil_mode else 0)
        count -= ceil_mode and (count - 1) * s >= n + p  # that one would begin in the padding
        out.append(count)
        more.append(max(0, (count - 1) * s + d * (k - 1) + 1 - n - 2 * p))
    inside = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
    inside = around(around(inside, padding, (0, 0), float(count_include_pad)), (0, 0), more, 0.0)
    bordered = around(x, padding, more, border)
    return [columns_of(image, kernel, stride, dilation, out) for image in (bordered, inside)]


def columns_of(x, kernel, stride, dilation, out):
    """(N, C, H, W) -> (N, C, KH·KW, OH, OW); what is left over at the far end is left out."""
    rows, columns = ((o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(out, stride, dilation, kernel, strict=True))
    found = unfold(x[:, :, :rows, :columns], kernel, dilation, 0, stride)
    return found.reshape(*x.shape[:2], kernel[0] * kernel[1], *out)


def around(x, padding, more, value):
    """A border of one value; `more` rows and columns at the bottom and on the right."""
    (top, left), (below, right) = padding, more
    return pad(x, (left, left + right, top, top + below), value=value)


def windows(size, kernel, stride, padding, dilation, more=0):
    """How many fit along one axis."""
    room = size + 2 * padding + more - dilation * (kernel - 1) - 1
    expect(room >= 0, "a window no larger than the padded image")
    return room // stride + 1


def pair(value, least):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    expect(rows >= least and columns >= least, f"at least {least}, not {value}")
    return rows, columns


def expect(condition, what):
    """Refuse what does not fit."""
    if not condition:
        raise ValueError(f"expected {what}")
