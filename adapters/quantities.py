"""The quantities of each block that a domain can be declared for: sizes and arguments, by the names of its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.adapters.signatures import CHAIN, SIGNATURES, Arrays

MOST = 2**20  # no size beyond it is looked for


@dataclass(frozen=True)
class Quantity:
    """A size or an argument of a block. `of(arrays, arguments)` is its value in a call; None: the call has none."""

    name: str
    kind: str  # "size", "pair", "flag" or "number"
    of: Callable[[Arrays, Mapping[str, Any]], Any]
    least: int = 1
    neutral: Any = None  # the value with which the feature is absent
    equal_to: str = ""  # the quantity that it may be declared equal to

    @property
    def expected(self) -> str:
        """The values that can be declared, in words."""
        if self.kind == "flag":
            return "True or False"
        if self.kind == "number":
            return "a number, or one_of(…)"
        value = "an int or a pair (rows, columns)" if self.kind == "pair" else f"an int from {self.least} on"
        return f"{value}, one_of(…), multiple_of(n), at_most(n), at_least(n) or between(a, b)"


Value = Callable[[Arrays, Mapping[str, Any]], Any]


def normal(quantity: Quantity, value: Any) -> Any:
    """Return a value of a quantity in the form in which conditions compare it: a pair for an int."""
    if quantity.kind == "pair" and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return (int(value), int(value))
    return tuple(value) if isinstance(value, list) else value


def shown(value: Any) -> str:
    """Return a value as a reader writes it: one int for an equal pair."""
    return str(value[0]) if isinstance(value, tuple) and len({*value}) == 1 else repr(value)


# -- where a call has them ---------------------------------------------------------------------------------------------


def _shape(arrays: Arrays, name: str) -> tuple[int, ...] | None:
    array = arrays.get(name)
    return None if array is None else np.shape(array)


def _axis(name: str, axis: int, *dimensions: int) -> Value:
    """Return what gives the size of an axis of an array that has one of these numbers of dimensions."""

    def of(arrays: Arrays, _: Mapping[str, Any]) -> int | None:
        shape = _shape(arrays, name)
        return shape[axis] if shape is not None and len(shape) in dimensions else None

    return of


def _times_groups(axis: int) -> Value:
    """Return what gives an axis of the weight times the number of groups."""

    def of(arrays: Arrays, arguments: Mapping[str, Any]) -> int | None:
        shape, groups = _shape(arrays, "weight"), arguments.get("groups", 1)
        return None if shape is None or len(shape) != 4 else shape[axis] * groups

    return of


def _of_shape(name: str, function: Callable[[tuple[int, ...]], Any]) -> Value:
    """Return what gives a function of the shape of an array."""

    def of(arrays: Arrays, _: Mapping[str, Any]) -> Any:
        shape = _shape(arrays, name)
        return None if shape is None else function(shape)

    return of


def _argument(name: str, default: Any = None) -> Value:
    return lambda _, arguments: arguments.get(name, default)


def _present(name: str) -> Value:
    return lambda arrays, _: arrays[name] is not None if name in arrays else None


def _stride_of_pool(_: Arrays, arguments: Mapping[str, Any]) -> Any:
    """Return the stride of a pool: the kernel size where it is absent."""
    stride = arguments.get("stride")
    return arguments.get("kernel_size") if stride is None else stride


# -- the tables --------------------------------------------------------------------------------------------------------


def _by_name(*quantities: Quantity) -> dict[str, Quantity]:
    return {quantity.name: quantity for quantity in quantities}


def _of_arguments(stem: str, **kinds: str) -> tuple[Quantity, ...]:
    """Return quantities that are arguments of a block, with the kind of each."""
    neutral, least = SIGNATURES[stem].arguments, {"padding": 0, "output_padding": 0, "divisor_override": -MOST}
    return tuple(
        Quantity(name, kind, _argument(name, neutral[name]), least.get(name, 1), neutral[name])
        for name, kind in kinds.items()
    )


def _images() -> tuple[Quantity, ...]:
    return (
        Quantity("N", "size", _axis("x", 0, 4)),
        Quantity("H", "size", _axis("x", 2, 4)),
        Quantity("W", "size", _axis("x", 3, 4), equal_to="H"),
    )


def _convolution(stem: str, inputs: Value, outputs: Value, *pairs: str) -> dict[str, Quantity]:
    return _by_name(
        Quantity("in_channels", "size", inputs),
        Quantity("out_channels", "size", outputs, equal_to="in_channels"),
        Quantity("kernel_size", "pair", _of_shape("weight", lambda shape: shape[2:4] if len(shape) == 4 else None)),
        *_of_arguments(stem, **dict.fromkeys(("stride", "padding", "dilation", *pairs), "pair")),
        Quantity("groups", "size", _argument("groups", 1), neutral=1, equal_to="in_channels"),
        Quantity("bias", "flag", _present("bias"), neutral=False),
        *_images(),
    )


def _pool(stem: str, **kinds: str) -> dict[str, Quantity]:
    return _by_name(
        Quantity("kernel_size", "pair", _argument("kernel_size")),
        Quantity("stride", "pair", _stride_of_pool, equal_to="kernel_size"),
        *_of_arguments(stem, padding="pair", **kinds),
        Quantity("C", "size", _axis("x", 1, 4)),
        *_images(),
    )


QUANTITIES: dict[str, dict[str, Quantity]] = {
    "conv2d": _convolution("conv2d", _times_groups(1), _axis("weight", 0, 4)),
    "conv_transpose2d": _convolution("conv_transpose2d", _axis("weight", 0, 4), _times_groups(1), "output_padding"),
    "linear": _by_name(
        Quantity("in_features", "size", _axis("weight", 1, 2)),
        Quantity("out_features", "size", _axis("weight", 0, 2), equal_to="in_features"),
        Quantity("rows", "size", _of_shape("x", lambda shape: math.prod(shape[:-1]))),
        Quantity("ndim", "size", _of_shape("x", len)),
        Quantity("bias", "flag", _present("bias"), neutral=False),
    ),
    "relu": _by_name(
        Quantity("size", "size", _of_shape("x", math.prod)),
        Quantity("ndim", "size", _of_shape("x", len), least=0),
    ),
    "batch_norm": _by_name(
        Quantity("num_features", "size", _axis("x", 1, 2, 3, 4)),
        Quantity("training", "flag", _argument("training", False)),
        Quantity("affine", "flag", _present("weight")),
        Quantity("momentum", "number", _argument("momentum", 0.1), least=0, neutral=0.1),
        Quantity("eps", "number", _argument("eps", 1e-5), least=0, neutral=1e-5),
        Quantity("ndim", "size", _of_shape("x", len), least=2),
        *_images(),
    ),
    "max_pool2d": _pool("max_pool2d", dilation="pair", ceil_mode="flag"),
    "avg_pool2d": _pool("avg_pool2d", ceil_mode="flag", count_include_pad="flag", divisor_override="size"),
    "fused": _by_name(Quantity(CHAIN, "word", _argument(CHAIN))),
    "global_avg_pool2d": _by_name(Quantity("C", "size", _axis("x", 1, 4)), *_images()),
}
# the quantities that the classes of a block take by position
CONSTRUCTED = {
    **dict.fromkeys(("conv2d", "conv_transpose2d"), ("in_channels", "out_channels", "kernel_size")),
    "linear": ("in_features", "out_features"),
    "batch_norm": ("num_features",),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), ("kernel_size",)),
}
