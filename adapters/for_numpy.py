"""NumPy arrays, and layers written in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from nnspec.adapters.blame import Lacks
from nnspec.adapters.objects import Objects, get, reach
from nnspec.adapters.views import whole_of


class NumPy(Objects):
    """NumPy. A gradient is known only where the subject brings a vjp of its own."""

    name = "numpy"
    packages: tuple[str, ...] = ("numpy",)
    further_dtypes: tuple[str, ...] = ("float16",)
    strided = True

    def is_array(self, value: Any) -> bool:
        """Return whether a value is an array or a NumPy scalar."""
        return isinstance(value, np.ndarray | np.generic)

    def to_native(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return the array itself; NumPy scalars become arrays of no dimensions.

        An array of another library comes by DLPack, from a device as a copy.
        """
        if isinstance(value, np.ndarray | np.generic):
            return np.asarray(value)
        if not hasattr(value, "__dlpack__"):
            raise TypeError(f"returned {type(value).__name__}, expected a NumPy array")
        on_host = value.__dlpack_device__()[0] == 1
        return np.from_dlpack(value) if on_host else np.from_dlpack(value, device="cpu", copy=True)

    def versions(self) -> dict[str, str]:
        """Return NumPy's version."""
        return {"numpy": np.__version__}

    def surroundings(self, native: np.ndarray) -> np.ndarray:
        """Return a copy of the array that owns the operand's memory."""
        return whole_of(native).copy()

    def dirty(self, arrays: Sequence[np.ndarray]) -> Callable[[], None]:
        """Fill and free eight arrays of each size: NumPy and the C library keep seven of a size for the next arrays."""
        for array in arrays:
            filled = [array.copy() for _ in range(8)]
            del filled
        return lambda: None

    def differentiate_module(self, module: Any, x: Any, cotangent: Any) -> dict[str, Any]:
        """Return the gradient of x by module.vjp(x), the result and its pullback, and the `grad` of each parameter."""
        learned = holders(module)
        for holder in learned.values():
            holder.grad = None
        _, pullback = module.vjp(x)
        dx = pullback(cotangent)
        beside = module.gradients_beside() if hasattr(module, "gradients_beside") else {}
        return {**beside, **{key: holder.grad for key, holder in learned.items()}, "x": dx}

    def differentiate_part(self, module: Any, x: Any, cotangent: Any, wanted: Collection[str]) -> dict[str, Any]:
        """Return the wanted gradients, where every other parameter has `requires_grad` set to False."""
        for key, holder in holders(module).items():
            if not hasattr(holder, "requires_grad"):
                raise Lacks(f"{type(holder).__name__} has no requires_grad")
            holder.requires_grad = key in wanted
        found = self.differentiate_module(module, x, cotangent)
        return {key: found.get(key) for key in wanted}

    def follows(self, module: Any, key: str) -> bool:
        """Return what the holder of an entry says by `requires_grad`."""
        holder = get(*reach(module, key))
        if not hasattr(holder, "requires_grad"):
            raise Lacks(f"{type(holder).__name__} has no requires_grad")
        return bool(holder.requires_grad)

    def backward(self, module: Any, x: Any, cotangent: Any) -> Any:
        """Return module(x), after its pullback has added its gradients to the `grad` of each parameter."""
        y, pullback = module.vjp(x)
        pullback(cotangent)
        return y

    def watch(self, module: Any, name: str, note: Callable[[str, Any, Any], None]) -> Callable[[], None]:
        """Wrap the method `forward`, which each call of the module runs."""
        forward, own = module.forward, vars(module).get("forward")

        def noting(x: Any) -> Any:
            given = np.array(x)  # a later call may write to x
            y = forward(x)
            note(name, given, y)
            return y

        module.forward = noting
        return lambda: delattr(module, "forward") if own is None else setattr(module, "forward", own)


def holders(module: Any) -> dict[str, Any]:
    """Return own key -> what keeps the gradient of a parameter as `grad`."""
    named = module.named_parameters() if hasattr(module, "named_parameters") else vars(module).items()
    return {key: holder for key, holder in named if hasattr(holder, "grad")}
