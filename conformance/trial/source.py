"""Values as Python text."""

from __future__ import annotations

import numpy as np
from nnspec.conformance.layouts import offset_of


def written(array: np.ndarray) -> str:
    """An array as Python source, with its layout where that is not the plain one."""
    offset = offset_of(array)
    if (array.flags.c_contiguous and not offset) or not array.size:
        return literal(array)
    return f"laid_out({literal(array)}, {array.strides}{f', {offset}' if offset else ''})"


def literal(array: np.ndarray) -> str:
    """An array as Python source."""
    kind = f"np.{array.dtype.name}"
    if not hasattr(np, array.dtype.name):  # one of ml_dtypes, which NumPy knows by name alone
        kind, array = repr(array.dtype.name), array.astype(np.float64)
    if array.size == 0:
        return f"np.zeros({array.shape}, {kind})"
    first = array.flat[0]
    if array.size > 8 and np.all(array == first):
        return f"np.full({array.shape}, {first.item()!r}, {kind})"
    return f"np.array({array.tolist()!r}, {kind})"
