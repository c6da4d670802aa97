"""A template: copy it, replace the library below by your own, and run `nnspec check` on your copy.

nnspec checks every function and class of a file that has one of its names (`nnspec list` shows the names), and every
function that `@block` declares. The rest of the file is yours. Functions and classes receive the arrays of the library
that the file imports, NumPy's where it imports no other. Where your library lays out its arrays or passes its arguments
in another way, a few lines in between say so.
"""

from math import prod

import numpy as np
from nnspec.adapters import Unsupported, block

# The dtypes that the file claims; nnspec checks no others. These two are the default.
DTYPES = ("float32", "float64")
# Requirements that the library does not meet and does not claim to meet, with the reason. Without this line the check
# of an empty batch could not judge any case, and the file would not conform.
UNSUPPORTED = {"conv2d.batch.empty": "the library takes no empty batch"}


# -- a library: images (N, H, W, C), kernels (KH, KW, C, O), its own names, options in one argument --------------------


def convolve(images, kernel, options):
    """(N, H, W, C) -> (N, OH, OW, O)"""
    (sh, sw), (top, left) = options["steps"], options["border"]
    images = np.pad(images, ((0, 0), (top, top), (left, left), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(images, kernel.shape[:2], (1, 2))[:, ::sh, ::sw]
    return np.einsum("nrscij,ijco->nrso", windows, kernel)


class Dense:
    """Rows of n_in numbers to rows of n_out; the kernel is (n_in, n_out)."""

    def __init__(self, n_in, n_out, shifted):
        self.kernel = np.random.default_rng().uniform(-1, 1, (n_in, n_out)) / max(n_in, 1) ** 0.5
        self.shift = np.zeros(n_out) if shifted else None

    def apply(self, rows):
        """(N, n_in) -> (N, n_out)"""
        return rows @ self.kernel if self.shift is None else rows @ self.kernel + self.shift


# -- the lines in between: for a function ------------------------------------------------------------------------------


@block("conv2d", layout="NHWC", kernel="HWIO")
def conv(images, kernel, bias=None, *, stride=1, padding=0):
    """(N, H, W, C), (KH, KW, C, O), (O,) -> (N, OH, OW, O). nnspec transposes the arrays.

    The signature has no `dilation` and no `groups`: nnspec leaves them at 1 and reports them as unsupported.
    """
    if len(images) == 0:  # other checks draw an empty batch too: this declines the case, which is counted and shown
        raise Unsupported("the library takes no empty batch")
    stride, padding = ((v, v) if isinstance(v, int) else v for v in (stride, padding))
    if min(stride) < 1 or images.shape[3] != kernel.shape[2] or (bias is not None and len(bias) != kernel.shape[3]):
        raise ValueError("the library itself does not refuse this")  # without this line, the report shows what it does
    y = convolve(images, kernel, {"steps": stride, "border": padding})
    return y if bias is None else y + bias


# -- for a class -------------------------------------------------------------------------------------------------------


class Linear:
    """nnspec constructs it with these arguments, sets the attributes `weight` and `bias`, and calls it with x.

    A class with modes has `train()` and `eval()`, or an attribute `training`. Its state is the result of `state_dict()`
    or, without one, those of its attributes that are arrays.
    """

    def __init__(self, in_features, out_features, bias=True):
        self.dense = Dense(in_features, out_features, bias)

    def __call__(self, x):
        """(…, in_features) -> (…, out_features)"""
        rows = x.reshape(prod(x.shape[:-1]), x.shape[-1])  # the library takes two dimensions only
        return self.dense.apply(rows).reshape(*x.shape[:-1], self.dense.kernel.shape[1])

    def state_dict(self):
        """The state under nnspec's names."""
        return {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}

    @property
    def weight(self):
        """(out_features, in_features)"""
        return self.dense.kernel.T

    @weight.setter
    def weight(self, value):
        self.dense.kernel = value.T

    @property
    def bias(self):
        """(out_features,)"""
        return self.dense.shift

    @bias.setter
    def bias(self, value):
        self.dense.shift = value
