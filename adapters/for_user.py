"""A template: copy it, put your own library in the place of the one below, and run `nnspec check` on your copy.

A file is a subject. What has one of nnspec's names in it is checked (`nnspec list` shows them), everything else in it
is yours. Functions and classes get NumPy arrays; or tensors, where the classes are torch modules or torch is imported.
Images arrive as (N, C, H, W), pairs as an int or (rows, columns). Where your library has it otherwise, a few lines in
between say so: that is all an adapter is.
"""

from math import prod

import numpy as np
from nnspec.adapters import Unsupported

DTYPES = (
    "float32",
    "float64",
)  # what is claimed; nothing else will be asked for. These two, where the line is missing.
# Requirements that the signatures do not show to be unsupported, with the reason. Without this line the check of an
# empty batch could judge nothing, and the file could not be said to conform.
UNSUPPORTED = {"conv2d.batch.empty": "the library takes no empty batch"}


# -- a library: images (N, H, W, C), kernels (KH, KW, C, O), names of its own, options in one argument -----------------


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


def conv2d(x, weight, bias=None, *, stride=1, padding=0):
    """As nnspec calls it: x (N, C, H, W), weight (O, C, KH, KW), bias (O,) -> (N, O, OH, OW).

    The signature has no `dilation` and no `groups`: they stay at 1, and the report says that they are unsupported.
    """
    if len(x) == 0:  # other checks draw an empty batch too: this declines the case, which is counted and shown
        raise Unsupported("the library takes no empty batch")
    stride, padding = ((v, v) if isinstance(v, int) else v for v in (stride, padding))
    if min(stride) < 1 or x.shape[1] != weight.shape[1] or (bias is not None and len(bias) != len(weight)):
        raise ValueError("what the library itself lets pass")  # leave this out to see in the report what that is
    options = {"steps": stride, "border": padding}
    y = convolve(x.transpose(0, 2, 3, 1), weight.transpose(2, 3, 1, 0), options)
    return (y if bias is None else y + bias).transpose(0, 3, 1, 2)


# -- for a class -------------------------------------------------------------------------------------------------------


class Linear:
    """Built as torch.nn builds it, and called with x alone. Arrays are set by their names, `weight` and `bias`.

    Modes, where there are any, are switched by `train()` and `eval()` or by an attribute `training`. The state is what
    `state_dict()` returns, or else the attributes that are arrays.
    """

    def __init__(self, in_features, out_features, bias=True):
        self.dense = Dense(in_features, out_features, bias)

    def __call__(self, x):
        """(…, in_features) -> (…, out_features)"""
        rows = x.reshape(prod(x.shape[:-1]), x.shape[-1])  # the library knows no other ranks
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
