"""JAX: each function is written for one image, one vector or one channel, and `vmap` makes it one for many.

Windows are gathered by index, so that a convolution is one product of windows and kernels. `jit` compiles the whole,
and the way back is JAX's.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

FULL = jax.lax.Precision.HIGHEST  # as many bits as the operands have, on any device
POOLING = ("kernel_size", "stride", "padding", "ceil_mode")


@jax.jit
def relu(x: jax.Array) -> jax.Array:
    """Element by element."""
    flat = jax.vmap(lambda element: jnp.where(element <= 0, jnp.zeros_like(element), element))(x.ravel())
    return flat.reshape(x.shape)


@jax.jit
def linear(x, weight, bias=None):
    """(…, I), (O, I), (O,) -> (…, O), vector by vector"""
    expect(x.ndim > 0 and weight.ndim == 2 and x.shape[-1] == weight.shape[1], "x (…, I) and weight (O, I)")
    expect(bias is None or bias.shape == weight.shape[:1], "bias (O,)")

    def of_vector(vector):
        y = jnp.dot(weight, vector, precision=FULL)
        return y if bias is None else y + bias

    for _ in x.shape[:-1]:
        of_vector = jax.vmap(of_vector)
    return of_vector(x)


@partial(jax.jit, static_argnames=("stride", "padding", "dilation", "groups"))
def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW), image by image and group by group"""
    expect(x.ndim == weight.ndim == 4, "x (N, C, H, W) and weight (O, C/groups, KH, KW)")
    (o, c, *kernel), channels = weight.shape, x.shape[1]
    expect(groups > 0 and o % groups == 0 and channels == groups * c, f"groups of {c} of {channels} channels")
    expect(bias is None or bias.shape == (o,), "bias (O,)")
    stride, padding, dilation = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    size = [windows(*a) for a in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)]
    rows, columns = places(size, kernel, stride, dilation)

    def of_group(channels, kernels):
        return jnp.einsum("crsij,ocij->ors", channels[:, rows, columns], kernels, precision=FULL)

    def of_image(image):
        image = jnp.pad(image, ((0, 0), *((p, p) for p in padding)))
        channels = image.reshape(groups, c, *image.shape[1:])
        return jax.vmap(of_group)(channels, weight.reshape(groups, o // groups, c, *kernel)).reshape(o, *size)

    y = jax.vmap(of_image)(x)
    return y if bias is None else y + bias[:, None, None]


@partial(jax.jit, static_argnames=(*POOLING, "dilation"))
def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(N, C, H, W) -> (N, C, OH, OW), channel by channel"""
    kernel, stride, padding, dilation, size, around = pooling(x, kernel_size, stride, padding, dilation, ceil_mode)
    rows, columns = places(size, kernel, stride, dilation)
    least = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min

    def of_channel(channel):
        each = jnp.pad(channel, around, constant_values=least)[rows, columns].reshape(*size, kernel[0] * kernel[1])
        first = jnp.argmax(each, axis=-1, keepdims=True)  # of equal ones, or of NaN
        return jnp.take_along_axis(each, first, axis=-1)[..., 0]

    return jax.vmap(jax.vmap(of_channel))(x)


@partial(
    jax.jit, static_argnames=("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
)
def avg_pool2d(
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """(N, C, H, W) -> (N, C, OH, OW), channel by channel"""
    expect(divisor_override != 0, "another divisor than 0")
    kernel, stride, padding, _, size, around = pooling(x, kernel_size, stride, padding, 1, ceil_mode)
    rows, columns = places(size, kernel, stride, (1, 1))
    counted = np.full([n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)], int(count_include_pad))
    counted[padding[0] :, padding[1] :][: x.shape[2], : x.shape[3]] = 1
    beyond = [(0, after - p) for (_, after), p in zip(around, padding, strict=True)]
    divisor = np.pad(counted, beyond)[rows, columns].sum((2, 3)) if divisor_override is None else divisor_override

    def of_channel(channel):
        return jnp.pad(channel, around)[rows, columns].sum((2, 3)) / jnp.asarray(divisor, x.dtype)

    return jax.vmap(jax.vmap(of_channel))(x)


@jax.jit
def global_avg_pool2d(x):
    """(N, C, H, W) -> (N, C), image by image"""
    expect(x.ndim == 4 and 0 not in x.shape[2:], "x (N, C, H, W) with at least one pixel")
    return jax.vmap(lambda image: image.mean((1, 2)))(x)


@partial(jax.jit, static_argnames=("training", "momentum", "eps"))
def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """x (N, C, …), all else (C,) -> y, and the running mean and variance after it, channel by channel"""
    expect(x.ndim > 1 and eps > 0, "x (N, C, …) and a positive eps")
    c, n = x.shape[1], x.size // max(x.shape[1], 1)
    expect(all(v is None or v.shape == (c,) for v in (running_mean, running_var, weight, bias)), f"vectors of {c}")
    expect(training or (running_mean is not None and running_var is not None), "running statistics")
    expect(not training or n != 1, "several values for each channel")
    of_batch = training and n > 0

    def of_channel(values, mean, var, weight, bias):
        wide = values if mean is None else values.astype(mean.dtype)
        if of_batch:
            new_mean, new_var = wide.mean(), wide.var()
        else:
            new_mean, new_var = (0.0, 1.0) if mean is None else (mean, var)
        y = (wide - new_mean) / jnp.sqrt(new_var + eps)
        y = y if weight is None else y * weight
        y = y if bias is None else y + bias
        if of_batch and mean is not None:
            mean = (1 - momentum) * mean + momentum * new_mean
            var = (1 - momentum) * var + momentum * (n / (n - 1)) * new_var
        return y.astype(values.dtype), mean, var

    return jax.vmap(of_channel, in_axes=(1, 0, 0, 0, 0), out_axes=(1, 0, 0))(x, running_mean, running_var, weight, bias)


def places(size, kernel, stride, dilation):
    """The rows and columns (OH, OW, KH, KW) of the elements of each window."""
    rows, columns = (
        np.arange(n)[:, None] * s + np.arange(k) * d for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    )
    return rows[:, None, :, None], columns[None, :, None, :]


def pooling(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Pairs; how many windows there are; and the border around the image, before and behind."""
    expect(x.ndim == 4, "x (N, C, H, W)")
    kernel = pair(kernel_size, 1)
    stride = kernel if stride is None else pair(stride, 1)
    padding, dilation, size, around = pair(padding, 0), pair(dilation, 1), [], []
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        expect(p <= k // 2, f"padding of at most half of {kernel}")
        count = windows(n, k, s, p, d, s - 1 if ceil_mode else 0)
        count -= ceil_mode and (count - 1) * s >= n + p
        size.append(int(count))
        around.append((p, max(p, (count - 1) * s + d * (k - 1) + 1 - n - p)))
    return kernel, stride, padding, dilation, size, around


def windows(n, kernel, stride, padding, dilation, more=0):
    """How many fit along one axis."""
    room = n + 2 * padding + more - dilation * (kernel - 1) - 1
    expect(room >= 0, "a window no larger than the padded image")
    return room // stride + 1


def pair(value, least):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    expect(min(rows, columns) >= least, f"at least {least}, not {value}")
    return rows, columns


def expect(condition, what):
    """Refuse what does not fit."""
    if not condition:
        raise ValueError(f"expected {what}")
