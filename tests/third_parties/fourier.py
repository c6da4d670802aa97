"""NumPy: convolution by Fourier's transform, where it is a product of two spectra, there and back.

Its errors are as large as the largest pixels of an image are worth, in all of the image: hence class C. What has no
spectrum is declined: infinities and NaN, numbers so large that their sum over an image is infinite, and those so small
that the digits which a spectrum needs are below the smallest number there is.
"""

from __future__ import annotations

import numpy as np
from nnspec.adapters import Unsupported

ACCURACY = ("C",)
_INFINITE = "a transform sums over the whole image, so one infinity or NaN would be everywhere"
UNSUPPORTED = {
    "conv2d.special.value": _INFINITE,
    "conv2d.gradient.special": _INFINITE,
    "conv2d.batch.independent": _INFINITE,
    "conv2d.range.ends": "numbers so large that their sum over the image is infinite, or subnormal ones alone",
}


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    stride, padding, dilation = accepted(x, weight, bias, stride, padding, dilation, groups)
    x, kernels = bordered(x, padding), spread(weight, dilation)
    if any(k > n for k, n in zip(kernels.shape[2:], x.shape[2:], strict=True)):
        raise ValueError(f"kernels that span {kernels.shape[2:]} do not fit images of {x.shape[2:]}")
    everywhere = correlated(x, kernels, groups)
    fitting = [n - k + 1 for n, k in zip(x.shape[2:], kernels.shape[2:], strict=True)]  # the rest goes round the edge
    y = everywhere[:, :, : fitting[0] : stride[0], : fitting[1] : stride[1]]
    return y.copy() if bias is None else y + bias[:, None, None]


def conv2d_vjp(cotangent, x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """The gradients of x, weight and bias: convolutions as well, of spectra of which one is conjugated or none."""
    stride, padding, dilation = accepted(x, weight, bias, stride, padding, dilation, groups)
    (n, c, h, w), (o, cg, kh, kw) = x.shape, weight.shape
    image, kernels = bordered(x, padding), spread(weight, dilation)
    rows, columns = image.shape[2:]
    apart = np.zeros((n, o, rows, columns), x.dtype)  # every window's cotangent, where the window begins
    apart[:, :, :: stride[0], :: stride[1]][:, :, : cotangent.shape[2], : cotangent.shape[3]] = cotangent
    g, k, z = (spectrum(a, (rows, columns)) for a in (apart, kernels, image))
    g, z = g.reshape(n, groups, o // groups, *g.shape[2:]), z.reshape(n, groups, cg, *z.shape[2:])
    dx = pixels(np.einsum("ngohw,gochw->ngchw", g, k.reshape(groups, o // groups, cg, *k.shape[2:])), (rows, columns))
    dweight = pixels(np.einsum("ngohw,ngchw->gochw", g.conj(), z), (rows, columns)).reshape(o, cg, rows, columns)
    (top, left), (dh, dw) = padding, dilation
    dx = dx.reshape(n, c, rows, columns)[:, :, top : top + h, left : left + w]
    dweight = dweight[:, :, : dh * kh : dh, : dw * kw : dw]
    return dx, dweight, None if bias is None else cotangent.sum((0, 2, 3))


def correlated(x, kernels, groups):
    """The sum of products for a window at every pixel; windows that reach over the edge go on at the other side."""
    n, o, size = len(x), len(kernels), x.shape[2:]
    x, kernels = spectrum(x, size), spectrum(kernels, size).conj()
    x = x.reshape(n, groups, x.shape[1] // groups, *x.shape[2:])
    kernels = kernels.reshape(groups, o // groups, *kernels.shape[1:])
    return pixels(np.einsum("ngchw,gochw->ngohw", x, kernels), size).reshape(n, o, *size)


def spectrum(a, size):
    """The transform of images, or of kernels with zeros around them, along rows and columns."""
    if 0 < np.abs(a).max(initial=0) < np.finfo(a.dtype).tiny:
        raise Unsupported("subnormal numbers alone, whose spectra have too few digits")
    return finite(np.fft.rfft2(a, size))


def pixels(a, size):
    """Back from the spectrum."""
    return finite(np.fft.irfft2(a, size))


def finite(a):
    """The same. A transform sums over all of an image, there and back, and so one infinity is everywhere."""
    if not np.isfinite(a).all():
        raise Unsupported("an infinity or NaN, or numbers so large that a sum over the image is infinite")
    return a


def spread(weight, dilation):
    """Zeros between the elements of the kernels."""
    (o, c, kh, kw), (dh, dw) = weight.shape, dilation
    kernels = np.zeros((o, c, dh * (kh - 1) + 1, dw * (kw - 1) + 1), weight.dtype)
    kernels[:, :, ::dh, ::dw] = weight
    return kernels


def bordered(x, padding):
    """Zeros around the images."""
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))


def accepted(x, weight, bias, stride, padding, dilation, groups):
    """Stride, padding and dilation as pairs. ValueError for what does not go together."""
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"x {x.shape}, weight {weight.shape}: not four dimensions")
    if groups < 1 or len(weight) % groups or x.shape[1] != groups * weight.shape[1]:
        raise ValueError(f"x {x.shape}, weight {weight.shape} and {groups=}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {bias.shape}, weight {weight.shape}")
    stride, padding, dilation = ((v, v) if isinstance(v, int) else v for v in (stride, padding, dilation))
    if any(len(pair) != 2 for pair in (stride, padding, dilation)):
        raise ValueError(f"{stride=}, {padding=}, {dilation=}: expected numbers or pairs")
    if min(stride) < 1 or min(padding) < 0 or min(dilation) < 1:
        raise ValueError(f"{stride=}, {padding=}, {dilation=}")
    return stride, padding, dilation
