"""CuPy: NumPy's functions on arrays of a CUDA device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from nnspec.adapters.contract import Adapter

if TYPE_CHECKING:
    import cupy


class CuPy(Adapter):
    """CuPy. A gradient is known only where the subject brings a vjp of its own."""

    name = "cupy"
    packages = ("cupy", "cupyx")
    further_dtypes = ("float16",)
    preamble = "import cupy"

    def __init__(self, profile: str = "quick") -> None:
        global cupy
        import cupy

    def to_native(self, array: np.ndarray) -> cupy.ndarray:
        """Return a copy of the array on the current device."""
        return cupy.asarray(array)

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return a copy of the array on the host."""
        if not isinstance(value, cupy.ndarray):
            raise TypeError(f"returned {type(value).__name__}, expected a CuPy array")
        return cupy.asnumpy(value)

    def versions(self) -> dict[str, str]:
        """Return CuPy's version."""
        return {"cupy": cupy.__version__}
