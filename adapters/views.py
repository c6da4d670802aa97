"""Views: arrays that lie in the memory of another one."""

from __future__ import annotations

import numpy as np


def whole_of(array: np.ndarray) -> np.ndarray:
    """Return the array in whose memory another one lies; itself, if it is no part of another."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
