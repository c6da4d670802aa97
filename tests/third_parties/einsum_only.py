"""NumPy: every sum is one `numpy.einsum`, over windows that `sliding_window_view` shows without copying them.

`einsum` itself is there too, with what NumPy says of equations.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

DIFFERS = {"einsum.ellipsis.dropped": "NumPy's einsum does not sum over an ellipsis"}


def einsum(equation, *operands):
    """numpy.einsum, as a copy."""
    return np.array(np.einsum(equation, *operands))


def linear(x, weight, bias=None):
    """(…, I), (O, I), (O,) -> (…, O)"""
    require(weight.ndim == 2 and x.shape[-1:] == weight.shape[1:], "features")  # einsum would broadcast one feature
    require(bias is None or bias.shape == weight.shape[:1], "bias")
    return shifted(np.einsum("...i,oi->...o", x, weight), bias, -1)


def linear_vjp(cotangent, x, weight, bias=None):
    """The gradients of x, weight and bias."""
    vectors = int(np.prod(x.shape[:-1]))
    g, v = cotangent.reshape(vectors, len(weight)), x.reshape(vectors, x.shape[-1])
    dbias = None if bias is None else np.einsum("no->o", g)
    return np.einsum("...o,oi->...i", cotangent, weight), np.einsum("no,ni->oi", g, v), dbias


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    require(x.ndim == weight.ndim == 4 and groups > 0, "four axes, and one group at least")
    require(len(weight) % groups == 0 and x.shape[1] == groups * weight.shape[1], "channels")
    require(bias is None or bias.shape == weight.shape[:1], "bias")
    stride, padding, dilation = pair(stride), pair(padding, 0), pair(dilation)
    seen = windows(bordered(x, padding), weight.shape[2:], stride, dilation)
    y = np.einsum("ngcrsij,gocij->ngors", by_group(seen, 1, groups), by_group(weight, 0, groups))
    return shifted(y.reshape(len(x), len(weight), *seen.shape[2:4]), bias, 1)


def conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """(N, C, H, W), (C, O/groups, KH, KW), (O,) -> (N, O, OH, OW): windows over an image with gaps"""
    require(x.ndim == weight.ndim == 4 and x.shape[1] == len(weight), "channels")
    require(groups > 0 and len(weight) % groups == 0, "groups")
    (n, c, h, w), (_, o, *kernel) = x.shape, weight.shape
    require(bias is None or bias.shape == (groups * o,), "bias")
    stride, padding, dilation, more = pair(stride), pair(padding, 0), pair(dilation), pair(output_padding, 0)
    require(all(e < max(s, d) for e, s, d in zip(more, stride, dilation, strict=True)), "output_padding")
    (sh, sw), (top, left) = stride, (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    apart = np.zeros((n, c, (h - 1) * sh + 1 + 2 * top + more[0], (w - 1) * sw + 1 + 2 * left + more[1]), x.dtype)
    apart[:, :, top : top + (h - 1) * sh + 1 : sh, left : left + (w - 1) * sw + 1 : sw] = x
    (ph, pw), (rows, columns) = padding, apart.shape[2:]
    require(2 * ph + top < rows and 2 * pw + left < columns, "padding")
    seen = windows(apart[:, :, ph : rows - ph, pw : columns - pw], kernel, (1, 1), dilation)
    kernels = by_group(weight[:, :, ::-1, ::-1], 0, groups)
    y = np.einsum("ngcrsij,gcoij->ngors", by_group(seen, 1, groups), kernels)
    return shifted(y.reshape(n, groups * o, *seen.shape[2:4]), bias, 1)


def avg_pool2d(x, *, kernel_size, stride=None, padding=0, count_include_pad=True, divisor_override=None):
    """(N, C, H, W) -> (N, C, OH, OW); no ceil_mode"""
    kernel = pair(kernel_size)
    stride, padding = kernel if stride is None else pair(stride), pair(padding, 0)
    require(x.ndim == 4 and all(p <= k // 2 for p, k in zip(padding, kernel, strict=True)), "padding")
    require(divisor_override != 0, "divisor_override")
    border = bordered(np.ones((1, 1, *x.shape[2:]), x.dtype), padding, int(count_include_pad))
    counted = np.einsum("ncrsij->ncrs", windows(border, kernel, stride, (1, 1)))
    sums = np.einsum("ncrsij->ncrs", windows(bordered(x, padding), kernel, stride, (1, 1)))
    return sums / (counted if divisor_override is None else x.dtype.type(divisor_override))


def global_avg_pool2d(x):
    """(N, C, H, W) -> (N, C)"""
    require(x.ndim == 4 and 0 not in x.shape[2:], "pixels")
    return np.einsum("nchw->nc", x) / x.dtype.type(x.shape[2] * x.shape[3])


def global_avg_pool2d_vjp(cotangent, x):
    """Every pixel gets the same share."""
    return np.einsum("nc,hw->nchw", cotangent / x.dtype.type(x.shape[2] * x.shape[3]), np.ones(x.shape[2:], x.dtype))


def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """x (N, C, …), all else (C,) -> y, and the running mean and variance after it"""
    require(x.ndim > 1 and eps > 0, "axes and eps")
    (n, c, *_), vectors = x.shape, (running_mean, running_var, weight, bias)
    require(all(v is None or v.shape == (c,) for v in vectors), "vectors")
    require(training or not (running_mean is None or running_var is None), "running statistics")
    values = x.reshape(n, c, int(np.prod(x.shape[2:])))
    count, mean, var = values.shape[0] * values.shape[2], running_mean, running_var
    require(not training or count != 1, "more than one value")
    if training and count:
        mean = np.einsum("ncl->c", values) / x.dtype.type(count)
        var = np.einsum("ncl,ncl->c", *[values - mean[:, None]] * 2) / x.dtype.type(count)
    elif training:
        mean, var = np.zeros((2, c), x.dtype)
    y = np.einsum("ncl,c->ncl", values - mean[:, None], 1 / np.sqrt(var + x.dtype.type(eps)))
    y = shifted(y if weight is None else np.einsum("ncl,c->ncl", y, weight), bias, 1).reshape(x.shape)
    if training and count and running_mean is not None:
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * (count / (count - 1)) * var
    return y, running_mean, running_var


def windows(x, kernel, stride, dilation):
    """(N, C, H, W) -> a view (N, C, OH, OW, KH, KW)"""
    (sh, sw), (dh, dw) = stride, dilation
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    return sliding_window_view(x, spans, (2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]  # refuses spans that do not fit


def bordered(x, padding, value=0):
    """A border of one value around the images."""
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=value)


def by_group(a, axis, groups):
    """An axis of channels as one of groups and one of channels in a group."""
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def shifted(y, bias, axis):
    """The bias added along an axis."""
    return y if bias is None else y + np.expand_dims(bias, tuple(n for n in range(y.ndim) if n != axis % y.ndim))


def pair(value, least=1):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    require(rows >= least and columns >= least, f"at least {least}")
    return rows, columns


def require(condition, what):
    """Refuse what does not fit."""
    if not condition:
        raise ValueError(what)
