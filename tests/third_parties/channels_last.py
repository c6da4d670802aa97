"""NumPy: a library of layers for images (N, H, W, C), with names and conventions of its own; and what turns it round.

A convolution is a matrix product over the last axis, as which its kernels (KH, KW, C, O) are kept. The library weighs
the old in a running average where nnspec weighs the new, and keeps dimensions that nnspec leaves out.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# -- the library: images (N, H, W, C) ----------------------------------------------------------------------------------


def patches(images, size, strides=(1, 1), rate=(1, 1), border=(0, 0), fill=0.0):
    """(N, H, W, C) -> (N, OH, OW, C, KH, KW)"""
    images = np.pad(images, ((0, 0), *((b, b) for b in border), (0, 0)), constant_values=fill)
    spans = [(k - 1) * r + 1 for k, r in zip(size, rate, strict=True)]
    seen = sliding_window_view(images, spans, (1, 2))  # which refuses what is too large
    return seen[:, :: strides[0], :: strides[1], :, :: rate[0], :: rate[1]]


class Convolution:
    """`kernel` (KH, KW, C, O) and `shift` (O,), which may be None."""

    def __init__(self, size, channels, filters, dtype, shifted=True, **options):
        reach = (size[0] * size[1] * channels) ** -0.5
        rng = np.random.default_rng()
        self.kernel = rng.uniform(-reach, reach, (*size, channels, filters)).astype(dtype)
        self.shift = rng.uniform(-reach, reach, filters).astype(dtype) if shifted else None
        self.options = options

    def apply(self, images):
        """(N, H, W, C) -> (N, OH, OW, O)"""
        kh, kw, c, o = self.kernel.shape
        seen = patches(images, (kh, kw), **self.options).transpose(0, 1, 2, 4, 5, 3)
        y = seen.reshape(*seen.shape[:3], kh * kw * c) @ self.kernel.reshape(kh * kw * c, o)
        return y if self.shift is None else y + self.shift


class Normalisation:
    """Over all axes but the last. `keep` is the weight of the old value in a running average; None is for the mean."""

    def __init__(self, channels, dtype, keep=0.9, fuzz=1e-5, scaled=True):
        self.moving_mean, self.moving_variance = np.zeros(channels, dtype), np.ones(channels, dtype)
        self.gamma, self.beta = (np.ones(channels, dtype), np.zeros(channels, dtype)) if scaled else (None, None)
        self.keep, self.fuzz, self.steps = keep, fuzz, np.array(0)

    def apply(self, x, learning):
        """(…, C) -> (…, C)"""
        rows = x.reshape(x.size // max(x.shape[-1], 1), x.shape[-1])
        if learning and len(rows) == 1:
            raise ValueError("one value has no variance")
        mean, variance = self.moving_mean, self.moving_variance
        if learning and len(rows):
            mean, variance = rows.mean(0), rows.var(0)
            keep = self.keep if self.keep is not None else float(self.steps / (self.steps + 1))
            self.moving_mean = keep * self.moving_mean + (1 - keep) * mean
            self.moving_variance = keep * self.moving_variance + (1 - keep) * rows.var(0, ddof=1)
        self.steps = self.steps + int(learning)
        y = (x - mean) / np.sqrt(variance + variance.dtype.type(self.fuzz))
        return y if self.gamma is None else y * self.gamma + self.beta


# -- the lines in between: images (N, C, H, W) -------------------------------------------------------------------------


def last(x):
    """(N, C, H, W) -> (N, H, W, C)"""
    if x.ndim != 4:
        raise ValueError(f"images of shape {x.shape}")
    return x.transpose(0, 2, 3, 1)


def first(y):
    """(N, H, W, C) -> (N, C, H, W)"""
    return y.transpose(0, 3, 1, 2)


def pair(value, least):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    if rows < least or columns < least:
        raise ValueError(f"{value}: expected at least {least}")
    return rows, columns


def renamed(name):
    """An attribute of the library's layer."""
    return property(lambda self: getattr(self.layer, name), lambda self, value: setattr(self.layer, name, value))


class Conv2d:
    """Without groups."""

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, bias=True, dtype=np.float32
    ):
        options = {"strides": pair(stride, 1), "border": pair(padding, 0), "rate": pair(dilation, 1)}
        self.layer = Convolution(pair(kernel_size, 1), in_channels, out_channels, dtype, bias, **options)

    def __call__(self, x):
        if x.ndim != 4 or x.shape[1] != self.layer.kernel.shape[2]:
            raise ValueError(f"images of shape {x.shape} for kernels {self.layer.kernel.shape}")
        return first(self.layer.apply(last(x)))

    def state_dict(self):
        """What is trained, under nnspec's names."""
        return {name: a for name in ("weight", "bias") if (a := getattr(self, name)) is not None}

    weight = property(
        lambda self: self.layer.kernel.transpose(3, 2, 0, 1),
        lambda self, value: setattr(self.layer, "kernel", value.transpose(2, 3, 1, 0)),
    )
    bias = renamed("shift")


class BatchNorm2d:
    """The statistics are the library's own, under nnspec's names."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, dtype=np.float32):
        if eps <= 0:
            raise ValueError(f"{eps=}")
        self.layer = Normalisation(num_features, dtype, None if momentum is None else 1 - momentum, eps, affine)
        self.training = True

    def __call__(self, x):
        if x.ndim != 4 or x.shape[1] != len(self.running_mean):
            raise ValueError(f"images of shape {x.shape} for {len(self.running_mean)} channels")
        return first(self.layer.apply(last(x), self.training))

    def state_dict(self):
        """What is trained and what is counted."""
        names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {name: a for name in names if (a := getattr(self, name)) is not None}

    weight, bias, num_batches_tracked = renamed("gamma"), renamed("beta"), renamed("steps")
    running_mean, running_var = renamed("moving_mean"), renamed("moving_variance")


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1):
    """Without ceil_mode."""
    kernel, strides, border = pooling(kernel_size, stride, padding)
    return first(patches(last(x), kernel, strides, pair(dilation, 1), border, -np.inf).max((4, 5)))


def avg_pool2d(x, *, kernel_size, stride=None, padding=0):
    """Without ceil_mode; the border always counts."""
    kernel, strides, border = pooling(kernel_size, stride, padding)
    return first(patches(last(x), kernel, strides, border=border).mean((4, 5)))


def global_avg_pool2d(x):
    """The library's mean over rows and columns keeps them; nnspec's does not."""
    if 0 in x.shape[2:]:
        raise ValueError(f"images of shape {x.shape}")
    return last(x).mean((1, 2), keepdims=True)[:, 0, 0]


def pooling(kernel_size, stride, padding):
    """Pairs; a border of at most half a window."""
    kernel, border = pair(kernel_size, 1), pair(padding, 0)
    if border[0] > kernel[0] // 2 or border[1] > kernel[1] // 2:
        raise ValueError(f"{kernel_size=}, {padding=}")
    return kernel, kernel if stride is None else pair(stride, 1), border
