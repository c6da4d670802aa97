"""NumPy arrays, and layers written in plain NumPy after torch.nn's conventions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from nnspec.adapters.roles import Held, find_held, get, reach

FURTHER_DTYPES: tuple[str, ...] = ("float16",)
AUTOMATIC = False  # a gradient is known only where the subject brings a vjp of its own


def to_native(array: np.ndarray) -> np.ndarray:
    """The array itself."""
    return array


def to_numpy(value: Any) -> np.ndarray:
    """The array itself; NumPy scalars become arrays of no dimensions."""
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"returned {type(value).__name__}, expected a NumPy array")
    return np.asarray(value)


def construct(cls: type, positional: tuple[Any, ...], keywords: Mapping[str, Any], dtype: np.dtype) -> Any:
    """cls(…), with `dtype` where its constructor takes one."""
    if "dtype" in inspect.signature(cls).parameters:
        return cls(*positional, **keywords, dtype=dtype)
    return cls(*positional, **keywords)


def load_entries(module: Any, entries: Mapping[str, np.ndarray]) -> None:
    """Assign each array to the attribute at its dotted key, or to its `data` where a Parameter or Buffer is there."""
    for key, array in entries.items():
        owner, name = reach(module, key)
        if owner is None:
            raise KeyError(key)
        holder = get(owner, name)
        if isinstance(getattr(holder, "data", None), np.ndarray):
            holder.data = array.copy()
            continue
        value = int(array) if isinstance(holder, int) else array.copy()
        if isinstance(owner, tuple):
            holder[...] = value
        elif isinstance(owner, list):
            owner[int(name)] = value
        elif isinstance(owner, dict):
            owner[name] = value
        else:
            setattr(owner, name, value)


def state(module: Any) -> dict[str, np.ndarray]:
    """state_dict() where there is one, otherwise the attributes that are arrays or hold one in `data`."""
    if hasattr(module, "state_dict"):
        return {key: np.array(value) for key, value in module.state_dict().items()}
    return {key: read(module, key) for key, found in held(module).items() if found.kind != "int"}


def read(module: Any, key: str) -> np.ndarray:
    """A copy of the array at this key of the state, or at this path of attributes. KeyError where there is none."""
    saved = module.state_dict() if hasattr(module, "state_dict") else {}
    owner, name = reach(module, key)
    value = saved[key] if key in saved else None if owner is None else get(owner, name)
    array = value if isinstance(value, np.ndarray | np.generic | int) else getattr(value, "data", None)
    if isinstance(array, bool) or not isinstance(array, np.ndarray | np.generic | int):
        raise KeyError(key)
    return np.array(array)


def held(module: Any) -> dict[str, Held]:
    """Path -> what the module holds: arrays, holders of arrays, and whole numbers."""

    def members(owner: Any) -> Iterable[tuple[str, Any]]:
        return vars(owner).items()

    def kind(owner: Any, name: str, value: Any) -> tuple[str, tuple[int, ...]] | None:
        array = value if isinstance(value, np.ndarray | np.generic | int) else getattr(value, "data", None)
        if isinstance(array, bool) or not isinstance(array, np.ndarray | np.generic | int):
            return None
        if isinstance(array, int):
            return "int", ()
        if not np.ndim(array) and array.dtype.kind in "iu":
            return "number", ()
        return "parameter" if hasattr(value, "grad") else "attribute", np.shape(array)

    return find_held(module, members, kind)


def differentiate(
    function: Callable[..., Any],
    vjp: Callable[..., Any] | None,
    operands: Sequence[Any],
    keywords: Mapping[str, Any],
    wanted: Sequence[bool],
    cotangents: Sequence[Any],
) -> list[Any]:
    """What the function's own vjp gives for each operand; an operand that is a string has no gradient."""
    if vjp is None:
        raise NotImplementedError(f"there is no {function.__name__}_vjp beside {function.__name__}")
    gradients = vjp(cotangents[0] if len(cotangents) == 1 else tuple(cotangents), *operands, **keywords)
    gradients = gradients if isinstance(gradients, tuple | list) else [gradients]
    arrays = [n for n, operand in enumerate(operands) if not isinstance(operand, str)]
    if len(gradients) != len(arrays):
        raise TypeError(f"{len(gradients)} gradients, expected {len(arrays)}, one for each array")
    by_place = dict(zip(arrays, gradients, strict=True))
    return [by_place[n] if wanted[n] else None for n in range(len(operands))]


def differentiate_again(
    function: Callable[..., Any],
    vjp_vjp: Callable[..., Any] | None,
    operands: Sequence[Any],
    keywords: Mapping[str, Any],
    wanted: Sequence[bool],
    cotangent: np.ndarray,
    tangent: np.ndarray,
) -> list[Any]:
    """What the function's own vjp of its vjp gives for the cotangent and each operand."""
    if vjp_vjp is None:
        raise NotImplementedError(f"there is no {function.__name__}_vjp_vjp beside {function.__name__}")
    gradients = vjp_vjp(tangent, cotangent, *operands, **keywords)
    return [g if w else None for g, w in zip(gradients, (True, *wanted), strict=True)]


def push_forward_twice(
    function: Callable[..., Any], operands: Sequence[Any], keywords: Mapping[str, Any], tangent: np.ndarray
) -> np.ndarray:
    """NumPy carries no derivatives forward."""
    raise NotImplementedError(f"there is nothing that carries the derivatives of {function.__name__} forward")


def differentiate_module(module: Any, x: Any, cotangent: Any) -> dict[str, Any]:
    """By module.vjp(x), the result and its pullback: the gradient of x, and by key the `grad` of each parameter."""
    named = module.named_parameters() if hasattr(module, "named_parameters") else vars(module).items()
    holders = {key: holder for key, holder in named if hasattr(holder, "grad")}
    for holder in holders.values():
        holder.grad = None
    _, pullback = module.vjp(x)
    dx = pullback(cotangent)
    beside = module.gradients_beside() if hasattr(module, "gradients_beside") else {}
    return {**beside, **{key: holder.grad for key, holder in holders.items()}, "x": dx}


def backward(module: Any, x: Any, cotangent: Any) -> Any:
    """module(x), after its pullback has added its gradients to the `grad` of each parameter."""
    y, pullback = module.vjp(x)
    pullback(cotangent)
    return y


def set_training(module: Any, training: bool) -> None:
    """train() or eval() where the module has them, else its attribute `training`."""
    if hasattr(module, "train") and hasattr(module, "eval"):
        module.train() if training else module.eval()
    else:
        module.training = training
