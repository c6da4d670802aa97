"""The bound of class C: convolutions that transform image and kernel, multiply, and transform back.

Winograd's and Fourier's algorithms mix the elements of a tile, so that the error of an element is relative to the
largest of its neighbours, however small the element itself is. Their errors are bounded in norms: with C channels
summed over, each of them at most max|x_c| in the image and Σ|w_c| in the kernel,

    |ŷ − y| ≤ 64·u·√(C + 8)·Σ_c max|x_c|·Σ|w_c|

The form is that of such bounds (Higham 2002, chapter 24, for Fourier's); the factors are measured and not proved:
benchmarks/quality/numerics.py compares F(2, 3), F(4, 3) and a Fourier transform with them. The bound applies only to
subjects that declare the class. Gradients are convolutions as well: of cotangent and kernel, of image and cotangent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from nnspec.conformance.bounds.arithmetic import Arithmetic
from nnspec.conformance.bounds.rule import Array


def fast_bound(of_ones: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """The function from image and kernel to the bound for every element of a channel, along its rows and columns.

    `of_ones` is the block without stride, padding or dilation, for images and kernels of one row and one column: what
    remains of a convolution there is its sum over channels.
    """

    def bound(image: Array, kernel: Array, *_: Array, form: Arithmetic) -> Array:
        largest = np.abs(image).max((2, 3), initial=0, keepdims=True).astype(np.float64)
        sums = np.abs(kernel).astype(np.float64).sum((2, 3), keepdims=True)
        channels = of_ones(np.ones_like(largest), np.ones_like(sums))
        return np.asarray(64 * form.u * np.sqrt(channels + 8) * of_ones(largest, sums))

    return bound
