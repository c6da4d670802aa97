"""NumPy: whole arrays at a time, without strides; a convolution is the sum of shifted slices over the kernel's places.

Every function has its own way back beside it, `<name>_vjp`, and batch norm a second one.
"""

from __future__ import annotations

import numpy as np


def relu(x):
    """The same shape; what is negative becomes 0."""
    return np.maximum(x, x.dtype.type(0))


def relu_vjp(cotangent, x):
    """What passed hands everything back."""
    return np.where(x > 0, cotangent, x.dtype.type(0))


def linear(x, weight, bias=None):
    """(…, I), (O, I), (O,) -> (…, O)"""
    check(x.ndim > 0 and weight.ndim == 2 and x.shape[-1:] == weight.shape[1:], x, weight)
    check(bias is None or bias.shape == weight.shape[:1], weight, bias)
    y = np.matmul(x, weight.T)
    return y if bias is None else y + bias


def linear_vjp(cotangent, x, weight, bias=None):
    """The gradients of x, weight and bias."""
    rows = cotangent.reshape(cotangent.size // max(len(weight), 1), len(weight))
    vectors = x.reshape(x.size // max(x.shape[-1], 1), x.shape[-1])
    dweight = np.zeros_like(weight, order="C") if 0 in weight.shape else rows.T @ vectors
    if x.shape[-1] == 0:  # how many rows there are is then known to the cotangent alone, and the other way round
        return np.zeros(x.shape, x.dtype), dweight, None if bias is None else rows.sum(0)
    return np.matmul(cotangent, weight), dweight, None if bias is None else rows.sum(0)


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    taps, y = shifted(x, weight, bias, stride, padding, dilation, groups)
    image = bordered(x, padding)
    for tap, where in taps:
        y += np.matmul(weight_at(weight, tap, groups), pixels_at(image, where, groups)).reshape(y.shape)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def conv2d_vjp(cotangent, x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """The gradients of x, weight and bias: slice by slice what came, times the other factor."""
    taps, y = shifted(x, weight, bias, stride, padding, dilation, groups)
    image, dweight = bordered(x, padding), np.zeros(weight.shape, weight.dtype)
    dimage, grouped = np.zeros_like(image), (len(x), groups, len(weight) // groups, y.shape[2] * y.shape[3])
    g = cotangent.reshape(grouped)
    for tap, where in taps:
        dimage[where] += np.matmul(weight_at(weight, tap, groups).swapaxes(1, 2), g).reshape(dimage[where].shape)
        products = np.matmul(g, pixels_at(image, where, groups).swapaxes(2, 3)).sum(0)
        dweight[:, :, tap[0], tap[1]] = products.reshape(weight.shape[:2])
    top, left = pair(padding, 0)
    dx = dimage[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return dx, dweight, None if bias is None else cotangent.sum((0, 2, 3))


def shifted(x, weight, bias, stride, padding, dilation, groups):
    """For each place in the kernel the slice of the bordered image that it meets; and zeros for the result."""
    check(x.ndim == weight.ndim == 4 and groups > 0, x, weight, groups)
    check(len(weight) % groups == 0 and x.shape[1] == groups * weight.shape[1], x, weight, groups)
    check(bias is None or bias.shape == weight.shape[:1], weight, bias)
    (sh, sw), (ph, pw), (dh, dw) = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    (h, w), (kh, kw) = x.shape[2:], weight.shape[2:]
    rows, columns = h + 2 * ph - dh * (kh - 1), w + 2 * pw - dw * (kw - 1)  # in which windows may begin
    check(rows > 0 and columns > 0, x, weight, padding, dilation)
    y = np.zeros((len(x), len(weight), -(-rows // sh), -(-columns // sw)), x.dtype)
    spots = [((i, j), (i * dh, j * dw)) for i in range(kh) for j in range(kw)]
    return [((i, j), np.s_[:, :, p : p + rows : sh, q : q + columns : sw]) for (i, j), (p, q) in spots], y


def weight_at(weight, tap, groups):
    """(groups, O/groups, C/groups)"""
    return weight[:, :, tap[0], tap[1]].reshape(groups, len(weight) // groups, weight.shape[1])


def pixels_at(image, where, groups):
    """(N, groups, C/groups, OH·OW)"""
    n, c, oh, ow = image[where].shape
    return image[where].reshape(n, groups, c // groups, oh * ow)


def bordered(x, padding):
    """Zeros around the images."""
    (ph, pw), (n, c, h, w) = pair(padding, 0), x.shape
    image = np.zeros((n, c, h + 2 * ph, w + 2 * pw), x.dtype)
    image[:, :, ph : ph + h, pw : pw + w] = x
    return image


def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """x (N, C, …), all else (C,) -> y, and the running mean and variance after it"""
    check(x.ndim > 1 and eps > 0, x, eps)
    check(all(v is None or v.shape == (x.shape[1],) for v in (running_mean, running_var, weight, bias)), x)
    check(training or (running_mean is not None and running_var is not None), running_mean, running_var)
    check(not training or count(x) != 1, x)
    centred, deviation, mean, var = normalised(x, running_mean, running_var, training, eps)
    y = centred / deviation
    y = y if weight is None else y * along(weight, x)
    y = y if bias is None else y + along(bias, x)
    if training and count(x) and running_mean is not None:
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * (var * (count(x) / (count(x) - 1)))
    return y.astype(x.dtype, copy=False), running_mean, running_var


def batch_norm_vjp(cotangent, x, mean, var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """The gradients of x, weight and bias; of the running statistics there are none."""
    centred, deviation, *_ = normalised(x, mean, var, training, eps)
    z, axes = centred / deviation, (0, *range(2, x.ndim))
    dweight, dbias = (None if v is None else a.sum(axes) for v, a in ((weight, cotangent * z), (bias, cotangent)))
    left = without_share(cotangent, z, training) / deviation
    return (left if weight is None else left * along(weight, x)), None, None, dweight, dbias


def batch_norm_vjp_vjp(
    tangent, cotangent, x, mean, var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5
):
    """Of Σ tangent · (gradient of x), the gradients of the cotangent and of the five operands."""
    centred, deviation, *_ = normalised(x, mean, var, training, eps)
    z, scale = centred / deviation, (1 if weight is None else along(weight, x)) / deviation
    t, g = (without_share(a, z, training) for a in (tangent, cotangent))
    dweight = None if weight is None else (tangent * g / deviation).sum((0, *range(2, x.ndim)))
    if not training:
        return scale * t, np.zeros(x.shape, x.dtype), None, None, dweight, None
    moved = average(tangent * z) * g + average(cotangent * z) * t + z * average(cotangent * t)
    return scale * t, -scale / deviation * moved, None, None, dweight, None


def normalised(x, mean, var, training, eps):
    """x less its mean, and what it is divided by; mean and variance of each channel."""
    if training and count(x):
        mean = average(x)
        var = average((x - mean) ** 2)
    else:
        mean, var = (np.zeros_like(v) if v is None else v for v in (mean, var))
        mean, var = along(mean, x), along(var, x)
    return x - mean, np.sqrt(var + var.dtype.type(eps)), mean.ravel(), var.ravel()


def without_share(a, z, training):
    """In training, what is left of a once its mean, and its share along z, is off."""
    return a - average(a) - z * average(a * z) if training and a.size else a


def average(a):
    """Over all axes but that of the channels, which all stay."""
    return a.mean((0, *range(2, a.ndim)), keepdims=True)


def along(vector, x):
    """(C,) beside x (N, C, …)"""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


def count(x):
    """Values in each channel."""
    return x.size // max(x.shape[1], 1)


def pair(value, least):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    check(rows >= least and columns >= least, value)
    return rows, columns


def check(condition, *given):
    """Refuse what does not fit."""
    if not condition:
        raise ValueError(f"not to be combined: {[getattr(a, 'shape', a) for a in given]}")
