"""PyTorch: blocks composed of other operations, and of few. Almost everything is `conv2d`, which is torch's own.

A transposed convolution is one of an image with zeros between its pixels; a linear layer has kernels of 1×1; a sum over
windows has kernels of ones. Batch norm is made of means, ReLU of a choice, a maximum of choices one after the other.
"""

from __future__ import annotations

from itertools import product
from math import prod

import torch
from torch.nn import functional


def relu(x):
    """`clamp(min=0)` would do for the values, but hands back the cotangent of a 0."""
    return torch.where(x <= 0, torch.zeros_like(x), x)


def linear(x, weight, bias=None):
    """(…, I), (O, I), (O,) -> (…, O): every vector is an image of one pixel."""
    expect(x.ndim > 0 and weight.ndim == 2 and x.shape[-1] == weight.shape[1], "x (…, I) and weight (O, I)")
    expect(bias is None or bias.shape == weight.shape[:1], "bias (O,)")
    leading, (o, i) = x.shape[:-1], weight.shape
    if i == 0 or o == 0:  # images without channels
        y = x.sum(-1, keepdim=True) + weight.sum(-1)
        return y if bias is None else y + bias
    y = functional.conv2d(x.reshape(prod(leading), i, 1, 1), weight[:, :, None, None], bias)
    return y.reshape(*leading, o)


def conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """(N, C, H, W), (C, O/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    expect(x.ndim == weight.ndim == 4 and x.shape[1] == len(weight), "x (N, C, H, W) and weight (C, O/groups, KH, KW)")
    (n, c, h, w), (_, o, kh, kw) = x.shape, weight.shape
    expect(groups > 0 and c % groups == 0, f"groups that divide {c}")
    expect(bias is None or bias.shape == (o * groups,), "one bias for each output channel")
    (sh, sw), (ph, pw), (dh, dw) = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    eh, ew = pair(output_padding, 0)
    expect(eh < max(sh, dh) and ew < max(sw, dw), "output_padding below stride or dilation")
    apart = x.new_zeros(n, c, (h - 1) * sh + 1, (w - 1) * sw + 1)
    apart[:, :, ::sh, ::sw] = x
    top, left = dh * (kh - 1) - ph, dw * (kw - 1) - pw
    size = apart.shape[2] + 2 * top + eh, apart.shape[3] + 2 * left + ew  # a negative border is cut off
    expect(size[0] > dh * (kh - 1) and size[1] > dw * (kw - 1), "an output of at least one row and one column")
    kernels = weight.flip(2, 3).reshape(groups, c // groups, o, kh, kw).transpose(1, 2)
    kernels = kernels.reshape(groups * o, c // groups, kh, kw)
    around = functional.pad(apart, (left, left + ew, top, top + eh))
    return functional.conv2d(around, kernels, bias, dilation=(dh, dw), groups=groups)


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    kernel, (sh, sw), padding, (dh, dw), more, (oh, ow) = pooling(x, kernel_size, stride, padding, dilation, ceil_mode)
    around, y = bordered(x, padding, more, -torch.inf), None
    for i, j in product(*map(range, kernel)):
        pixels = around[:, :, i * dh :: sh, j * dw :: sw][:, :, :oh, :ow]
        y = pixels.clone() if y is None else torch.where((pixels > y) | pixels.isnan(), pixels, y)
    return y


def avg_pool2d(
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    expect(divisor_override != 0, "another divisor than 0")
    kernel, step, padding, _, more, size = pooling(x, kernel_size, stride, padding, 1, ceil_mode)
    n, c, h, w = x.shape
    sums = window_sums(bordered(x.reshape(n * c, 1, h, w), padding, more, 0), kernel, step, size)
    if divisor_override is None:
        border = bordered(x.new_ones(1, 1, h, w), padding, (0, 0), float(count_include_pad))
        divisor_override = window_sums(bordered(border, (0, 0), more, 0), kernel, step, size)
    return (sums / divisor_override).reshape(n, c, *size)


def global_avg_pool2d(x):
    """(N, C, H, W) -> (N, C)"""
    expect(x.ndim == 4 and 0 not in x.shape[2:], "x (N, C, H, W) with at least one pixel")
    return x.mean((2, 3))


def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """x (N, C, …), all else (C,) -> y, and the running mean and variance after it"""
    expect(x.ndim > 1 and eps > 0, "x (N, C, …) and a positive eps")
    c, n = x.shape[1], x.numel() // max(x.shape[1], 1)
    expect(all(v is None or v.shape == (c,) for v in (running_mean, running_var, weight, bias)), f"vectors of {c}")
    expect(training or (running_mean is not None and running_var is not None), "running statistics")
    expect(not training or n != 1, "several values for each channel")
    along, axes, mean, var = (c, *[1] * (x.ndim - 2)), (0, *range(2, x.ndim)), running_mean, running_var
    if training and n:
        wide = x if running_mean is None else x.to(running_mean.dtype)
        mean = wide.mean(axes)
        var = (wide - mean.reshape(along)).square().mean(axes)
        if running_mean is not None:
            running_mean = torch.lerp(running_mean, mean.detach(), momentum)
            running_var = torch.lerp(running_var, var.detach() * (n / (n - 1)), momentum)
    elif training:
        mean, var = x.new_zeros(c), x.new_ones(c)
    y = (x - mean.reshape(along)) / (var + eps).sqrt().reshape(along)
    y = y if weight is None else y * weight.reshape(along)
    y = y if bias is None else y + bias.reshape(along)
    return y.to(x.dtype), *(v if v is None else v.clone() for v in (running_mean, running_var))


def pooling(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Pairs; rows and columns that windows reach beyond the padding; how many windows there are."""
    expect(x.ndim == 4, "x (N, C, H, W)")
    kernel = pair(kernel_size, 1)
    stride = kernel if stride is None else pair(stride, 1)
    padding, dilation, more, size = pair(padding, 0), pair(dilation, 1), [], []
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1 + (s - 1) * ceil_mode
        expect(room >= 0 and p <= k // 2, f"windows {kernel} no larger than the image, and padding of up to half")
        count = room // s + 1
        count -= ceil_mode and (count - 1) * s >= n + p
        size.append(count)
        more.append(max(0, (count - 1) * s + d * (k - 1) + 1 - n - 2 * p))
    return kernel, stride, padding, dilation, more, size


def window_sums(x, kernel, stride, size):
    """The sum over each window of images (N, 1, H, W)."""
    return functional.conv2d(x, x.new_ones(1, 1, *kernel), stride=stride)[:, :, : size[0], : size[1]]


def bordered(x, padding, more, value):
    """A border of one value, and `more` of it at the bottom and on the right."""
    (ph, pw), (eh, ew) = padding, more
    return functional.pad(x, (pw, pw + ew, ph, ph + eh), value=value)


def pair(value, least):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    expect(min(rows, columns) >= least, f"at least {least}, not {value}")
    return rows, columns


def expect(condition, what):
    """Refuse what does not fit."""
    if not condition:
        raise ValueError(f"expected {what}")
