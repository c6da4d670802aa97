"""Layers in plain NumPy, written to be read: convolution as a sum of shifted images. Images are (N, C, H, W).

nnspec check examples/numpy_layers.py
"""

import numpy as np


def linear(x, weight, bias=None):
    """x (..., I), weight (O, I), bias (O,) -> (..., O)"""
    expect(x.ndim >= 1 and weight.ndim == 2 and x.shape[-1] == weight.shape[1], "x (..., I) and weight (O, I)")
    expect(bias is None or bias.shape == weight.shape[:1], "bias (O,)")
    y = x @ weight.T
    return y if bias is None else y + bias


def relu(x):
    """The same shape; what is negative becomes 0, and NaN stays NaN."""
    return np.maximum(x, 0)


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) -> (N, O, OH, OW)"""
    expect(x.ndim == weight.ndim == 4, "x (N, C, H, W) and weight (O, C/groups, KH, KW)")
    (n, c, _, _), (o, cg, kh, kw) = x.shape, weight.shape
    expect(groups >= 1 and c == cg * groups and o % groups == 0, f"groups that divide O={o}, and C={c} = {cg}·groups")
    expect(bias is None or bias.shape == (o,), f"bias ({o},)")
    stride, padding, dilation = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    oh, ow = size(x, (kh, kw), stride, padding, dilation)
    y = np.zeros((n, groups, o // groups, oh, ow), x.dtype)
    for (i, j), pixels in taps(pad(x, padding, 0), (kh, kw), stride, dilation, (oh, ow)):
        kernels = weight[:, :, i, j].reshape(groups, o // groups, cg)
        y += np.einsum("goc,ngchw->ngohw", kernels, pixels.reshape(n, groups, cg, oh, ow))
    y = y.reshape(n, o, oh, ow)
    return y if bias is None else y + bias[:, None, None]


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """x (N, C, H, W) -> (N, C, OH, OW)"""
    expect(x.ndim == 4, "x (N, C, H, W)")
    kernel_size = pair(kernel_size, 1)
    stride = kernel_size if stride is None else pair(stride, 1)
    padding, dilation = pair(padding, 0), pair(dilation, 1)
    expect(all(p <= k // 2 for p, k in zip(padding, kernel_size, strict=True)), "padding of at most half the window")
    extra = [s - 1 for s in stride] if ceil_mode else [0, 0]  # rows and columns that let one more window begin
    oh, ow = size(x, kernel_size, stride, padding, dilation, extra)
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    y = np.full((*x.shape[:2], oh, ow), least, x.dtype)
    for _, pixels in taps(pad(x, padding, least, extra), kernel_size, stride, dilation, (oh, ow)):
        y = np.maximum(y, pixels)
    return y


def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """x (N, C, ...), all else (C,) -> y like x, and what the running mean and variance become"""
    expect(x.ndim >= 2, "x (N, C, ...)")
    c, n = x.shape[1], x.size // max(x.shape[1], 1)  # n values per channel
    expect(all(a is None or a.shape == (c,) for a in (running_mean, running_var, weight, bias)), f"vectors ({c},)")
    expect(running_mean is not None and running_var is not None, "running statistics")
    expect(eps > 0, "eps > 0")
    expect(not training or n != 1, "more than one value per channel in training")
    if training and n == 0:
        return x.copy(), running_mean, running_var
    axes, along = (0, *range(2, x.ndim)), (c, *[1] * (x.ndim - 2))  # everything but the channel; (C,) beside x
    wide = running_mean.dtype  # which may be wider than that of x
    mean, var = (x.mean(axes, wide), x.var(axes, wide)) if training else (running_mean, running_var)
    y = (x - mean.reshape(along)) / np.sqrt(var + eps).reshape(along)
    if weight is not None:
        y = y * weight.reshape(along)
    if bias is not None:
        y = y + bias.reshape(along)
    if training:
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * var * (n / (n - 1))  # divisor n − 1 here, n above
    return y.astype(x.dtype), running_mean, running_var


# -- windows: sizes are pairs, rows first ------------------------------------------------------------------------------


def taps(x, kernel_size, stride, dilation, output_size):
    """For each kernel element (i, j): the pixels that it meets, (N, C, OH, OW)."""
    (sh, sw), (dh, dw), (oh, ow) = stride, dilation, output_size
    for i, j in np.ndindex(*kernel_size):
        yield (i, j), x[:, :, i * dh :: sh, j * dw :: sw][:, :, :oh, :ow]


def size(x, kernel_size, stride, padding, dilation, extra=(0, 0)):
    """How many windows fit, and begin before the padding at the far side where some are only there for `extra`."""
    fitting = []
    for n, k, s, p, d, e in zip(x.shape[2:], kernel_size, stride, padding, dilation, extra, strict=True):
        windows = (n + 2 * p + e - d * (k - 1) - 1) // s + 1
        expect(windows >= 1, "a window no larger than the padded image")
        fitting.append(windows - 1 if e and (windows - 1) * s >= n + p else windows)
    return fitting


def pad(x, padding, value, extra=(0, 0)):
    """The border filled with a value; `extra` rows and columns at the bottom and on the right."""
    border = [(0, 0), (0, 0), *((p, p + e) for p, e in zip(padding, extra, strict=True))]
    return np.pad(x, border, constant_values=value)


def pair(value, least):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    expect(rows >= least and columns >= least, f"at least {least}, not {value}")
    return rows, columns


def expect(condition, what):
    """Refuse operands that do not fit."""
    if not condition:
        raise ValueError(f"expected {what}")
