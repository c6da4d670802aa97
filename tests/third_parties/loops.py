"""NumPy for its arrays alone: nested loops over indices, one product at a time, as the formulas on the pages stand."""

from __future__ import annotations

from itertools import product

import numpy as np


def linear(x, weight, bias=None):
    """(…, I), (O, I), (O,) -> (…, O)"""
    if x.ndim < 1 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x {x.shape} and weight {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {weight.shape} and bias {bias.shape}")
    y = np.zeros((*x.shape[:-1], len(weight)), x.dtype)
    for place in np.ndindex(*y.shape):
        *which, o = place
        for i in range(x.shape[-1]):
            y[place] += x[(*which, i)] * weight[o, i]
        if bias is not None:
            y[place] += bias[o]
    return y


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"x {x.shape} and weight {weight.shape}: images and kernels have four axes")
    (n, channels, h, w), (o, c, kh, kw) = x.shape, weight.shape
    if groups < 1 or o % groups or channels != groups * c:
        raise ValueError(f"{channels} channels to {o} in {groups} groups of {c}")
    check_bias(bias, o)
    (sh, sw), (ph, pw), (dh, dw) = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    y = np.zeros((n, o, count(h, kh, sh, ph, dh), count(w, kw, sw, pw, dw)), x.dtype)
    for image, out, r, s in np.ndindex(*y.shape):
        first = out // (o // groups) * c
        for i, j in product(range(kh), range(kw)):
            p, q = r * sh + i * dh - ph, s * sw + j * dw - pw
            if 0 <= p < h and 0 <= q < w:
                for k in range(c):
                    y[image, out, r, s] += weight[out, k, i, j] * x[image, first + k, p, q]
        if bias is not None:
            y[image, out, r, s] += bias[out]
    return y


def conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """(N, C, H, W), (C, O/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != len(weight):
        raise ValueError(f"x {x.shape} and weight {weight.shape}")
    (n, channels, h, w), (_, o, kh, kw) = x.shape, weight.shape
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels in {groups} groups")
    check_bias(bias, o * groups)
    (sh, sw), (ph, pw), (dh, dw) = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    eh, ew = pair(output_padding, 0)
    oh, ow = (h - 1) * sh - 2 * ph + dh * (kh - 1) + eh + 1, (w - 1) * sw - 2 * pw + dw * (kw - 1) + ew + 1
    if eh >= max(sh, dh) or ew >= max(sw, dw) or oh < 1 or ow < 1:
        raise ValueError(f"{output_padding=} with {stride=} and {dilation=}, for a result of {oh} by {ow}")
    y = np.zeros((n, o * groups, oh, ow), x.dtype)
    for image, c, r, s in np.ndindex(*x.shape):
        first = c // (channels // groups) * o
        for i, j in product(range(kh), range(kw)):
            p, q = r * sh + i * dh - ph, s * sw + j * dw - pw
            if 0 <= p < oh and 0 <= q < ow:
                for k in range(o):
                    y[image, first + k, p, q] += weight[c, k, i, j] * x[image, c, r, s]
    if bias is not None:
        for image, out, r, s in np.ndindex(*y.shape):
            y[image, out, r, s] += bias[out]
    return y


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw), size = pooling(x, kernel_size, stride, padding, dilation, ceil_mode)
    y = np.full((*x.shape[:2], *size), -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
    for n, c, r, s in np.ndindex(*y.shape):
        for i, j in product(range(kh), range(kw)):
            p, q = r * sh + i * dh - ph, s * sw + j * dw - pw
            if 0 <= p < x.shape[2] and 0 <= q < x.shape[3] and not x[n, c, p, q] <= y[n, c, r, s]:
                y[n, c, r, s] = x[n, c, p, q]  # larger, or NaN
                if np.isnan(x[n, c, p, q]):
                    break
    return y


def avg_pool2d(
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    if divisor_override == 0:
        raise ValueError(f"{divisor_override=}")
    (kh, kw), (sh, sw), (ph, pw), _, size = pooling(x, kernel_size, stride, padding, 1, ceil_mode)
    (h, w), y = x.shape[2:], np.zeros((*x.shape[:2], *size), x.dtype)
    for n, c, r, s in np.ndindex(*y.shape):
        counted = 0
        for i, j in product(range(kh), range(kw)):
            p, q = r * sh + i - ph, s * sw + j - pw
            inside = 0 <= p < h and 0 <= q < w
            if inside:
                y[n, c, r, s] += x[n, c, p, q]
            counted += inside or (count_include_pad and p < h + ph and q < w + pw)
        y[n, c, r, s] /= divisor_override or counted
    return y


def global_avg_pool2d(x):
    """(N, C, H, W) -> (N, C)"""
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ValueError(f"x {x.shape}")
    y = np.zeros(x.shape[:2], x.dtype)
    for n, c, p, q in np.ndindex(*x.shape):
        y[n, c] += x[n, c, p, q]
    return y / x.dtype.type(x.shape[2] * x.shape[3])


def pooling(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Pairs, and how many windows there are along rows and along columns."""
    kernel = pair(kernel_size, 1)
    step = kernel if stride is None else pair(stride, 1)
    padding, dilation, size = pair(padding, 0), pair(dilation, 1), []
    if x.ndim != 4 or padding[0] > kernel[0] // 2 or padding[1] > kernel[1] // 2:
        raise ValueError(f"x {x.shape}, {kernel_size=}, {padding=}")
    for n, k, s, p, d in zip(x.shape[2:], kernel, step, padding, dilation, strict=True):
        windows = count(n, k, s, p, d, s - 1 if ceil_mode else 0)
        while ceil_mode and (windows - 1) * s >= n + p:
            windows -= 1
        size.append(windows)
    return kernel, step, padding, dilation, size


def count(n, k, s, p, d, more=0):
    """How many windows fit along an axis."""
    room = n + 2 * p + more - (d * (k - 1) + 1)
    if room < 0:
        raise ValueError(f"a window of {k} with dilation {d} over {n} elements with padding {p}")
    return room // s + 1


def check_bias(bias, channels):
    """One number for each channel, or none."""
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"bias {bias.shape} for {channels} channels")


def pair(value, least):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    if min(rows, columns) < least:
        raise ValueError(f"{value}: expected at least {least}")
    return rows, columns
