"""A maximum pool in NumPy with a single mistake, which no test on the output of a ReLU would find.

nnspec check examples/numpy_mistake.py
"""

import numpy as np


def max_pool2d(x, *, kernel_size, stride=None, padding=0):
    """x (N, C, H, W) -> (N, C, OH, OW)"""
    (kh, kw), (ph, pw) = pair(kernel_size), pair(padding)
    (sh, sw) = (kh, kw) if stride is None else pair(stride)
    if min(kh, kw, sh, sw) < 1 or not (0 <= ph <= kh // 2 and 0 <= pw <= kw // 2):
        raise ValueError(f"{kernel_size=}, {stride=}, {padding=}: expected padding of at most half the window")
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, ::sh, ::sw]
    return windows.max(axis=(-2, -1))


def pair(value):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    return rows, columns
